"""The Metropolis test that all moves share."""

import jax
from jaxtyping import Array, Bool, Float


def is_accepted(key: jax.Array, log_accept: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether to accept, with probability min(1, exp(log_accept)); never where that is NaN."""
    return -jax.random.exponential(key, (), log_accept.dtype) < log_accept
