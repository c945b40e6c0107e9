"""The Metropolis test that all moves share."""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Bool, Float


def is_accepted(key: jax.Array, log_accept: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether to accept, with probability min(1, exp(log_accept)); never where that is NaN."""
    return -jax.random.exponential(key, (), log_accept.dtype) < log_accept


def is_accepted_by(normal: Float[Array, ""], log_accept: Float[Array, ""]) -> Bool[Array, ""]:
    """Do the same by a standard normal, whose distribution function is uniform."""
    return jnp.log(ndtr(normal)) < log_accept
