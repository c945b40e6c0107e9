"""log Z(theta_1) by thermodynamic integration, with the bracket that it has for free.

d log Z / d t = -E_t[lambda C] along the temperature t, and E_t[lambda C] decreases in t. So the
left and right sums over any ladder of temperatures bracket log Z. The variances at the rungs, which
are the slopes of that mean, make the quadrature that of Hermite's cubic (N. Friel, M. Hurn and
J. Wyse, Stat. Comput. 24 (2014), doi:10.1007/s11222-013-9397-1).
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import InvalidInput, TwoStageModel
from inference.annealing.repeated import Runs, Summary, repeat
from inference.averages import (
    LARGEST_SPREAD,
    lower_bracket,
    mean_of_runs,
    upper_bracket,
)
from inference.estimate import Estimate
from inference.quadrature import hermite

# The ladder serves a quadrature: finer than the weights of tempered SMC would need.
_ESS_FRACTION, _MAX_INCREMENT = 0.98, 1 / 16
_PARTICLES_PER_TEMPERATURE = 0.75
# Populations that shrink to few ancestors bias the means, by the order of temperatures over
# particles; this multiple of it, in nats, covers the largest bias seen.
_DRIFT = 0.05


def thermodynamic(
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "batch d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    """Integrate the mean of lambda C over temperature.

    The standard error joins the spread over runs with the quadrature's own error, estimated from
    every second temperature. `lower` and `upper` are the left and right sums, widened by four of
    their standard errors.

    Raises
    ------
    InvalidInput
        If C is infinite somewhere: its mean has no meaning then.
    """
    runs, (value, error) = repeat(
        model,
        jnp.asarray(theta_1),
        key,
        _summarize,
        target_standard_error,
        max_evaluations,
        _ESS_FRACTION,
        _MAX_INCREMENT,
        _PARTICLES_PER_TEMPERATURE,
    )
    if not np.all(np.isfinite(runs.means)):
        raise InvalidInput("method", "thermodynamic for an infinite C", "tempered_smc or nested")
    steps = np.diff(runs.temperatures, axis=1)[:, None, :]
    lower = lower_bracket(-np.sum(steps * runs.means[..., :-1], axis=-1))
    upper = upper_bracket(-np.sum(steps * runs.means[..., 1:], axis=-1))
    # Particles that lag behind the temperature make the means too large, by no more than half the
    # variance of log Z-hat in the integral: a sound lower bound, but not an upper one.
    upper = np.minimum(upper + 0.5 * runs.spread**2, 0.0)
    return Estimate(
        value,
        error,
        np.where(runs.reached, lower, -np.inf),
        np.where(np.isfinite(error), upper, 0.0),
        "thermodynamic",
        runs.num_evaluations,
    )


def _summarize(runs: Runs) -> Summary:
    temperatures = runs.temperatures[:, None, :]
    value, error = mean_of_runs(hermite(temperatures, -runs.means, runs.variances))
    mean, variance = (x.mean(axis=1, keepdims=True) for x in (runs.means, runs.variances))
    fine = hermite(temperatures, -mean, variance)[:, 0]
    coarse = np.array([_of_every_second(*x) for x in _used(runs, mean, variance)])
    # Hermite's rule is of fourth order: halving the steps divides its error by 16.
    error = np.hypot(error, (coarse - fine) / 15)
    error = np.hypot(error, _DRIFT * _steps_that_matter(runs) / runs.num_particles)
    usable = runs.reached & np.isfinite(error) & (runs.spread <= LARGEST_SPREAD)
    return value, np.where(usable, error, np.inf)


def _steps_that_matter(runs: Runs) -> np.ndarray:
    """Rungs beyond those that the largest increment alone would make."""
    return np.maximum(runs.lengths - 1 / _MAX_INCREMENT, 0)


def _used(
    runs: Runs, mean: np.ndarray, variance: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each point's rungs, with those beyond the schedule's end cut off."""
    for i, length in enumerate(runs.lengths):
        rungs = slice(0, int(length) + 1)
        yield runs.temperatures[i, rungs], mean[i, 0, rungs], variance[i, 0, rungs]


def _of_every_second(t: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
    chosen = np.unique(np.append(np.arange(0, len(t), 2), len(t) - 1))
    return float(hermite(t[chosen], -mean[chosen], variance[chosen]))
