"""log Z(theta_1) by tempered sequential Monte Carlo.

An adaptive pilot per point chooses the temperatures; independent runs along its schedule are then
unbiased for Z, and their spread gives the error.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import TwoStageModel
from inference.annealing.repeated import Runs, Summary, repeat
from inference.averages import log_of_mean, lower_bracket
from inference.estimate import Estimate
from inference.normalizer.importance import MARGIN

# What the lognormal limit leaves out is of the order of temperatures over particles; this multiple
# of it, in nats, covers the largest bias seen (0.10 nats on separate modes at d = 50).
_SKEW = 0.1


def tempered_smc(
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "batch d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    """Anneal particles from p2 to q(. | theta_1), in independent runs until the error is met.

    `lower` is Jensen's bound, -lambda E[C] under p2, less four of its standard errors.
    """
    runs, (value, error) = repeat(
        model, jnp.asarray(theta_1), key, _summarize, target_standard_error, max_evaluations
    )
    return Estimate(
        value,
        error,
        lower_bracket(-runs.means[..., 0]),
        np.zeros_like(value),
        "tempered_smc",
        runs.num_evaluations,
    )


def _summarize(runs: Runs) -> Summary:
    value, error = log_of_mean(runs.log_normalizer)
    error = np.hypot(error, _SKEW * runs.lengths / runs.num_particles)
    # One step to temperature 1 is importance sampling, and equal weights may only mean that no
    # particle met the region where C is small.
    num_draws = runs.num_particles * runs.log_normalizer.shape[1]
    blind = (value < MARGIN - np.log(num_draws)) & (runs.lengths <= 1)
    return value, np.where(blind | ~runs.reached, np.inf, error)
