"""A Metropolis step that proposes theta_2 afresh from p2(. | theta_1).

Cheap, and a rescue: a chain caught where C is large, outside the region in which its leapfrog
steps are stable, or in a minor mode, leaves at once.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from generative import TwoStageModel
from inference.moves.accept import is_accepted


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
    return jnp.where(is_accepted(key_accept, log_accept), proposed, theta_2)


def offer(
    key: jax.Array,
    model: TwoStageModel,
    theta_2: Float[Array, " d"],
    drawn: Float[Array, " d"],
    found: Bool[Array, ""],
) -> Float[Array, " d"]:
    """Offer theta_2 an exact draw of q, independent of it: only L decides, in whatever mode it is.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    theta_2, drawn : arrays, shape (d,)
    found : bool array
        Whether the draw was found before its cap.
    """
    log_accept = model.log_likelihood(drawn) - model.log_likelihood(theta_2)
    return jnp.where(found & is_accepted(key, log_accept), drawn, theta_2)
