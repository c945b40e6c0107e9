"""Wrong inputs from Python: each is refused with one sentence before anything expensive runs."""

import string

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generative import (
    GaussianStage,
    InvalidInput,
    LinearResiduals,
    Stage,
    TwoStageModel,
    problems,
)
from generative.points import check_points

pytestmark = pytest.mark.usefixtures("wrong_types")
FEW = settings(max_examples=12, deadline=None, derandomize=True)
X = np.linspace(-1, 1, 6).reshape(3, 2)


def heads(theta, x):
    return jnp.stack([jax.nn.sigmoid(x @ theta), jnp.full(len(x), 0.5)])


def classes(theta, x):
    first = jax.nn.softmax(jnp.stack([x @ theta, x[:, 0], x[:, 1]], axis=1))
    return jnp.stack([first, jnp.full_like(first, 1 / 3)])


def squares(theta):
    return jnp.sum(theta**2)


def bernoulli(theta):
    numpyro.sample("y", dist.Bernoulli(logits=jnp.broadcast_to(theta[0], (3,))))


def answered(**changes):
    """A model with heads, questions, labels and columns."""
    given = {
        "heads": heads,
        "questions": {"small": X},
        "labels": {"small": [0, 1, 0]},
        "columns": {"small": {"difficulty": [0.1, 0.2, 0.3]}},
    }
    return model(**(given | changes))


def model(**changes):
    arguments = {
        "theta_0": jnp.zeros(2),
        "first_stage": GaussianStage(1.0),
        "second_stage": GaussianStage(0.5),
        "disagreement": squares,
    }
    return TwoStageModel(**(arguments | changes))


def refused(make, field=""):
    """One sentence that names the field, and nobody else's exception."""
    with pytest.raises(InvalidInput) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(field)
    return str(caught.value)


