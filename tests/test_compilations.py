"""A model is data: another one of the same structure compiles nothing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generative import GaussianStage, InvalidInput, TwoStageModel, problems
from generative.agreement import AgreementConditioned
from generative.parts import Column, Parts
from inference import HMC, SGLD, MaximumAPosteriori, RejectionGibbs, infer
from inference.compilations import Compilations
from inference.evidence.pilot import plan
from inference.evidence.population import Recipe
from inference.evidence.prior import Effort, annealed_prior
from inference.kernels.negative import PersistentNegative

BACKENDS = (
    RejectionGibbs(num_warmup=50, num_draws=50, evidence_particles=0),
    SGLD(num_warmup=80, num_draws=50, evidence_particles=0),
    # Of several starts, one or two may end in different places: log Z at two points then.
    MaximumAPosteriori(num_warmup=80, num_steps=50, num_starts=1),
)


def compiled(model, backend):
    found = Compilations()
    infer(model, backend, progress=False)
    return found.needed


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: type(backend).__name__)
def test_a_second_model_compiles_nothing(backend):
    first = problems.get("double_well").model
    infer(first, backend, progress=False)
    # Built anew, with another lambda and prior scale.
    second = problems.get("double_well").model.replace(
        agreement_strength=2.9, first_stage=GaussianStage(1.1)
    )
    assert compiled(second, backend) == 0


@pytest.mark.parametrize("method", ["vectorized", "sequential"])
def test_nuts_on_a_second_model_compiles_nothing(method):
    backend = HMC(num_warmup=40, num_draws=20, evidence_particles=0, chain_method=method)
    first, second = (problems.get("linear_gaussian", d=3, seed=seed).model for seed in (0, 1))
    infer(first, backend, progress=False)
    assert compiled(second, backend) == 0


def closure_model(shift):
    return TwoStageModel(
        jnp.zeros(2),
        GaussianStage(1.0),
        GaussianStage(1.0),
        disagreement=lambda theta: jnp.sum((theta - shift) ** 2),
    )


def test_what_a_closure_holds_is_compiled_anew():
    backend = BACKENDS[0]
    infer(closure_model(0.3), backend, progress=False)
    assert compiled(closure_model(0.4), backend) > 0


def test_a_run_tells_how_many_programs_it_compiled():
    model, backend = closure_model(0.5), BACKENDS[0]
    found = Compilations()
    run = infer(model, backend, progress=False)
    assert 0 <= run.tree.attrs["compilations"] <= found.needed
    assert infer(model, backend, progress=False).tree.attrs["compilations"] == 0


def test_pilots_share_their_programs():
    def planned(model):
        prior = annealed_prior(Recipe(model, PersistentNegative(8), 8))
        found = Compilations()
        plan(prior, jax.random.key(0), Effort(2, 8, 1))
        return found.needed

    model = problems.get("double_well").model
    planned(model)
    assert planned(model.replace(agreement_strength=2.8)) == 0


@pytest.mark.parametrize("name", ["digits", "jevons", "rotated_wells", "linear_gaussian"])
def test_problems_of_equal_shapes_have_one_structure(name):
    first, second = (problems.get(name, seed=seed).model for seed in (0, 1))
    assert jax.tree.structure(first) == jax.tree.structure(second)
    leaves = [x for x in jax.tree.leaves((first, second)) if not hasattr(x, "dtype")]
    assert leaves == []


def test_a_model_survives_the_round_trip_of_its_leaves():
    model = problems.get("jevons").model
    leaves, structure = jax.tree.flatten(model)
    again = jax.tree.unflatten(structure, leaves)
    assert list(again.questions) == list(model.questions)
    for name, columns in model.columns.items():
        assert list(again.columns[name]) == list(columns)
        for column, values in columns.items():
            np.testing.assert_array_equal(again.columns[name][column], values)
    theta = model.space.origin
    np.testing.assert_array_equal(again.log_likelihood(theta), model.log_likelihood(theta))


@pytest.mark.parametrize("values", [["yes", "", "perhaps"], [True, False], [1.5, np.nan], [3]])
def test_columns_keep_their_values(values):
    column = Column(values)
    assert all(leaf.dtype.kind in "biuf" for leaf in jax.tree.leaves(column))
    np.testing.assert_array_equal(column.values, np.asarray(values))


@pytest.mark.parametrize(
    "whole",
    [abs, {"b": np.ones(2), "a": [1, "text", None]}, jax.tree_util.Partial(max, 1)],
    ids=["function", "mapping", "partial"],
)
def test_parts_give_back_the_whole(whole):
    found = Parts(whole)
    assert hash(jax.tree.structure(found)) == hash(jax.tree.structure(Parts(whole)))
    assert jax.tree.all(jax.tree.map(np.array_equal, [found.whole], [whole])) or (
        callable(whole) and found.whole(-3) == whole(-3)
    )


def test_what_has_no_order_is_one_opaque_part():
    whole = {1: 2, "a": 3}
    found = Parts(whole)
    assert found.arrays == ()
    assert found.whole is whole


def test_methods_of_a_model_compile_by_themselves():
    model = problems.get("double_well").model
    for function in (model.log_likelihood, model.disagreement, model.agreement.disagreement):
        assert np.isfinite(jax.jit(function)(model.space.origin))


def test_a_model_with_tracers_is_refused_where_values_are_needed():
    with pytest.raises((InvalidInput, jax.errors.JAXTypeError)):
        jax.jit(
            lambda s: problems.get("double_well").model.replace(agreement_strength=s).dimension
        )(1.0)


class Mutable:
    """A callable with a state."""

    def __init__(self, k):
        self.k = k

    def __call__(self, theta):
        return self.k * jnp.sum(theta**2)


class Static(eqx.Module):
    """A callable whose static field is unhashable."""

    k: list = eqx.field(static=True)

    def __call__(self, theta):
        return self.k[0] * jnp.sum(theta**2)


def value_of(function):
    model = TwoStageModel(
        jnp.ones(2), GaussianStage(1.0), GaussianStage(1.0), disagreement=function
    )
    return float(disagreement_at(model))


@jax.jit
def disagreement_at(model):
    return model.disagreement(model.space.origin)


def scaled(k, theta):
    return jnp.sum(theta**2) * (3.0 if k is True else k)


@pytest.mark.parametrize("make", [Mutable, lambda k: Mutable(k).__call__, lambda k: Static([k])])
def test_what_may_change_is_compiled_anew(make):
    assert [value_of(make(k)) for k in (1.0, 5.0)] == [2.0, 10.0]


def test_a_state_that_changed_is_seen_by_the_next_model():
    function = Mutable(1.0)
    assert value_of(function) == 2.0
    function.k = 5.0
    assert value_of(function) == 10.0


def test_true_is_not_one():
    partials = [jax.tree_util.Partial(scaled, k) for k in (1, True)]
    assert [value_of(partial) for partial in partials] == [2.0, 6.0]


@pytest.mark.parametrize("dtype", [">i4", ">f4", ">U3", np.longdouble])
def test_columns_of_any_byte_order(dtype):
    values = np.array([1, 2, 3]).astype(dtype)
    column = jax.tree.map(np.asarray, Column(values))
    assert list(column.values.astype(str)) == list(values.astype(str))
    jax.jit(lambda column: None)(column)


def test_a_batch_of_agreements_is_refused():
    model = problems.get("linear_gaussian", d=2).model

    def law(theta_1):
        return AgreementConditioned(model.second_stage.around(theta_1), model.agreement)

    points = jnp.ones((3, 2))
    assert law(points).log_prob(points).shape == (3,)
    with pytest.raises(InvalidInput, match="agreement"):
        jax.vmap(law)(points).log_prob(points)
