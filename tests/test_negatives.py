"""Draws of q(. | theta_1) where its modes are unequal and far apart; each check with its control."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generative import GaussianStage, InvalidInput, LaplaceStage, TwoStageModel, problems
from inference import SGLD, MaximumAPosteriori, TemperedSMC, infer
from inference.annealing.anneal import anneal
from inference.annealing.certificate import check_exchangeable, check_fresh
from inference.annealing.conditional_smc import (
    annealed_draws,
    annealed_populations,
    conditional_sweep,
    conditional_systematic,
)
from inference.annealing.path import Path
from inference.gaussians.surrogate import flat
from inference.kernels import negative_choice
from inference.kernels.annealed_negative import AnnealedNegative
from inference.kernels.langevin.continuity import require_continuous
from inference.kernels.langevin.dynamics import LangevinTuning
from inference.kernels.langevin.steps import Langevin
from inference.kernels.langevin.tuning import flat_metric
from inference.kernels.negative import PersistentNegative
from inference.kernels.negative_choice import choose, without_rejection
from inference.moves.independence import independence_step
from tests.statistical import z_limit

GRID = np.linspace(-5.0, 5.0, 4001)


def tilted():
    """Wells of unequal mass, fifteen nats apart, in one dimension."""
    return problems.get("tilted_wells", d=1).model


def left_share(theta_1):
    """Mass of the left well under q(. | theta_1), on a grid."""
    penalty = (GRID**2 - 1) ** 2 / 4 + (1 - np.tanh(4 * GRID)) / 60
    weight = np.exp(-0.5 * (GRID - theta_1) ** 2 - 60 * penalty)
    return weight[GRID < 0].sum() / weight.sum()


def share_z(draws, expected):
    """z-score of the share of independent draws in the left well."""
    found = np.asarray(draws).ravel() < 0
    return (found.mean() - expected) / np.sqrt(expected * (1 - expected) / len(found))


@pytest.mark.parametrize("theta_1", [-0.3, 0.0])
def test_annealed_draws_have_the_law_of_q(seed, theta_1):
    points = jnp.full((8192, 1), theta_1)
    draws = annealed_draws(jax.random.key(seed), tilted(), points, 16, 2)
    assert abs(share_z(draws, left_share(theta_1))) < z_limit(2)


@pytest.mark.parametrize(("d", "renews"), [(1, True), (20, False)])
def test_fresh_proposals_are_made_where_they_are_accepted(seed, d, renews):
    model = problems.get("linear_gaussian", d=d, closed_form=False).model
    exact = problems.get("linear_gaussian", d=d).model.agreement.closed_form
    keys = jax.random.split(jax.random.key(seed), 3)
    theta_1 = np.asarray(model.first_stage.around(model.space.origin).sample(keys[0], (64,)))
    w = np.asarray(jax.vmap(exact.sample)(jax.random.split(keys[1], 64), theta_1))
    sampler = PersistentNegative().made_for(keys[2], model, theta_1, w)
    assert bool(sampler.renews) == renews
    # Trajectories this short go nowhere.
    settings = (flat(model), jnp.asarray(1e-9), jnp.asarray(64))
    moved = sampler(keys[2], model, jnp.asarray(theta_1[0]), jnp.asarray(w[0]), *settings)[0]
    assert np.allclose(moved, w[0], atol=1e-5) != renews


def test_draws_of_one_population_have_the_law_of_q_wherever_they_stand(seed):
    places = (-0.3, 0.4)
    points = np.repeat(places, 2048)[:, None]
    draws = annealed_draws(jax.random.key(seed), tilted(), points, 16, 2, 4).reshape(2, 2048, 4)
    for found, own, other in zip(draws, places, places[::-1], strict=True):
        for position in range(4):
            at = found[:, position]
            assert (
                abs(share_z(at, left_share(own))) < z_limit(8) < abs(share_z(at, left_share(other)))
            )


def test_means_over_conditional_populations_are_means_under_q(seed):
    """Eight particles, one sweep from draws; such populations without a draw are wrong, below."""
    theta_1, expected = np.zeros((4096, 1)), left_share(0.0)
    key_start, key_made = jax.random.split(jax.random.key(seed))
    starts = annealed_draws(key_start, tilted(), theta_1, 64, 8)
    populations, _ = annealed_populations(key_made, tilted(), theta_1, 8, 1, starts)
    assert populations.shape == (4096, 8, 1)
    shares = (populations[..., 0] < 0).mean(axis=1)
    error = shares.std() / np.sqrt(len(shares))
    assert abs(shares.mean() - expected) < z_limit(2) * error
    assert abs(share_z(populations[:, 0], expected)) < z_limit(2)
    # Particles of a population depend on each other, and yet say more than one of them does.
    of_one = np.sqrt(expected * (1 - expected) / len(shares))
    assert 1.1 * of_one / np.sqrt(8) < error < 0.9 * of_one


def test_small_annealed_populations_alone_do_not(seed):
    model, point = tilted(), jnp.zeros(1)
    keys = jax.random.split(jax.random.key(seed), 4096)
    draws = jax.jit(jax.vmap(lambda key: anneal(key, model, point, 8).particles[0]))(keys)
    assert share_z(draws, left_share(0.0)) > z_limit(4)


@pytest.mark.parametrize("well", [-1.0, 1.0])
def test_a_conditional_sweep_forgets_its_well(seed, well):
    model, point = tilted(), jnp.zeros(1)
    schedule = anneal(jax.random.key(seed), model, point, 64).schedule
    path = Path(model, point, flat(model))

    def four_sweeps(key):
        draw = jnp.full(1, well)
        for key_sweep in jax.random.split(key, 4):
            draw = conditional_sweep(key_sweep, path, schedule, draw, 16, 64)[0]
        return draw

    draws = jax.jit(jax.vmap(four_sweeps))(jax.random.split(jax.random.key(seed + 1), 4096))
    assert abs(share_z(draws, left_share(0.0))) < z_limit(2)


def test_persistent_moves_do_not_forget_it(seed):
    model = tilted()
    move = PersistentNegative()

    def moved(key):
        settings = (flat(model), jnp.asarray(0.1), jnp.asarray(2))
        return move(key, model, jnp.zeros(1), jnp.full(1, -1.0), *settings)[0]

    draws = jax.jit(jax.vmap(moved))(jax.random.split(jax.random.key(seed), 4096))
    assert share_z(draws, left_share(0.0)) > z_limit(2)


def test_conditional_systematic_resampling_keeps_every_share(seed):
    weights = jnp.asarray([0.05, 0.4, 0.3, 0.25])
    keys = jax.random.split(jax.random.key(seed), 20_000)
    chosen = np.asarray(jax.vmap(lambda key: conditional_systematic(key, weights))(keys))
    assert (chosen[:, 0] == 0).all()
    # Retained particle of weight W_0 first: expected copies follow from (1 - offspring) exactly.
    first = np.asarray(jax.random.uniform(jax.random.key(1), (200_000,))) * 0.05
    points = (first[:, None] + np.arange(4) / 4) % 1
    expected = np.searchsorted(np.cumsum(weights), points, side="right")
    for slot in range(1, 4):
        for index in range(4):
            p = np.mean(expected[:, slot] == index)
            z = (np.mean(chosen[:, slot] == index) - p) / np.sqrt(p * (1 - p) / 20_000 + 1e-12)
            assert abs(z) < z_limit(12)


def exchanged(key, model, ordered, monkeypatch):
    """theta_2 and w as two positions of one annealed population at each theta_1."""
    if ordered:
        jax.clear_caches()  # what is compiled already has a random order
        monkeypatch.setattr(jax.random, "permutation", lambda key, number: jnp.arange(number))
    theta_1 = jax.random.normal(jax.random.key(5), (2048, 1))
    keys = jax.random.split(key, len(theta_1))

    def pair(key, point):
        found = anneal(key, model, point, 32).particles
        return found[0], found[16]

    theta_2, negative = jax.jit(jax.vmap(pair))(keys, theta_1)
    if ordered:
        jax.clear_caches()
    return (np.asarray(x).reshape(8, -1, 1) for x in (theta_1, theta_2, negative))


@pytest.mark.parametrize("ordered", [False, True])
def test_positions_of_a_population_are_exchangeable(seed, ordered, monkeypatch):
    model = tilted()
    check = check_exchangeable(model, *exchanged(jax.random.key(seed), model, ordered, monkeypatch))
    assert check.passed != ordered, check.message


@pytest.mark.parametrize("stuck", [False, True])
def test_fresh_draws_show_a_well_that_is_never_visited(seed, stuck):
    model = problems.get("separate_wells", d=3).model
    theta_1 = -0.2 + 0.3 * jax.random.normal(jax.random.key(seed), (256, 3))
    draws = annealed_draws(jax.random.key(seed + 1), model, theta_1, 32)
    draws = -np.abs(draws) if stuck else draws
    batch = (np.asarray(x).reshape(4, 64, 3) for x in (theta_1, draws))
    check = check_fresh(model, jax.random.key(seed + 2), *batch, 256)
    assert check.passed != stuck, check.message
    assert ("it sees shifts above" in check.message) != stuck


def test_few_separated_wells_get_a_library_and_smooth_ones_do_not():
    sampler, note = choose(problems.get("tilted_wells", d=2).model, "auto", 1000, 32, 16)
    assert isinstance(sampler, PersistentNegative), note
    assert sampler.library is not None, note
    sampler, note = choose(problems.get("rotated_wells", d=5).model, "auto", 1000, 32, 16)
    assert isinstance(sampler, PersistentNegative), note
    assert sampler.library is None, note


def test_many_separated_wells_are_annealed():
    model = problems.get("separate_wells", d=12).model
    sampler, note = without_rejection(model, 32, 16, "so")
    assert isinstance(sampler, AnnealedNegative), note


@pytest.mark.parametrize(("name", "needed"), [("separate_wells", True), ("double_well", False)])
def test_fresh_proposals_that_are_needed_stay(name, needed):
    model = problems.get(name, d=1).model if needed else problems.get(name).model
    sampler, note = without_rejection(model, 32, 64, "so")
    assert isinstance(sampler, PersistentNegative) and sampler.library is None, note
    assert sampler.always_renews == needed
    # Where C is huge but at the samples hardly any fresh one is accepted.
    deep = model.replace(agreement_strength=1e6)
    theta_1 = w = np.ones((64, 1))
    made = sampler.made_for(jax.random.key(0), deep, theta_1, w)
    assert bool(made.renews) == needed


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_quadratic_agreement_alone_is_spared_the_trial(monkeypatch, dtype):
    """What looks quadratic by its values or by its gradient only is tried."""

    def tried(*_):
        raise RuntimeError("tried")

    def choice(disagreement, stage=GaussianStage):
        first, second = GaussianStage(1.0), stage(0.5)
        settings = {"disagreement": disagreement, "agreement_strength": 50.0}
        model = TwoStageModel(jnp.zeros(3, dtype), first, second, **settings)
        return without_rejection(model, 32, 16, "so")[0]

    monkeypatch.setattr(negative_choice, "_Trial", tried)
    mixing = jnp.asarray([[1.0, 2.0, 0.0], [0.0, 1e-3, 1.0]], dtype)
    found = choice(lambda t: jnp.sum((mixing @ t - 1) ** 2))
    assert isinstance(found, PersistentNegative) and found.library is None
    steps = {
        "flat but for jumps": lambda t: jnp.where(t[0] > 0, 1.0, 0.0),
        "a small wave": lambda t: jnp.sum(t**2) + 1e-2 * (1 + jnp.sin(t[0])),
        "a kink": lambda t: jnp.sum(jnp.abs(t)),
        "a plateau with two holes": lambda t: jnp.minimum(((jnp.abs(t[0]) - 1.3) / 0.05) ** 2, 1),
        "NaN somewhere": lambda t: jnp.sum(t**2) + jnp.sqrt(t[0]),
    }
    for disagreement in steps.values():
        with pytest.raises(RuntimeError, match="tried"):
            choice(disagreement)
    with pytest.raises(RuntimeError, match="tried"):
        choice(lambda t: jnp.sum(t**2), LaplaceStage)


def with_a_jump(t):
    return jnp.where(t[0] > 0, 1.0, 0.0) + 0.1 * jnp.sum(t**2)


CONTINUOUS = {
    "kinks": lambda t: jnp.sum(jnp.abs(t - 0.3)),
    "steep": lambda t: jnp.tanh(1e3 * t[0]) + 1,
    "wells": lambda t: jnp.sum((t**2 - 1) ** 2),
}


def agreeing(disagreement, dtype):
    stages = (GaussianStage(1.0), GaussianStage(0.5))
    return TwoStageModel(
        jnp.zeros(3, dtype), *stages, disagreement=disagreement, agreement_strength=50.0
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_jumps_are_told_from_kinks_and_slopes(dtype):
    for disagreement in CONTINUOUS.values():
        require_continuous(agreeing(disagreement, dtype), "SGLD")
    with pytest.raises(InvalidInput, match="a jump of 50 nats"):
        require_continuous(agreeing(with_a_jump, dtype), "SGLD")


@pytest.mark.parametrize("backend", [SGLD(), MaximumAPosteriori()])
def test_backends_that_follow_gradients_refuse_a_plateau(backend):
    with pytest.raises(InvalidInput, match="a jump of 20 nats"):
        infer(problems.get("indicator").model, backend, progress=False)


def langevin_variance_z(refreshed, seed, num_chains, num_steps=200):
    """z-score of Var(theta_2 - theta_1) of Langevin chains on a mild Gaussian agreement.

    `refreshed` lets theta_2 also be proposed afresh, by a Metropolis step on x, where it is y that
    has the target's law.
    """
    problem = problems.get(
        "linear_gaussian",
        d=1,
        m=1,
        num_observations=1,
        second_scale=1.0,
        agreement_strength=0.1,
        closed_form=False,
        form="disagreement",
        seed=17,
    )
    model = problem.model
    kernel = Langevin(model)
    # Small steps of many negative samples: what is left is the law of y at a stable step.
    tuning = LangevinTuning(flat_metric(model), jnp.asarray(0.4), jnp.asarray(0.4), jnp.asarray(40))

    def log_weight(theta):
        return model.log_likelihood(theta) - 0.1 * model.disagreement(theta)

    def step(state, key):
        key_step, key_fresh = jax.random.split(key)
        state = kernel.step(key_step, state, tuning)[0]
        if refreshed:
            moved = independence_step(key_fresh, model, state.theta_1, state.theta_2, log_weight)
            state = state._replace(theta_2=moved)
        return state, None

    def one(key):
        key_start, key_steps, key_read = jax.random.split(key, 3)
        draws = jax.random.normal(key_start, (6, 1))
        state = kernel.init(draws[0], draws[1], draws[2:])
        state, _ = jax.lax.scan(step, state, jax.random.split(key_steps, num_steps))
        point = kernel.read(key_read, state, tuning)
        return (point.theta_2 - point.theta_1)[0]

    shift = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), num_chains)))
    variance = float(problem.truth.cov_difference[0, 0])
    squares = (shift - shift.mean()) ** 2
    return (squares.mean() - variance) / (squares.std(ddof=1) / np.sqrt(num_chains))


@pytest.mark.parametrize("refreshed", [False, True])
def test_langevin_steps_keep_the_law_of_a_gaussian(seed, refreshed):
    score = langevin_variance_z(refreshed, seed, num_chains=8192)
    assert (abs(score) > z_limit(1)) == refreshed, score


@pytest.mark.parametrize(
    ("name", "options", "crosses"),
    [("tilted_wells", {"d": 1}, False), ("double_well", {}, True)],
)
def test_persistent_samples_must_cross_basins_in_one_sweep(name, options, crosses):
    model = problems.get(name, **options).model
    sampler, note = without_rejection(model, 32, 8, "a test")
    assert isinstance(sampler, PersistentNegative)
    assert (sampler.library is None) == crosses, note


@pytest.mark.slow
@pytest.mark.parametrize(("options", "is_right"), [({}, True), ({"num_moves": 8}, False)])
def test_populations_move_negative_samples_until_they_forget(seed, options, is_right):
    problem = problems.get("tilted_wells", d=1)
    backend = TemperedSMC(negative="annealed", max_doublings=0, num_fresh=0, **options)
    draws = backend.draw(problem.model, jax.random.key(seed)).values["theta_1"][..., 0]
    by_run = draws.mean(axis=1) - problem.truth.mean_1[0]
    z = by_run.mean() / (by_run.std(ddof=1) / np.sqrt(len(by_run)))
    assert (abs(z) < 5) == is_right
