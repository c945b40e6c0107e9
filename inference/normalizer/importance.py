"""log Z(theta_1) by averaging exp(-lambda C) over draws of p2(. | theta_1)."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from generative import TwoStageModel
from inference.estimate import Estimate

_BATCH = 4096
# Below this effective sample size the weights' own variance is not to be trusted either.
_SMALLEST_ESS = 50.0
# Trust the average only while -log Z < log n - 4 (nats).
_MARGIN = 4.0
# Numbers held by one batch of draws, at most.
_MAX_NUMBERS = 10_000_000


def importance(
    model: TwoStageModel,
    theta_1: Float[Array, "batch d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    """Average exp(-lambda C) over draws of p2(. | theta_1).

    The standard error is infinite where fewer than 50 draws carry the average: then -log Z
    exceeds about the log of their number, and the value is an underestimate.
    """
    return weighted_average(
        partial(_log_weights, model),
        jnp.asarray(theta_1),
        key,
        target_standard_error,
        max_evaluations,
        "importance",
        margin=_MARGIN,
    )


def weighted_average(
    log_weights: Callable[[jax.Array, Array, int], Array],
    theta_1: Float[Array, "batch d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
    method: str,
    margin: float = -np.inf,
) -> Estimate:
    """Log of the mean weight, drawing batches until the error is small or the budget is spent.

    Parameters
    ----------
    log_weights : callable
        (key, theta_1 of shape (d,), n) -> log weights of n draws, nats.
    theta_1 : array, shape (batch, d)
    key : PRNG key
    target_standard_error : float
        Nats.
    max_evaluations : int
        Draws for all of the batch together.
    method : str
    margin : float
        The error is infinite unless -value < log n - margin, nats.
    """
    num_points = len(theta_1)
    size = int(np.clip(_MAX_NUMBERS // theta_1.shape[-1], 16, min(_BATCH, max_evaluations)))

    @jax.jit
    def one_batch(keys: jax.Array, theta_1: Array) -> tuple[Array, Array]:
        return jax.lax.map(lambda x: _sums(log_weights(x[0], x[1], size)), (keys, theta_1))

    log_sum = np.full(num_points, -np.inf)
    log_sum_squares = np.full(num_points, -np.inf)
    num_draws = 0
    for index in range(max(1, max_evaluations // (size * num_points))):
        keys = jax.random.split(jax.random.fold_in(key, index), num_points)
        first, second = (np.asarray(x, np.float64) for x in one_batch(keys, theta_1))
        log_sum = np.logaddexp(log_sum, first)
        log_sum_squares = np.logaddexp(log_sum_squares, second)
        num_draws += size
        value, error = _finish(log_sum, log_sum_squares, num_draws, margin)
        if np.all(error <= target_standard_error):
            break
    return Estimate(value, error, None, np.zeros(num_points), method, num_draws * num_points)


def _log_weights(model: TwoStageModel, key: jax.Array, theta_1: Array, num_draws: int) -> Array:
    draws = model.second_stage.around(theta_1).sample(key, (num_draws,))
    return -model.agreement.strength * jax.vmap(model.agreement.disagreement)(draws)


def _sums(log_weights: Array) -> tuple[Array, Array]:
    log_weights = log_weights.astype(jnp.result_type(float))
    return logsumexp(log_weights), logsumexp(2 * log_weights)


def _finish(
    log_sum: np.ndarray, log_sum_squares: np.ndarray, num_draws: int, margin: float
) -> tuple[np.ndarray, np.ndarray]:
    value = log_sum - np.log(num_draws)
    ess = np.exp(2 * log_sum - log_sum_squares)
    # Delta method: Var(log mean w) = (1 / ESS - 1 / n), the relative variance of the mean.
    error = np.sqrt(np.maximum(1 / np.maximum(ess, 1e-300) - 1 / num_draws, 0.0))
    # Draws that never met the region where C is small look equal, and would claim no error.
    too_few = (ess < _SMALLEST_ESS) | (value < margin - np.log(num_draws))
    return value, np.where(too_few | ~np.isfinite(value), np.inf, error)