WRONG_MODELS = [
    ({"theta_0": jnp.zeros(2, int)}, "theta_0"),
    ({"theta_0": {"a": "text"}}, "theta_0.a"),
    ({"theta_0": {"a": jnp.zeros(2), "f": jax.nn.relu}}, "theta_0.f"),
    ({"theta_0": {"a": True}}, "theta_0.a"),
    ({"theta_0": {"a": 1j}}, "theta_0.a"),
    ({"theta_0": {"a": object()}}, "theta_0.a"),
    ({"theta_0": {"a": np.array(["x"])}}, "theta_0.a"),
    ({"theta_0": {"a": jax.random.key(0)}}, "theta_0.a"),
    ({"theta_0": {"a": {"b": 0.0}, "a.b": 0.0}}, "theta_0"),
    ({"theta_0": {1: 0.0, "x": 0.0}}, "theta_0"),
    ({"theta_0": {"a": np.array([np.inf])}}, "theta_0.a"),
    ({"theta_0": {}}, "theta_0"),
    ({"theta_0": None}, "theta_0"),
    ({"agreement_strength": "3"}, "agreement_strength"),
    ({"agreement_strength": True}, "agreement_strength"),
    ({"agreement_strength": None}, "agreement_strength"),
    ({"agreement_strength": [3.0]}, "agreement_strength"),
    ({"agreement_strength": 10**400}, "agreement_strength"),
    ({"agreement_strength": 1j}, "agreement_strength"),
    ({"first_stage": 1.0}, "first_stage"),
    ({"first_stage": GaussianStage}, "first_stage"),
    ({"second_stage": None}, "second_stage"),
    ({"second_stage": Stage(1.0)}, "second_stage"),
    ({"second_stage": dist.Normal(0, 1)}, "second_stage"),
    ({"first_stage": GaussianStage("3")}, "first_stage.scale"),
    ({"first_stage": GaussianStage(True)}, "first_stage.scale"),
    ({"first_stage": GaussianStage(None)}, "first_stage.scale"),
    ({"first_stage": GaussianStage([1.0, 2.0, 3.0])}, "first_stage.scale"),
    ({"first_stage": GaussianStage({"a": 1.0})}, "first_stage.scale"),
    ({"first_stage": GaussianStage(np.array(["a", "b"]))}, "first_stage.scale"),
    ({"disagreement": 3.0}, "disagreement"),
    ({"disagreement": "C"}, "disagreement"),
    ({"disagreement": lambda t: None}, "disagreement"),
    ({"disagreement": lambda t: "text"}, "disagreement"),
    ({"disagreement": lambda t: (t[0] ** 2, t[1])}, "disagreement"),
    ({"disagreement": lambda t: t[0] ** 2 + 0j}, "disagreement"),
    ({"disagreement": lambda t: 1 / 0}, "disagreement"),
    ({"disagreement": lambda t: t["a"]}, "disagreement"),
    ({"disagreement": lambda t, u: 0.0}, "disagreement"),
    ({"disagreement": lambda t: 1.0 if t[0] > 0 else 0.0}, "disagreement"),
    ({"disagreement": lambda t: float(np.sum(t))}, "disagreement"),
    ({"disagreement": lambda t: exit(0)}, "disagreement"),
    ({"disagreement": lambda t: jnp.inf * jnp.ones(())}, "disagreement"),
    ({"residuals": squares}, "disagreement"),
    ({"disagreement": None, "residuals": 3.0}, "residuals"),
    ({"disagreement": None, "residuals": squares}, "residuals"),
    ({"disagreement": None, "residuals": lambda t: jnp.zeros(0)}, "residuals"),
    ({"disagreement": None, "residuals": lambda t: jnp.zeros((2, 2))}, "residuals"),
    ({"disagreement": None, "residuals": LinearResiduals(np.eye(3), np.ones(3))}, "residuals"),
    ({"log_likelihood": 3.0}, "log_likelihood"),
    ({"log_likelihood": lambda t: None}, "log_likelihood"),
    ({"log_likelihood": lambda t: jnp.linalg.solve(t, t)}, "log_likelihood"),
    ({"log_likelihood": squares, "observation": bernoulli, "data": {"y": [1, 0, 1]}}, "log_like"),
    ({"observation": 3}, "observation"),
    ({"observation": bernoulli, "data": [1, 0, 1]}, "data"),
    ({"observation": bernoulli, "data": {3: [1, 0, 1]}}, "data"),
    ({"observation": bernoulli, "data": {"y": ["a", "b", "c"]}}, "data"),
    ({"observation": bernoulli, "data": {"y": [1, 0, [1]]}}, "data"),
    ({"observation": bernoulli, "data": {"y": [1, 0, np.nan]}}, "data"),
    ({"observation": lambda t: t["a"], "data": {"y": [1]}}, "observation"),
    ({"observation": lambda t: numpyro.sample("a/b", dist.Normal(t[0], 1))}, "observation"),
    ({"observation": lambda t: numpyro.sample("theta_1", dist.Normal(t[0], 1))}, "observation"),
    ({"data": {"y": [1]}}, "data"),
    ({"inputs": X}, "data"),
]


@pytest.mark.parametrize(("changes", "field"), WRONG_MODELS)
def test_models(changes, field):
    refused(lambda: model(**changes), field)


