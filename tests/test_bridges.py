"""The bridged exchange ratio is exact whatever was learned, and what is learned is the score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from generative import problems
from inference import HMC, Result, infer
from inference.annealing.conditional_smc import annealed_draws
from inference.backends.hmc import collect_exchange
from inference.kernels.exchange.bridges import NUM_BRIDGES
from inference.kernels.exchange.hmc import ExchangeHMC
from inference.kernels.exchange.learned import NormalizerSurrogate, Pairs, learn
from inference.kernels.negative import PersistentNegative, RejectionNegative
from inference.moves.chain_kernel import start, sweeps
from inference.running.loop import Loop
from tests.statistical import moments_z, z_limit


class Stretched(ExchangeHMC):
    """Carries negative samples by maps that do not keep volumes: wrong by their Jacobians."""

    def _carry(self, tuning, w, source, target):
        return target + (w - source) * jnp.exp(0.3 * (target - source))


def bridged_draws(kernel, seed, bend):
    """Draws of chains with six bridges, and an arbitrary correction of size `bend`."""
    state = start(kernel, jax.random.split(jax.random.key(seed), 16), 300)
    surrogate = state.tuning.normalizer
    rng = np.random.default_rng(seed)
    wrong = jax.tree.map(lambda x: bend * rng.normal(size=x.shape[1:]), surrogate.correction)
    wrong = jax.tree.map(lambda x: jnp.broadcast_to(x, (16, *x.shape)), wrong)
    normalizer = NormalizerSurrogate(surrogate.quadratic, wrong)
    state = state._replace(
        num_bridges=jnp.full_like(state.num_bridges, 6),
        tuning=state.tuning._replace(normalizer=normalizer),
    )
    loop = Loop(sweeps(kernel), Partial(collect_exchange, kernel.model))
    state, _ = loop.run(state, 300, "warm-up")
    return loop.run(state, 1500, "draws")[1]


@pytest.mark.parametrize(
    ("kernel", "negative", "is_right"),
    [
        (ExchangeHMC, RejectionNegative(), True),
        (ExchangeHMC, PersistentNegative(), True),
        (Stretched, RejectionNegative(), False),
    ],
    ids=["rejection", "persistent", "control"],
)
def test_six_bridges_and_any_correction_keep_the_posterior(seed, kernel, negative, is_right):
    problem = problems.get("double_well")
    draws = bridged_draws(kernel(problem.model, negative, num_moves=16), seed, 0.3)
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
    at = np.asarray(pairs.theta_1)
    truth = gradient(problem.truth, at)

    def error(surrogate):
        found = jax.vmap(lambda x: surrogate.score(problem.model, x))(at)
        return float(((found - truth) ** 2).sum() / ((truth - truth.mean(axis=0)) ** 2).sum())

    plain = NormalizerSurrogate.uncorrected(problem.model, quadratic)
    assert error(learned) < 0.1 < error(plain)
    assert abs(1 - error(learned) - float(explained)) < 0.1


def test_from_pairs_that_do_not_belong_together_nothing_is_learned(wells):
    problem, pairs = wells
    quadratic = jax.tree.map(lambda x: x[0], flat_quadratic(problem.model))
    shuffled = Pairs(pairs.theta_1, jnp.roll(pairs.scores, 7, axis=1))
    _, explained = learn(jax.random.key(2), problem.model, quadratic, shuffled)
    assert float(explained) < 0.2


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
