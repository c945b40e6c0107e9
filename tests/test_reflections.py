"""Changes of signs that leave a model as it is: refused where they do not, and used where they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from generative import GaussianStage, InvalidInput, TwoStageModel, problems, simulate
from generative.points import check_points
from generative.reflections import random_signs
from generative.setups import set_up
from inference import HMC, infer
from inference.answers import answers
from inference.batches import over_points
from inference.functionals import judged
from inference.moves.density import describe_pair
from inference.reflections import reflected
from inference.results.draws import Draws
from inference.results.sampled import verdict
from tests.oracles import coordinate_posterior
from tests.statistical import moments_z, z_limit

SMALL = {"num_small": 6, "num_held_out": 8, "scene": 3, "human": 2, "hidden": 1}
# What a chain does not cross: 30 nats between two modes, of which the data know no difference.
BARRIER = {
    "penalty": lambda t: np.log(np.cosh(t)),
    "log_likelihood": lambda t: -30 * (t**2 - 1) ** 2,
    "s1": 1.0,
    "s2": 1.0,
    "theta_0": 0.0,
    "observed": 1.0,
}


def two_modes(**changes):
    given = {
        "theta_0": jnp.zeros(1),
        "first_stage": GaussianStage(1.0),
        "second_stage": GaussianStage(1.0),
        "disagreement": lambda t: jnp.log(jnp.cosh(t[0])),
        "log_likelihood": lambda t: -30 * (t[0] ** 2 - 1) ** 2,
        "reflections": [-np.ones(1)],
    }
    return TwoStageModel(**(given | changes))


@pytest.mark.parametrize(
    ("world", "setting"),
    [
        ("digits", "uniform"),
        ("room", "uniform"),
        ("jevons", "split"),
        ("jevons", "intended-fixed"),
    ],
)
def test_units_of_networks(world, setting):
    model = problems.get(world, **SMALL, setting=setting).model
    assert model.reflections.shape == (6, model.dimension)
    check_points(model)
    for changed in (set_up(model, "one-stage"), set_up(model, "z-omitted")):
        np.testing.assert_array_equal(changed.reflections, model.reflections)
    wrong = model.reflections.copy()
    wrong[-1, -1] *= -1  # the instrumental head's bias, which no unit turns
    with pytest.raises(InvalidInput, match="reflections: found a change of disagreement"):
        check_points(model.replace(reflections=wrong))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"theta_0": jnp.ones(1)}, "theta_0 is not 0"),
        ({"disagreement": lambda t: jnp.exp(t[0])}, "change of disagreement"),
        ({"log_likelihood": lambda t: -jnp.exp(t[0])}, "change of log_likelihood"),
        ({"reflections": [np.zeros(1)]}, "1 or -1"),
        ({"reflections": [np.ones(2)]}, r"shape \(1,\)"),
        ({"reflections": [{"w": np.ones(1)}]}, "like theta_0"),
    ],
)
def test_what_is_no_reflection_is_refused_before_anything_is_drawn(changes, words):
    with pytest.raises(InvalidInput, match=words):
        infer(two_modes(**changes), HMC(), progress=False)


def test_products_of_reflections_are_uniform(seed):
    number = 20_000
    rows = np.array([[-1, 1, -1], [1, -1, -1]], np.int8)
    signs = random_signs(rows, np.random.default_rng(seed), (2, number // 2)).reshape(-1, 3)
    np.testing.assert_array_equal(signs[:, 0] * signs[:, 1], signs[:, 2])
    for x in (signs[:, 0], signs[:, 1], signs[:, 2]):
        assert abs(x.mean()) < z_limit(3) / np.sqrt(number)


def test_a_draw_is_reflected_as_a_whole(seed):
    model = problems.get("jevons", **SMALL).model
    draws = simulate(model.replace(agreement_strength=0.0), jax.random.key(seed), 32)
    pair = tuple(x.reshape(4, 8, -1) for x in (draws.theta_1, draws.theta_2))
    values = {"theta_1": pair[0], "theta_2": pair[1], "negative": pair[1] + 1, "lp": np.zeros(1)}
    found = reflected(model, jax.random.key(seed), values)
    ratio = found["theta_1"] / values["theta_1"]
    assert (np.abs(ratio) == 1).all() and (ratio < 0).any() and (ratio > 0).any()
    for name in ("theta_2", "negative"):
        np.testing.assert_array_equal(found[name], ratio * values[name])
    assert found["lp"] is values["lp"]
    flat = [tuple(x.reshape(32, -1) for x in (v["theta_1"], v["theta_2"])) for v in (values, found)]
    before, after = (over_points(jax.tree_util.Partial(describe_pair, model), x) for x in flat)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-10, atol=1e-10)
    assert reflected(model.replace(reflections=()), jax.random.key(seed), values) is values


def draws_of(model, seed):
    """Draws of both stages as four chains, with their statistics."""
    drawn = simulate(model.replace(agreement_strength=0.0), jax.random.key(seed), 400)
    pair = (np.asarray(drawn.theta_1), np.asarray(drawn.theta_2))
    statistics = over_points(jax.tree_util.Partial(describe_pair, model), pair)
    named = dict(zip(("theta_1", "theta_2"), pair, strict=True)) | statistics
    return {name: np.array(x).reshape(4, 100, *x.shape[1:]) for name, x in named.items()}


@pytest.mark.parametrize("with_answers", [True, False])
def test_what_is_judged_is_the_same_in_all_copies(with_answers, seed):
    model = problems.get("jevons", **SMALL).model
    values = draws_of(model, seed)
    answered = answers(model, values["theta_2"]) if with_answers else {}
    before = judged(model, values, answered)
    after = judged(model, reflected(model, jax.random.key(seed), values), answered)
    assert any(name.endswith("_squared") for name in before)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-10, atol=1e-10, err_msg=name)


def test_a_chain_that_never_moves_shows(seed):
    """Signs that change at random are not taken for moves."""
    model = problems.get("jevons", **SMALL).model
    values = draws_of(model, seed)
    for name in values:
        values[name][2] = values[name][2, :1]
    draws = Draws(reflected(model, jax.random.key(seed), values))
    _, checks = verdict(model, draws, answers(model, draws.values["theta_2"]))
    stuck = {check.name: check for check in checks}["variance"]
    assert not stuck.passed and "_squared" in stuck.message


BACKEND = HMC(num_warmup=200, num_draws=400, evidence_particles=0, num_renewed=0)


def test_two_modes_that_no_chain_crosses(seed):
    run = infer(two_modes(), BACKEND, seed=seed, progress=False)
    failed = {check.name for check in run.checks if not check.passed}
    assert not failed & {"rhat", "ess_bulk"}, failed
    truth = coordinate_posterior(**BARRIER)
    for index in (1, 2):
        draws = run.tree["posterior"][f"theta_{index}"].values
        mean, variance = (np.atleast_1d(truth[f"{what}_{index}"]) for what in ("mean", "cov"))
        assert np.abs(moments_z(draws, mean, np.diag(variance))).max() < z_limit(4)
    assert stats.binomtest(int((draws < 0).sum()), draws.size).pvalue > 1e-6
    assert any("nothing of how chains mix" in note for note in run.notes)


def test_signs_relative_to_each_other_are_judged(seed):
    """Of four modes the reflection makes two of each other: chains in unequal shares fail."""
    model = two_modes(
        theta_0=jnp.zeros(2),
        log_likelihood=lambda t: -30 * jnp.sum((t**2 - 1) ** 2),
        reflections=[-np.ones(2)],
    )
    rng = np.random.default_rng(seed)
    pair = rng.normal(np.ones((2, 4, 100, 2)), 0.1)
    pair[:, 0, :, 1] *= -1  # one chain of four
    flat = tuple(x.reshape(400, 2) for x in pair)
    statistics = over_points(jax.tree_util.Partial(describe_pair, model), flat)
    values = {name: np.asarray(x).reshape(4, 100) for name, x in statistics.items()}
    values |= {"theta_1": pair[0], "theta_2": pair[1]}
    _, checks = verdict(model, Draws(reflected(model, jax.random.key(seed), values)), {})
    assert not {check.name: check for check in checks}["rhat"].passed
    pair[:, 0, :, 1] *= -1
    found = judged(model, values, {})
    assert np.ptp(np.sign(found["theta_2"])) == 0


def test_two_modes_without_their_reflection(seed):
    """The control: chains that stay where they began say so."""
    run = infer(two_modes(reflections=()), BACKEND, seed=seed, progress=False)
    assert "rhat" in {check.name for check in run.checks if not check.passed}
