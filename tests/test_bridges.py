"""The bridged exchange ratio is exact whatever was learned, and what is learned is the score."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from numpyro.infer import MCMC

from generative import (
    AgreementConditioned,
    GaussianStage,
    LaplaceStage,
    LinearGaussianAgreement,
    StudentTStage,
    problems,
)
from inference import HMC, Result, infer
from inference.annealing.conditional_smc import annealed_draws
from inference.backends.hmc import collect_exchange
from inference.gaussians.joint import first_variance, matched_variance, posterior_reference
from inference.gaussians.surrogate import (
    agreement_potential,
    fit,
    flat,
    likelihood_potential,
)
from inference.kernels.exchange.bridges import NUM_BRIDGES, progress
from inference.kernels.exchange.hmc import ExchangeHMC
from inference.kernels.exchange.learned import Correction, NormalizerSurrogate, Pairs, learn
from inference.kernels.exchange.transported import TransportedExchange
from inference.kernels.negative import PersistentNegative, RejectionNegative
from inference.moves.chain_kernel import start, sweeps
from inference.moves.density import first_draws, log_agreeing
from inference.moves.independence import independence_step
from inference.moves.reference_hmc import reference_hmc
from inference.running.loop import Loop
from tests.statistical import moments_z, z_limit


class Stretched(ExchangeHMC):
    """Carries negative samples by maps that do not keep volumes: wrong by their Jacobians."""

    def _carry(self, w, source, target):
        moved = target.theta_1 - source.theta_1
        return target.theta_1 + (w - source.theta_1) * jnp.exp(0.3 * moved)


class Leaning(ExchangeHMC):
    """Carries negative samples by a shift that its inverse does not undo."""

    def _carry(self, w, source, target):
        moved = target.theta_1 - source.theta_1
        return super()._carry(w, source, target) + 0.5 * w * jnp.sum(moved)


def wrong_correction(width=1):
    """Return a potential of slope up to one, which nothing was learned from."""
    units, ones = 128, jnp.ones((128, width))
    heights = jnp.where(jnp.arange(units) == 0, 2.0, 0.0)
    rows, linear = jnp.eye(width), jnp.full(width, -0.7)
    return Correction(rows, ones, jnp.zeros(units), heights, linear)


def bridged_draws(kernel, seed):
    """Draws of chains with six bridges, and an arbitrary correction."""
    state = start(kernel, jax.random.split(jax.random.key(seed), 16), 300)

    def corrected(plain):
        return replace(plain, scale=jnp.asarray(0.4), correction=wrong_correction())

    normalizer = jax.vmap(corrected)(state.tuning.normalizer)
    six = jnp.full_like(state.tuning.num_bridges, 6)
    tuning = state.tuning._replace(normalizer=normalizer, num_bridges=six)
    state = state._replace(tuning=tuning)
    loop = Loop(sweeps(kernel), Partial(collect_exchange, kernel.model))
    state, _ = loop.run(state, 300, "warm-up")
    return loop.run(state, 1500, "draws")[1]


@pytest.mark.parametrize(
    ("kernel", "negative", "mover", "is_right"),
    [
        (ExchangeHMC, RejectionNegative(), None, True),
        (ExchangeHMC, RejectionNegative(), PersistentNegative(), True),
        (ExchangeHMC, PersistentNegative(), None, True),
        (Stretched, RejectionNegative(), None, False),
        (Leaning, RejectionNegative(), PersistentNegative(), False),
    ],
    ids=["drawn", "drawn and moved", "persistent", "stretched", "leaning"],
)
def test_six_bridges_and_any_correction_keep_the_posterior(seed, kernel, negative, mover, is_right):
    problem = problems.get("double_well")
    chains = kernel(problem.model, negative, num_moves=16, mover=mover)
    draws = bridged_draws(chains, seed)
    scores = moments_z(draws["theta_1"], problem.truth.mean_1, problem.truth.cov_1)
    assert (np.abs(scores).max() < z_limit(2)) == is_right, scores


@pytest.fixture(scope="module")
def wells():
    """Return wells in four dimensions, theta_1 from the prior, and scores of log Z there."""
    problem = problems.get("rotated_wells", d=4)
    keys = jax.random.split(jax.random.key(1), 5)
    theta_1 = np.asarray(problem.model.first_stage.around(jnp.zeros(4)).sample(keys[0], (1024,)))
    halves = [
        np.mean([annealed_draws(key, problem.model, theta_1, 16) for key in pair], axis=0)
        for pair in (keys[1:3], keys[3:])
    ]
    spread = problem.model.second_stage.scale
    return problem, Pairs(jnp.asarray(theta_1), jnp.asarray((halves - theta_1) / spread**2))


def gradient(truth, theta_1):
    step = 1e-4 * np.eye(theta_1.shape[1])
    ends = [truth.log_normalizer(theta_1[:, None] + sign * step) for sign in (1, -1)]
    return (ends[0] - ends[1]) / 2e-4


def flat_quadratic(model):
    return start(
        ExchangeHMC(model, PersistentNegative()), jax.random.split(jax.random.key(0), 2), 0
    ).tuning.normalizer.quadratic


def test_the_score_of_log_z_is_learned_from_draws_alone(wells):
    problem, pairs = wells
    quadratic = jax.tree.map(lambda x: x[0], flat_quadratic(problem.model))
    learned, explained = learn(jax.random.key(2), problem.model, quadratic, pairs)
    assert learned.is_learned
    at = np.asarray(pairs.theta_1)
    truth = gradient(problem.truth, at)

    def error(surrogate):
        found = jax.vmap(lambda x: surrogate.score(problem.model, x))(at)
        return float(((found - truth) ** 2).sum() / ((truth - truth.mean(axis=0)) ** 2).sum())

    plain = NormalizerSurrogate.uncorrected(problem.model, quadratic)
    assert error(learned) < 0.1 < error(plain)
    assert abs(1 - error(learned) - float(explained)) < 0.1


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_a_quadratic_is_scaled_to_what_pairs_say(wells, factor, seed):
    problem, pairs = wells
    rng = np.random.default_rng(seed)
    matrix, variance = jnp.asarray(rng.normal(size=(4, 4))), jnp.full(4, 0.5)
    quadratic = LinearGaussianAgreement(matrix, jnp.ones(4), variance)
    truth = factor * np.asarray(jax.vmap(quadratic.score)(pairs.theta_1)) + np.arange(4)
    scores = jnp.asarray(truth + rng.normal(size=(2, *truth.shape)))
    learned, explained = learn(
        jax.random.key(seed), problem.model, quadratic, Pairs(pairs.theta_1, scores)
    )
    assert abs(float(learned.scale) - factor) < 0.1
    found = jax.vmap(lambda x: learned.score(problem.model, x))(pairs.theta_1)
    assert ((found - truth) ** 2).mean() < 0.1
    assert float(explained) > 0.8 or factor == 0


@pytest.mark.parametrize(
    "stage", [GaussianStage(0.4), LaplaceStage(0.4), StudentTStage(0.4, degrees_of_freedom=3.0)]
)
def test_samples_follow_a_scaled_score_where_it_is_their_mean(stage):
    model = problems.get("rotated_wells", d=3).model.replace(second_stage=stage)
    variance = model.second_stage.reference_variance
    quadratic = LinearGaussianAgreement(2 * jnp.eye(3), jnp.zeros(3), variance)
    plain = NormalizerSurrogate.uncorrected(model, quadratic)
    scaled = replace(plain, scale=jnp.asarray(0.2))
    theta_1 = jnp.array([0.3, -0.1, 0.6])
    mean = theta_1 + variance * scaled.score(model, theta_1)
    expected = mean if stage.is_gaussian else plain.centre(model, theta_1)
    assert np.allclose(scaled.centre(model, theta_1), expected)


def test_a_fixed_coordinate_does_not_spoil_what_is_learned(wells):
    problem, pairs = wells
    model = problem.model
    held = model.replace(
        theta_0=jnp.full(4, 0.3), first_stage=GaussianStage(jnp.array([1.0, 1.0, 1.0, 0.0]))
    )
    fixed = Pairs(pairs.theta_1.at[:, 3].set(0.3), pairs.scores.at[:, :, 3].set(0.0))
    quadratic = jax.tree.map(lambda x: x[0], flat_quadratic(model))
    learned, _ = learn(jax.random.key(2), held, quadratic, fixed)
    assert np.abs(learned.correction.rows).max() < 100


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["intended-fixed", "split"])
def test_chains_move_where_the_quadratic_says_nothing_of_log_z(setting):
    """Of four chains that followed the quadratic one or two stayed where warm-up had left them."""
    model = problems.get("jevons", setting=setting, first_scale=2.0).model
    sampler = HMC(negative="persistent", num_draws=200, max_doublings=0, num_fresh=0)
    draws = sampler.draw(model, jax.random.key(0))
    assert draws.tuning["num_bridges"] == NUM_BRIDGES
    assert draws.values["acceptance_rate"].mean(axis=1).min() > 0.2


def test_from_pairs_that_do_not_belong_together_nothing_is_learned(wells):
    problem, pairs = wells
    quadratic = jax.tree.map(lambda x: x[0], flat_quadratic(problem.model))
    shuffled = Pairs(pairs.theta_1, jnp.roll(pairs.scores, 7, axis=1))
    _, explained = learn(jax.random.key(2), problem.model, quadratic, shuffled)
    assert float(explained) < 0.2
    useless = shuffled._replace(scores=shuffled.scores.at[:, 3].set(jnp.nan))
    learned, again = learn(jax.random.key(2), problem.model, quadratic, useless)
    assert np.isfinite(again)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learned))


def flux(move, seed):
    """z of E[g(x) h(y) - h(x) g(y)] over starts x from q and moves y: 0 if reversible."""
    model = problems.get("tilted_wells", d=1).model.replace(agreement_strength=3.0)
    point, number = jnp.full(1, 0.3), 200_000
    key_start, key_move = jax.random.split(jax.random.key(seed))
    conditioned = AgreementConditioned(model.second_stage.around(point), model.agreement)
    x = conditioned.sample_with_tries(key_start, (number,))[0]
    y = jax.jit(jax.vmap(lambda k, w: move(k, model, point, w)))(
        jax.random.split(key_move, number), x
    )
    found = np.asarray((x > 0.5) * y**3 - (y > 0.5) * x**3)[:, 0]
    return found.mean() / (found.std() / np.sqrt(number))


def moved(key, model, point, w):
    metric, one = flat(model), jnp.asarray(1)
    return PersistentNegative()(key, model, point, w, metric, jnp.asarray(1.2), one)[0]


def moved_in_one_order(key, model, point, w):
    """An independence step and a trajectory: the law is kept, and time has a direction."""
    keys = jax.random.split(key)

    def log_weight(theta):
        return -model.agreement.strength * model.agreement.disagreement(theta)

    w = independence_step(keys[0], model, point, w, log_weight)
    log_density = Partial(log_agreeing, model, point)
    reference = flat(model)
    return reference_hmc(
        keys[1], w, log_density, reference, reference.mean(point), jnp.asarray(1.2), 32
    )[0]


def test_moves_between_bridges_are_reversible(seed):
    assert abs(flux(moved, seed)) < z_limit()


def test_independence_step_then_trajectory_is_not(seed):
    assert abs(flux(moved_in_one_order, seed)) > z_limit()


def excess_variance(problem, draws):
    """Relative error of the variance of theta_1, mean over its whitened coordinates, and error."""
    root = np.linalg.inv(np.linalg.cholesky(problem.truth.cov_1))
    by_chain = (((draws - problem.truth.mean_1) @ root.T) ** 2).mean(axis=(1, 2)) - 1
    return by_chain.mean(), by_chain.std(ddof=1) / np.sqrt(len(by_chain))


@pytest.mark.slow
@pytest.mark.parametrize("d", [10, 20])
def test_negative_samples_leave_no_lag_in_the_variance(seed, d):
    problem = problems.get("rotated_wells", d=d)
    backend = HMC(num_chains=16, max_doublings=0, num_fresh=0)
    draws = backend.draw(problem.model, jax.random.key(seed)).values["theta_1"]
    found, error = excess_variance(problem, draws)
    assert error < 0.01
    assert abs(found) < z_limit() * error


@pytest.mark.slow
def test_one_move_without_bridges_leaves_a_lag(seed):
    problem = problems.get("rotated_wells", d=10)
    chains = {"num_chains": 16, "chain_method": "vectorized", "progress_bar": False}
    kernel = TransportedExchange(problem.model, num_moves=1)
    mcmc = MCMC(kernel, num_warmup=800, num_samples=1000, **chains)
    mcmc.run(jax.random.key(seed))
    found, error = excess_variance(problem, mcmc.get_samples(group_by_chain=True)["theta_1"])
    assert found > z_limit() * error


@pytest.mark.slow
@pytest.mark.parametrize("seed_offset", [0, 1])
def test_twenty_rotated_wells_converge_by_default(seed, seed_offset):
    problem = problems.get("rotated_wells", d=20)
    backend = HMC(evidence_particles=0)
    run = infer(problem.model, backend, seed=seed + seed_offset, progress=False)
    assert run.result is Result.converged, [c.message for c in run.checks if not c.passed]
    posterior = run.tree["posterior"]
    for name in ("1", "2"):
        truth = (getattr(problem.truth, f"{what}_{name}") for what in ("mean", "cov"))
        scores = moments_z(posterior[f"theta_{name}"].values, *truth)
        assert np.abs(scores).max() < z_limit(80)
    assert f"'num_bridges': {NUM_BRIDGES}" in str(run.tree.attrs["configuration"]).replace('"', "'")


def shares_of_the_shift(problem, width, seed):
    """Choose a shift for draws of q at draws of p1, given a correction that is not 0."""
    model = problem.model
    theta_1 = first_draws(jax.random.key(seed), model, 1024)
    negative = jnp.asarray(annealed_draws(jax.random.key(seed + 1), model, theta_1, 16, 4))
    transport = fit(jax.random.key(seed + 2), model, agreement_potential(model), negative[:64], 16)
    surrogate = NormalizerSurrogate(transport, jnp.ones(()), wrong_correction(width), jnp.ones(2))
    return surrogate.followed(model, theta_1, negative, 32).follows


def test_samples_follow_the_mean_of_one_basin_and_not_of_two(seed):
    smooth = problems.get("linear_gaussian", d=2, m=1, closed_form=False)
    assert shares_of_the_shift(smooth, 2, seed)[0] == 1
    assert shares_of_the_shift(problems.get("tilted_wells", d=1), 1, seed)[1] == 0


def test_progress_needs_long_trajectories_and_acceptance():
    model = problems.get("double_well").model
    kernel = ExchangeHMC(model, PersistentNegative())
    state = start(kernel, jax.random.split(jax.random.key(0), 2), 0)

    def made(angle, rate, step=0.3):
        steps = {"step_1": angle, "step_joint": step}
        steps = {
            n: getattr(state.tuning, n)._replace(value=jnp.full(2, x)) for n, x in steps.items()
        }
        tuning = state.tuning._replace(**steps)
        return progress(kernel, state._replace(tuning=tuning), np.full((2, 5), rate))

    assert made(jnp.pi / 2, 1.0) == pytest.approx(1.0)
    assert made(jnp.pi / 2, 0.25) == pytest.approx(0.25)
    assert made(jnp.pi / 6, 1.0) == pytest.approx(1 - 3**0.5 / 2)
    step = jnp.pi / 6 / kernel.max_num_steps
    assert made(jnp.pi / 2, 1.0, step) == pytest.approx(1 - 3**0.5 / 2)


@pytest.mark.parametrize("factor", [0.3, 1.0])
@pytest.mark.parametrize("second_scale", [0.3, 1.0])
def test_references_are_made_as_wide_as_theta_1(seed, factor, second_scale):
    """Data hold theta_1 where second_scale is small: a factor of the draws is none of p1 then."""
    problem = problems.get("linear_gaussian", d=6, m=3, second_scale=second_scale)
    model = problem.model
    key = jax.random.key(seed)
    stand_in = model.agreement.closed_form
    likelihood = fit(key, model, likelihood_potential(model), jnp.zeros((2, 6)), 2)
    truth = problem.truth
    rng = np.random.default_rng(seed)
    theta_1 = jnp.asarray(rng.multivariate_normal(truth.mean_1, factor * truth.cov_1, 20_000))
    made = matched_variance(model, stand_in, likelihood, theta_1)
    width = posterior_reference(made, stand_in, likelihood).variance_of_first.sum()
    assert np.allclose(width, factor * np.trace(truth.cov_1), rtol=0.05)
    if factor == 1:
        assert np.allclose(made, first_variance(model), rtol=0.1)
    reference = posterior_reference(first_variance(model), stand_in, likelihood)
    assert np.allclose(reference.variance_of_first, np.diag(truth.cov_1))
    unit = jnp.eye(12)
    assert np.allclose(
        reference.variance_of_first, np.diag(jax.vmap(reference.covariance)(unit))[:6]
    )
