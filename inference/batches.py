"""Functions of many points, and how many of these are in flight at a time."""

from functools import partial

import jax
from jax.tree_util import Partial
from jaxtyping import PyTree

# Numbers held by the particles in flight, at most.
MAX_NUMBERS = 4_000_000


def in_flight(number: int, numbers_each: int) -> int:
    """Largest divisor of `number` that memory allows: no batch is left over to be compiled apart.

    Parameters
    ----------
    number : int
        Of points.
    numbers_each : int
        Numbers that each of them holds.
    """
    limit = max(MAX_NUMBERS // numbers_each, 1)
    return max(i for i in range(1, number + 1) if number % i == 0 and i <= limit)


@partial(jax.jit, static_argnums=2)
def over_points(function: Partial, points: PyTree, batch_size: int | None = None) -> PyTree:
    """Evaluate a function at every point, by a program that other data of equal shape share.

    Parameters
    ----------
    function : Partial
        Of a function at the top level of a module, and of the model or whatever else it needs.
    points : pytree
        Leading axis: points.
    batch_size : int, optional
        Points in flight at a time; one by default.
    """
    return jax.lax.map(function, points, batch_size=batch_size)
