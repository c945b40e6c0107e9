"""Nested samplers by others, out of the box and timed after compilation, on any prior."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import blackjax
import jax
import numpy as np
from blackjax.ns.utils import finalise, log_weights
from jax.scipy.special import logsumexp

from generative import InvalidInput

try:
    import dynesty
except ModuleNotFoundError:
    raise InvalidInput("benchmark", "dynesty is not installed", "concord[test]") from None

_NUM_LIVE, _NUM_DELETE = 1000, 100
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


def run_nss(
    log_prior: Callable[[jax.Array], jax.Array],
    log_likelihood: Callable[[jax.Array], jax.Array],
    draws: Callable[[jax.Array, int], jax.Array],
    truth: float,
    limit: float,
) -> Peer:
    """Run BlackJAX's nested slice sampling, with two slices per dimension and new point.

    Parameters
    ----------
    log_prior, log_likelihood : callable
        Of one vector.
    draws : callable
        (key, number) -> draws of the prior.
    truth : float
        Log evidence, nats.
    limit : float
        Seconds.
    """
    key, key_start = jax.random.split(jax.random.key(0))
    start = draws(key_start, _NUM_LIVE)
    algorithm = blackjax.nss(
        logprior_fn=log_prior,
        loglikelihood_fn=log_likelihood,
        num_delete=_NUM_DELETE,
        num_inner_steps=2 * start.shape[1],
    )
    state = algorithm.init(start)
    step = jax.jit(algorithm.step)
    jax.block_until_ready(step(key, state))
    dead, began = [], time.perf_counter()
    for _ in range(_MAX_STEPS):
        key, key_step = jax.random.split(key)
        state, info = step(key_step, state)
        dead.append(info)
        if float(state.integrator.logZ_live - state.integrator.logZ) < -3:
            break
        if time.perf_counter() - began > limit:
            return Peer(np.nan, np.nan, time.perf_counter() - began, False)
    seconds = time.perf_counter() - began
    weights = log_weights(key, finalise(state, dead, update_info=False))
    values = np.asarray(logsumexp(weights, axis=0))
    return Peer(abs(values.mean() - truth), float(values.std()), seconds, True)


def run_dynesty(
    transform: Callable[[np.ndarray], np.ndarray],
    log_likelihood: Callable[[np.ndarray], float],
    dimension: int,
    truth: float,
    limit: float,
) -> Peer:
    """Run dynesty's static nested sampler, with random slices; see :func:`run_nss`.

    Parameters
    ----------
    transform : callable
        From the unit cube to the prior.
    log_likelihood : callable
    dimension : int
    truth : float
    limit : float
    """
    log_likelihood(transform(np.full(dimension, 0.5)))  # compiles
    sampler = dynesty.NestedSampler(
        log_likelihood,
        transform,
        dimension,
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
