"""Moves by a library and by exact draws keep their laws, and cross basins."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm, t

from generative import AgreementConditioned, GaussianStage, InvalidInput, problems
from inference import HMC, infer
from inference.gaussians.surrogate import flat
from inference.kernels.library import build, gather, worth
from inference.kernels.negative import PersistentNegative
from inference.moves.independence import offer
from tests.statistical import z_limit

POINT = jnp.full(1, 0.3)
NUMBER = 50_000


@pytest.fixture(scope="module")
def model():
    return problems.get("tilted_wells", d=1).model


def share_on_the_left(model, mean, spread, power=0.0):
    """By quadrature, of the Gaussian's agreeing part, given data to a power."""
    grid = np.linspace(-6, 6, 60_001)
    cost = np.asarray(jax.vmap(model.agreement.disagreement)(grid[:, None]))
    value = np.asarray(jax.vmap(model.log_likelihood)(grid[:, None]))
    log_weight = power * value - float(model.agreement.strength) * cost
    density = norm.pdf(grid, mean, spread) * np.exp(log_weight)
    return density[grid < 0].sum() / density.sum()


def conditioned(model, spread, number, seed):
    """Exact draws of the agreeing part of a Gaussian around 0 or around POINT."""
    centre = jnp.zeros(1) if spread > 1 else POINT
    stage = model.replace(second_stage=GaussianStage(spread)).second_stage
    law = AgreementConditioned(stage.around(centre), model.agreement)
    return law.sample_with_tries(jax.random.key(seed), (number,))[0]


def moved_by(library, model, start, seed, num_rows):
    keys = jax.random.split(jax.random.key(seed), len(start))
    return jax.jit(jax.vmap(lambda key, w: library.move(key, model, POINT, w, num_rows)))(
        keys, start
    )


@pytest.mark.parametrize(("centre", "is_right"), [(0.0, True), (0.5, False)])
@pytest.mark.parametrize(("num_draws", "number", "has_few"), [(4, 1, True), (1, 0.1, False)])
def test_a_step_leaves_q_invariant_if_the_base_is_that_of_the_draws(
    model, seed, num_draws, number, has_few, centre, is_right
):
    """A move chooses among two rows of many draws, or among all draws."""
    num_draws, number = num_draws * NUMBER // 64 * 64, int(number * NUMBER)
    draws = conditioned(model, 2**0.5, num_draws, seed)
    library = gather(model, draws, jnp.full(1, centre), jnp.full(1, 2**0.5))
    num_rows = jnp.asarray(2) if has_few else library.num_rows
    w = conditioned(model, 1.0, number, seed + 1)
    moved = moved_by(library, model.temper(0.0), w, seed + 2, num_rows)
    expected = share_on_the_left(model, 0.3, 1.0)
    error = np.sqrt(expected * (1 - expected) * (1 / number + 1 / num_draws))
    assert (abs(float((moved < 0).mean()) - expected) < z_limit() * error) == is_right


class Unnamed(GaussianStage):
    """A Gaussian that does not say so, whose weights are not known to be linear."""

    is_gaussian = False


def test_linear_weights_are_the_weights(model, seed):
    draws = conditioned(model, 2**0.5, 64 * 100, seed)
    start = conditioned(model, 1.0, 1000, seed + 1)
    moved = []
    for stage in (GaussianStage(1.0), Unnamed(1.0)):
        plain = model.replace(second_stage=stage).temper(0.0)
        library = gather(plain, draws, jnp.full(1, 0.5), jnp.full(1, 2**0.5))
        moved.append(moved_by(library, plain, start, seed + 2, library.num_rows))
    np.testing.assert_array_equal(*moved)


@pytest.mark.parametrize(("power", "is_right"), [(0.5, True), (0.0, False)])
def test_a_step_of_theta_2_feels_the_data_at_their_power(model, seed, power, is_right):
    draws = conditioned(model, 2**0.5, 4 * NUMBER, seed)
    library = gather(model, draws, jnp.zeros(1), jnp.full(1, 2**0.5))
    start = conditioned(model, 1.0, NUMBER, seed + 1)
    tempered = model.temper(jnp.asarray(power))
    moved = moved_by(library, tempered, start, seed + 2, jnp.asarray(2))
    expected = share_on_the_left(model, 0.3, 1.0, 0.5)
    error = np.sqrt(expected * (1 - expected) / NUMBER)
    assert (abs(float((moved < 0).mean()) - expected) < z_limit() * error) == is_right


