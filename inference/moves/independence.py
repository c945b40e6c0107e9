"""A Metropolis step that proposes theta_2 afresh from p2(. | theta_1).

Cheap, and a rescue: a chain caught where C is large, outside the region in which its leapfrog
steps are stable, or in a minor mode, leaves at once.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from generative import TwoStageModel


def independence_step(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array, " d"],
    theta_2: Float[Array, " d"],
    log_weight_fn: Callable[[Array], Array],
) -> Float[Array, " d"]:
    """Leave p2(. | theta_1) exp(log_weight_fn(.)) invariant.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    theta_1, theta_2 : arrays, shape (d,)
    log_weight_fn : callable
        Log of target over p2, nats, such as -lambda C + L.
    """
    key_propose, key_accept = jax.random.split(key)
    proposed = model.second_stage.around(theta_1).sample(key_propose)
    log_accept = log_weight_fn(proposed) - log_weight_fn(theta_2)
    accept = -jax.random.exponential(key_accept, (), theta_2.dtype) < log_accept
    return jnp.where(accept, proposed, theta_2)
