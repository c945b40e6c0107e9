"""Random keys outside of programs: divided by one small program per number of parts."""

from functools import partial

import jax
from jaxtyping import Array, Int


@partial(jax.jit, static_argnums=1)
def split(key: jax.Array, number: int = 2) -> tuple[jax.Array, ...]:
    """Divide a key into so many, as :func:`jax.random.split` does."""
    return tuple(jax.random.split(key, number))


@jax.jit
def fold_in(key: jax.Array, index: int | Int[Array, ""]) -> jax.Array:
    """Mix an integer into a key, as :func:`jax.random.fold_in` does."""
    return jax.random.fold_in(key, index)