def test_a_library_has_the_law_of_agreeing_draws(model, seed):
    libraries = [build(key, model).draws for key in jax.random.split(jax.random.key(seed), 4)]
    by_population = np.asarray(jnp.stack(libraries) < 0).reshape(32, -1).mean(axis=1)
    error = by_population.std(ddof=1) / np.sqrt(32)
    limit = t.isf(norm.sf(z_limit()), 31) * error
    assert limit < 0.02
    wide = share_on_the_left(model, 0.0, 2**0.5)
    off_centre = share_on_the_left(model, 0.3, 2**0.5)
    assert abs(by_population.mean() - wide) < limit < abs(by_population.mean() - off_centre)


def test_a_library_that_data_exclude_leaves_theta_2_where_it_is(model, seed):
    excluded = model.replace(log_likelihood=lambda theta: jnp.where(theta.sum() < 50, -jnp.inf, 0))
    library = build(jax.random.key(seed), excluded)
    assert int(library.num_rows_2) == len(library.draws) // 64 > int(library.num_rows)
    start = jnp.full((100, 1), 60.0)
    moved = moved_by(library, excluded, start, seed, library.num_rows_2)
    assert (moved == start).all()


def test_its_worth_falls_as_the_law_narrows(model, seed):
    model = model.temper(0.0)
    library = build(jax.random.key(seed), model)
    numbers = [
        float(worth(library, model.replace(second_stage=GaussianStage(s)), POINT[None])[0])
        for s in (2**0.5, 1.0, 0.1)
    ]
    assert numbers[0] > 0.9 * len(library.draws)
    assert numbers[0] > numbers[1] > numbers[2] > 1


def test_a_sampler_made_for_other_theta_1_is_worth_more_there(seed):
    problem = problems.get("separate_wells", d=4)
    model, truth = problem.model, problem.truth
    rng = np.random.default_rng(seed)
    theta_1 = jnp.asarray(rng.multivariate_normal(truth.mean_1, truth.cov_1, 256))
    key = jax.random.key(seed)
    w = np.asarray(theta_1)  # as good as any for a library
    first = PersistentNegative(library=build(key, model))
    made = first.made_for(key, model, np.asarray(theta_1), w)
    assert jax.tree.structure(made) == jax.tree.structure(first)
    alone = model.temper(0.0)
    before, after = (np.median(worth(x.library, alone, theta_1)) for x in (first, made))
    assert after > 5 * before
    # One that needs all of its rows is made anew wherever it is asked for.
    worst = replace(first.library, num_rows=jnp.asarray(len(first.library.draws) // 64))
    again = PersistentNegative(library=worst).made_for(key, model, np.asarray(theta_1), w)
    assert not np.array_equal(again.library.draws, worst.draws)
    # Where it is made matters, and not for how wide a cloud of theta_1.
    point = np.repeat(np.asarray(theta_1).mean(axis=0)[None], 64, axis=0)
    of_point = first.made_for(key, model, point, point)
    assert np.median(worth(of_point.library, alone, theta_1)) > after / 3


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


@pytest.mark.parametrize(("power", "is_right"), [(0.5, True), (0.0, False)])
def test_an_offered_draw_of_q_is_taken_by_the_data_alone(model, seed, power, is_right):
    pool = conditioned(model, 1.0, 4 * NUMBER, seed)
    tempered = model.temper(jnp.asarray(power))

    def offered(theta_2, key):
        key_draw, key_offer = jax.random.split(key)
        drawn = pool[jax.random.randint(key_draw, (), 0, len(pool))]
        return offer(key_offer, tempered, theta_2, drawn, jnp.ones((), bool)), None

    def chain(key, theta_2):
        return jax.lax.scan(offered, theta_2, jax.random.split(key, 20))[0]

    keys = jax.random.split(jax.random.key(seed + 1), NUMBER)
    moved = jax.jit(jax.vmap(chain))(keys, pool[:NUMBER])
    expected = share_on_the_left(model, 0.3, 1.0, 0.5)
    error = np.sqrt(expected * (1 - expected) / NUMBER)
    assert (abs(float((moved < 0).mean()) - expected) < z_limit() * error) == is_right