WRONG_ANSWERS = [
    ({"heads": None}, "questions"),
    ({"questions": None}, "questions"),
    ({"heads": 3}, "heads"),
    ({"heads": classes}, "labels['small']"),
    ({"heads": lambda t, x: heads(t, x)[:1]}, "heads"),
    ({"heads": lambda t, x: heads(t, x).T}, "heads"),
    ({"heads": lambda t, x: jnp.zeros(2)}, "heads"),
    ({"heads": lambda t, x: tuple(heads(t, x))}, "heads"),
    ({"heads": lambda t, x: None}, "heads"),
    ({"heads": lambda t: t}, "heads"),
    ({"heads": lambda t, x: heads(t, x["a"])}, "heads"),
    ({"heads": lambda t, x: jnp.zeros((2, len(x), 0)), "labels": None}, "heads"),
    ({"questions": [X]}, "questions"),
    ({"questions": {"small": X[:0]}}, "questions['small']"),
    ({"questions": {"small": "text"}}, "heads"),
    ({"questions": {"small": X[:, :1]}}, "heads"),
    ({"questions": {"other": X}}, "labels"),
    ({"labels": [0, 1, 0]}, "labels"),
    ({"labels": {"other": [0, 1, 0]}}, "labels"),
    ({"labels": {"small": [0, 1]}}, "labels"),
    ({"labels": {"small": [0]}}, "labels"),
    ({"labels": {"small": 1}}, "labels"),
    ({"labels": {"small": [[0, 1, 0]]}}, "labels"),
    ({"labels": {"small": ["a", "b", "c"]}}, "labels"),
    ({"labels": {"small": ["0", "1", "0"]}}, "labels"),
    ({"labels": {"small": [0, np.nan, 1]}}, "labels"),
    ({"labels": {"small": [0, -1, 1]}}, "labels"),
    ({"labels": {"small": [0, 2, 1]}}, "labels"),
    ({"labels": {"small": [0, 0.5, 1]}}, "labels"),
    ({"labels": {"small": None}}, "labels"),
    ({"columns": {"other": {"a": [1, 2, 3]}}}, "columns"),
    ({"columns": {"small": [1, 2, 3]}}, "columns"),
    ({"columns": {"small": {"a": [1, 2]}}}, "columns"),
    ({"columns": {"small": {"a": 1}}}, "columns"),
    ({"columns": {"small": {"a": [None, 1, 2]}}}, "columns"),
    ({"columns": {"small": {"a/b": [1, 2, 3]}}}, "columns"),
    ({"columns": {"small": {"label": [1, 2, 3], "kept_label": [1, 2, 3]}}}, "questions"),
]


@pytest.mark.parametrize(("changes", "field"), WRONG_ANSWERS)
def test_heads_questions_labels_and_columns(changes, field):
    refused(lambda: answered(**changes), field)


@pytest.mark.parametrize(
    "name",
    ["", " ", " a", "a/b", "/", ".", "..", "a\n", "\0", "\ud800", "theta_1", "theta_0", "chain"]
    + ["draw", "head", "parameter", "sample", "block", "x_dim_0", "squared_distance_1"],
)
def test_names_that_a_tree_cannot_hold(name):
    plain = {"labels": None, "columns": None}
    refused(lambda: answered(questions={name: X}, **plain), "questions")


def test_names_that_stand_for_two_things():
    plain = {"labels": None, "columns": None}
    refused(lambda: answered(questions={"a": X, "question_a": X}, **plain), "questions")
    refused(lambda: answered(questions={"y": X}, observation=bernoulli, **plain), "questions")
    refused(
        lambda: answered(questions={"a": X, "label_a": X}, labels={"a": [0, 1, 0]}, columns=None),
        "questions",
    )


def test_what_is_right_stays_right():
    assert answered().labels["small"].tolist() == [0, 1, 0]
    answered(labels={"small": [True, False, True]})
    answered(labels={"small": np.array([0.0, 1.0, 1.0])})
    answered(columns={"small": {"who": ["a", "b", "c"]}})
    many = answered(heads=classes, labels=None)
    assert many.answers(many.theta_0, X).shape == (2, 3, 3)
    model(agreement_strength=np.float32(3)), model(agreement_strength=jnp.asarray(2))
    for well in ({"disagreement": lambda t: 0.0}, {"log_likelihood": lambda t: -jnp.inf}):
        check_points(model(**well))
    check_points(model(disagreement=lambda t: jnp.where(t[0] > 0.5, jnp.inf, 0.0)))
    check_points(model(disagreement=lambda t: squares(t) - 1e-15))


