"""Nested sampling and tempered SMC by others, out of the box, on log Z(theta_1)."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.ns.utils import finalise, log_weights
from blackjax.smc.resampling import systematic
from jax.scipy.special import logsumexp
from scipy.stats import norm

from generative import InvalidInput, TwoStageModel

try:
    import dynesty
except ModuleNotFoundError:
    raise InvalidInput("benchmark", "dynesty is not installed", "concord[test]") from None

_NUM_LIVE, _NUM_DELETE = 1000, 100
_NUM_PARTICLES = 1000
_MAX_STEPS = 100_000
# A run that is better than asked for could have been shorter, but not for nothing.
_SMALLEST_PART = 0.1


@dataclass(frozen=True)
class Peer:
    """What one run gave: nats and seconds after compilation."""

    error: float
    standard_error: float
    seconds: float
    finished: bool

    def seconds_for(self, error: float) -> float:
        """Seconds to an error, as its inverse square; at least a tenth of the run."""
        worst = max(self.error, self.standard_error)
        return self.seconds * max((worst / error) ** 2, _SMALLEST_PART)

    def cells(self, base_seconds: float) -> list[str]:
        """Cells of a table; the last is the ratio to `base_seconds`, for 0.1 nat."""
        if not self.finished:
            return ["-", "-", f"> {self.seconds:.0f}", "not finished", "-"]
        needed = self.seconds_for(0.1)
        numbers = [f"{x:.3g}" for x in (self.error, self.standard_error, self.seconds, needed)]
        return [*numbers, f"{needed / base_seconds:.3g}"]


def blackjax_nss(model: TwoStageModel, theta_1: np.ndarray, truth: float, limit: float) -> Peer:
    """BlackJAX nested slice sampling."""
    prior = model.second_stage.around(theta_1)
    algorithm = blackjax.nss(
        logprior_fn=prior.log_prob,
        loglikelihood_fn=lambda theta: (
            -model.agreement.strength * model.agreement.disagreement(theta)
        ),
        num_delete=_NUM_DELETE,
        num_inner_steps=2 * model.dimension,
    )
    key, key_start = jax.random.split(jax.random.key(0))
    state = algorithm.init(prior.sample(key_start, (_NUM_LIVE,)))
    step = jax.jit(algorithm.step)
    jax.block_until_ready(step(key, state))
    dead, start = [], time.perf_counter()
    for _ in range(_MAX_STEPS):
        key, key_step = jax.random.split(key)
        state, info = step(key_step, state)
        dead.append(info)
        if float(state.integrator.logZ_live - state.integrator.logZ) < -3:
            break
        if time.perf_counter() - start > limit:
            return Peer(np.nan, np.nan, time.perf_counter() - start, False)
    seconds = time.perf_counter() - start
    weights = log_weights(key, finalise(state, dead, update_info=False))
    values = np.asarray(logsumexp(weights, axis=0))
    return Peer(abs(values.mean() - truth), float(values.std()), seconds, True)


def blackjax_tempered_smc(
    model: TwoStageModel, theta_1: np.ndarray, truth: float, limit: float
) -> Peer:
    """BlackJAX adaptive tempered SMC with HMC; its error is the spread of four runs."""
    prior = model.second_stage.around(theta_1)
    algorithm = blackjax.adaptive_tempered_smc(
        prior.log_prob,
        lambda theta: -model.agreement.strength * model.agreement.disagreement(theta),
        blackjax.hmc.build_kernel(),
        blackjax.hmc.init,
        {
            "step_size": jnp.full(1, 0.1),
            "inverse_mass_matrix": jnp.asarray(model.second_stage.reference_variance)[None, :],
            "num_integration_steps": jnp.full(1, 10),
        },
        systematic,
        target_ess=0.5,
        num_mcmc_steps=2,
    )
    step = jax.jit(algorithm.step)
    values, start = [], time.perf_counter()
    for run in range(5):
        key, key_start = jax.random.split(jax.random.key(run))
        state = algorithm.init(prior.sample(key_start, (_NUM_PARTICLES,)))
        total = 0.0
        while float(state.tempering_param) < 1:
            key, key_step = jax.random.split(key)
            state, info = step(key_step, state)
            total += float(info.log_likelihood_increment)
            if time.perf_counter() - start > limit:
                return Peer(np.nan, np.nan, time.perf_counter() - start, False)
        if run == 0:  # compiles
            start = time.perf_counter()
            continue
        values.append(total)
    seconds = (time.perf_counter() - start) / len(values)
    errors = np.abs(np.array(values) - truth)
    return Peer(float(np.median(errors)), float(np.std(values, ddof=1)), seconds, True)


def dynesty_rslice(model: TwoStageModel, theta_1: np.ndarray, truth: float, limit: float) -> Peer:
    """Dynesty's static nested sampler, with random slices."""
    scale = np.asarray(model.second_stage.scale)
    penalty = jax.jit(model.agreement.disagreement)

    def transform(u: np.ndarray) -> np.ndarray:
        return theta_1 + scale * norm.ppf(u)

    def log_likelihood(theta: np.ndarray) -> float:
        return -float(model.agreement.strength) * float(penalty(theta))

    log_likelihood(theta_1)
    sampler = dynesty.NestedSampler(
        log_likelihood,
        transform,
        model.dimension,
        sample="rslice",
        nlive=500,
        rstate=np.random.default_rng(0),
    )
    start = time.perf_counter()
    for _ in sampler.sample(dlogz=0.5):
        if time.perf_counter() - start > limit:
            return Peer(np.nan, np.nan, time.perf_counter() - start, False)
    for _ in sampler.add_live_points():
        pass
    seconds = time.perf_counter() - start
    results = sampler.results
    return Peer(abs(results.logz[-1] - truth), float(results.logzerr[-1]), seconds, True)


PEERS: dict[str, Callable[[TwoStageModel, np.ndarray, float, float], Peer]] = {
    "BlackJAX nss": blackjax_nss,
    "BlackJAX tempered SMC": blackjax_tempered_smc,
    "dynesty rslice": dynesty_rslice,
}
