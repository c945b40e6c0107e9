"""log Z(theta_1) by averaging exp(-lambda C) over draws of p2(. | theta_1)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from generative import TwoStageModel
from inference.averages import SIGMAS_OF_A_BRACKET
from inference.estimate import Estimate

_BATCH = 4096
# Below this effective sample size the weights' own variance is not to be trusted either.
SMALLEST_ESS = 50.0
# Trust the average only while -log Z < log n - 4 (nats).
MARGIN = 4.0
# Numbers held by one batch of draws, at most.
_MAX_NUMBERS = 10_000_000


def importance(
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "batch d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    """Average exp(-lambda C) over draws of p2(. | theta_1).

    The standard error is infinite where fewer than 50 draws carry the average, or -log Z exceeds
    about the log of their number: the value is an underestimate then. `lower` is Jensen's bound,
    -lambda E[C] under p2, less four of its standard errors.
    """
    theta_1 = jnp.asarray(theta_1)
    num_points, dimension = theta_1.shape
    size = int(np.clip(_MAX_NUMBERS // dimension, 16, min(_BATCH, max_evaluations)))
    totals = np.full((2, num_points), -np.inf)
    moments = np.zeros((2, num_points))
    num_draws = 0
    for index in range(max(1, max_evaluations // (size * num_points))):
        keys = jax.random.split(jax.random.fold_in(key, index), num_points)
        sums, powers = (np.asarray(x, np.float64) for x in _sums(keys, model, theta_1, size))
        totals, moments = np.logaddexp(totals, sums.T), moments + powers.T
        num_draws += size
        value, error = totals[0] - np.log(num_draws), error_of_mean(totals, num_draws)
        # Draws that never met the region where C is small look equal, and would claim no error.
        error = np.where(value < MARGIN - np.log(num_draws), np.inf, error)
        max_draws = max_evaluations // num_points
        unreachable = value < MARGIN - np.log(max(max_draws, num_draws))
        hopeless = unreachable | is_hopeless(totals, num_draws, max_draws)
        if np.all((error <= target_standard_error) | hopeless):
            break
    mean = moments[0] / num_draws
    with np.errstate(invalid="ignore"):  # an infinite C has no variance
        spread = np.sqrt(np.maximum(moments[1] / num_draws - mean**2, 0) / num_draws)
    lower = np.nan_to_num(-mean - SIGMAS_OF_A_BRACKET * spread, nan=-np.inf)
    return Estimate(value, error, lower, np.zeros(num_points), "importance", num_draws * num_points)


@partial(jax.jit, static_argnums=3)
def _sums(
    keys: jax.Array, model: TwoStageModel, theta_1: Float[Array, "point d"], num_draws: int
) -> tuple[Float[Array, "point 2"], Float[Array, "point 2"]]:
    """Per point, logs of sums of weights and their squares; sums of lambda C and its square."""

    def one(x: tuple[jax.Array, Array]) -> tuple[Array, Array]:
        draws = model.second_stage.around(x[1]).sample(x[0], (num_draws,))
        penalties = -jax.vmap(model.agreement.log_factor)(draws)
        penalties = penalties.astype(jnp.result_type(float))
        logs = jnp.stack([logsumexp(-penalties), logsumexp(-2 * penalties)])
        return logs, jnp.stack([penalties.sum(), jnp.sum(penalties**2)])

    return jax.lax.map(one, (keys, theta_1))


def log_sums(log_weights: Float[np.ndarray, "point n"]) -> np.ndarray:
    """Logs of the sums of weights and of squared weights, shape (2, point)."""
    return np.stack([np.logaddexp.reduce(k * log_weights, axis=1) for k in (1, 2)])


def is_hopeless(sums: Float[np.ndarray, "two point"], num_draws: int, max_draws: int) -> np.ndarray:
    """Per point, whether all that the budget allows would leave too few to carry the mean."""
    return _ess(sums) * max_draws / num_draws < SMALLEST_ESS


def error_of_mean(
    sums: Float[np.ndarray, "two point"], num_draws: int
) -> Float[np.ndarray, " point"]:
    """Standard error of the log of a mean weight, nats; infinite where few draws carry it."""
    ess = _ess(sums)
    # Delta method: Var(log mean w) = (1 / ESS - 1 / n), the relative variance of the mean.
    error = np.sqrt(np.maximum(1 / np.maximum(ess, 1e-300) - 1 / num_draws, 0.0))
    return np.where((ess < SMALLEST_ESS) | ~np.isfinite(sums[0]), np.inf, error)


def _ess(sums: Float[np.ndarray, "two point"]) -> Float[np.ndarray, " point"]:
    with np.errstate(invalid="ignore"):  # no weight at all
        return np.nan_to_num(np.exp(2 * sums[0] - sums[1]))
