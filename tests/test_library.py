"""Moves that borrow from a library keep q, and cross basins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from generative import AgreementConditioned, GaussianStage, InvalidInput, problems
from inference import HMC, infer
from inference.gaussians.surrogate import flat
from inference.kernels.library import Library, build
from inference.kernels.negative import PersistentNegative
from tests.statistical import z_limit

POINT = jnp.full(1, 0.3)
NUMBER = 50_000


@pytest.fixture(scope="module")
def model():
    return problems.get("tilted_wells", d=1).model


def share_on_the_left(model, mean, spread):
    """By quadrature, of the Gaussian's agreeing part."""
    grid = np.linspace(-6, 6, 60_001)
    cost = np.asarray(jax.vmap(model.agreement.disagreement)(grid[:, None]))
    density = norm.pdf(grid, mean, spread) * np.exp(-float(model.agreement.strength) * cost)
    return density[grid < 0].sum() / density.sum()


def conditioned(model, spread, number, seed):
    """Exact draws of the agreeing part of a Gaussian around 0 or around POINT."""
    centre = jnp.zeros(1) if spread > 1 else POINT
    stage = model.replace(second_stage=GaussianStage(spread)).second_stage
    law = AgreementConditioned(stage.around(centre), model.agreement)
    return law.sample_with_tries(jax.random.key(seed), (number,))[0]


@pytest.mark.parametrize(("centre", "is_right"), [(0.0, True), (0.5, False)])
def test_a_step_leaves_q_invariant_if_the_base_is_that_of_the_draws(model, seed, centre, is_right):
    draws = conditioned(model, 2**0.5, 4 * NUMBER, seed)
    library = Library(draws, jnp.full(1, centre), jnp.full(1, 2**0.5))
    w = conditioned(model, 1.0, NUMBER, seed + 1)
    keys = jax.random.split(jax.random.key(seed + 2), NUMBER)
    moved = jax.jit(jax.vmap(lambda key, w: library.step(key, model, POINT, w)))(keys, w)
    expected = share_on_the_left(model, 0.3, 1.0)
    error = np.sqrt(expected * (1 - expected) / NUMBER)
    assert (abs(float((moved < 0).mean()) - expected) < z_limit() * error) == is_right


def test_a_library_has_the_law_of_agreeing_draws(model, seed):
    library = build(jax.random.key(seed), model)
    expected = share_on_the_left(model, 0.0, 2**0.5)
    by_population = np.asarray(library.draws < 0).reshape(8, -1).mean(axis=1)
    error = by_population.std(ddof=1) / np.sqrt(8)
    assert abs(by_population.mean() - expected) < max(5 * error, 0.01)
    assert error < 0.01


@pytest.mark.parametrize("borrows", [True, False])
def test_negative_samples_that_borrow_leave_the_minor_basin(model, seed, borrows):
    library = build(jax.random.key(seed), model) if borrows else None
    sampler, metric, one = PersistentNegative(library=library), flat(model), jnp.asarray(1)

    def move(key):
        return sampler(key, model, POINT, -jnp.ones(1), metric, jnp.asarray(0.5), one)[0]

    moved = jax.jit(jax.vmap(move))(jax.random.split(jax.random.key(seed), 4000))
    share = float((moved < 0).mean())
    expected = share_on_the_left(model, 0.3, 1.0)
    assert (abs(share - expected) < 0.05) == borrows


def test_a_second_stage_that_fixes_a_block_is_refused():
    model = problems.get("double_well").model.replace(
        theta_0={"a": jnp.zeros(()), "b": jnp.zeros(())},
        first_stage=GaussianStage(1.0),
        second_stage=GaussianStage({"a": 1.0, "b": 0.0}),
        disagreement=lambda theta: (theta["a"] ** 2 - 1) ** 2,
        residuals=None,
        log_likelihood=None,
    )
    with pytest.raises(InvalidInput, match="library"):
        infer(model, HMC(negative="library"), progress=False)