WRONG_OPTIONS = [
    ("rotated_wells", {"d": "x"}),
    ("rotated_wells", {"d": 2.5}),
    ("rotated_wells", {"d": -1}),
    ("rotated_wells", {"d": 0}),
    ("rotated_wells", {"d": True}),
    ("rotated_wells", {"d": None}),
    ("rotated_wells", {"form": "C"}),
    ("rotated_wells", {"form": ["residuals"]}),
    ("rotated_wells", {"seed": -1}),
    ("double_well", {"form": 3}),
    ("double_well", {"d": 3}),
    ("linear_gaussian", {"m": 0}),
    ("linear_gaussian", {"m": 2.0}),
    ("linear_gaussian", {"closed_form": 1}),
    ("linear_gaussian", {"closed_form": "yes"}),
    ("linear_gaussian", {"noise": 0}),
    ("linear_gaussian", {"noise": -1.0}),
    ("linear_gaussian", {"noise": "small"}),
    ("linear_gaussian", {"first_scale": -1}),
    ("linear_gaussian", {"second_scale": float("inf")}),
    ("linear_gaussian", {"agreement_strength": True}),
    ("linear_gaussian", {"agreement_strength": -1.0}),
    ("linear_gaussian", {"num_observations": 0}),
    ("gaussian_mixture", {"num_modes": 0}),
    ("gaussian_mixture", {"width": 0}),
    ("gaussian_mixture", {"separation": "far"}),
    ("indicator", {"probability": 1}),
    ("indicator", {"probability": "half"}),
    ("spike_and_slab", {"spike": 3.0}),
    ("spike_and_slab", {"log_odds": float("nan")}),
    ("spike_and_slab", {"d": 0}),
    ("digits", {"num_small": 2.5}),
    ("digits", {"evidence": "votes"}),
    ("digits", {"scene": 0}),
    ("digits", {"stage": None}),
    ("jevons", {"predictable_errors": 1}),
    ("room", {"hypothetical": "no"}),
    ("room", {"colour": 1}),
    ("digits:f", {}),
    (":f", {}),
    ("m:", {}),
    (".a:f", {}),
    ("numpy:pi", {}),
    ("numpy:nothing", {}),
    ("math:sqrt", {}),
    ("builtins:dict", {}),
    (3, {}),
]


@pytest.mark.parametrize(("name", "options"), WRONG_OPTIONS)
def test_problems(name, options):
    refused(lambda: problems.get(name, **options))


_NUMBERS = st.one_of(
    st.text(), st.booleans(), st.none(), st.just(float("nan")), st.lists(st.none())
)


@FEW
@given(_NUMBERS)
def test_no_strength_is_made_up(strength):
    refused(lambda: model(agreement_strength=strength), "agreement_strength")


@FEW
@given(st.lists(st.floats() | st.integers() | st.text(max_size=3), max_size=5))
def test_labels_are_right_or_refused(labels):
    if len(labels) == 3 and all(x in (0, 1) for x in labels):
        answered(labels={"small": labels})
    else:
        refused(lambda: answered(labels={"small": labels}), "labels")


@FEW
@given(st.lists(st.integers(0, 4), max_size=4))
def test_shapes_of_answers_are_right_or_refused(shape):
    def wrong(theta, x):
        return jnp.zeros(shape) + 0 * jnp.sum(theta)

    fits = shape[:1] == [2] and len(shape) >= 2 and all(shape)
    if fits:
        answered(heads=wrong, labels=None, columns=None)
    else:
        refused(lambda: answered(heads=wrong, labels=None, columns=None))
    if shape != [2, 3]:
        refused(lambda: answered(heads=wrong))


@FEW
@given(st.text(alphabet=string.printable + "é\0\ud800", max_size=6))
def test_names_of_sets_are_kept_or_refused(name):
    plain = {"labels": None, "columns": None}
    if name.isprintable() and name.strip() == name != "" and "/" not in name and name.strip("."):
        assert name in answered(questions={name: X}, **plain).questions
    else:
        refused(lambda: answered(questions={name: X}, **plain), "questions")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_options_of_another_type(data):
    with_options = [n for n in problems.names() if problems.signature_of(n).parameters]
    name = data.draw(st.sampled_from(with_options))
    parameters = problems.signature_of(name).parameters
    option = data.draw(st.sampled_from(list(parameters)))
    wrong = {int: ["1", 1.5, True, -1, []], float: ["1", True, float("inf"), {}], bool: [0, "True"]}
    values = wrong.get(parameters[option].annotation, [object(), 7.5, True, ()])
    value = data.draw(st.sampled_from(values))
    refused(lambda: problems.get(name, **{option: value}), f"problem.{option}")
