"""Functions of many points, and how many of these are in flight at a time."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree

# Numbers held by the particles in flight in one program, at most.
MAX_NUMBERS = 4_000_000
_MOST_PARTS = 4
# Each program in a thread holds as many.
_MOST_THREADS = 8


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


def over_points(function: Partial, points: PyTree, batch_size: int | None = None) -> PyTree:
    """Evaluate a function at every point, by a program that other data of equal shape share.

    Batches are filled up to a power of two, unless that would take much memory: a number that is
    found on the way shares the program of others near it, and no rest is compiled apart.

    Parameters
    ----------
    function : Partial
        Of a function at the top level of a module, and of the model or whatever else it needs.
    points : pytree
        Leading axis: points.
    batch_size : int, optional
        Points in flight at a time, a power of two; one by default.
    """
    if batch_size is None:
        return _over_points(function, points, None)
    leaves = jax.tree.leaves(points)
    number = len(leaves[0])
    filled = 1 << (number - 1).bit_length()
    if sum(x.size for x in leaves) > MAX_NUMBERS:
        filled = number
    whole = jax.tree.map(lambda x: _filled(x, filled), points)
    found = _over_points(function, whole, min(batch_size, filled))
    return jax.tree.map(lambda x: np.asarray(x)[:number], found)


def _filled(values: Any, number: int) -> Any:
    """Repeat the last of the values until there are so many."""
    index = np.minimum(np.arange(number), len(values) - 1)
    is_key = jnp.issubdtype(values.dtype, jax.dtypes.prng_key)  # of which NumPy holds none
    return values[index] if is_key else np.asarray(values)[index]


@partial(jax.jit, static_argnums=2)
def _over_points(function: Partial, points: PyTree, batch_size: int | None) -> PyTree:
    return jax.lax.map(function, points, batch_size=batch_size)


def in_threads(
    function: Callable[..., PyTree],
    batches: Sequence[tuple],
    keep: Callable[[Any], Any] = lambda x: x,
) -> list[PyTree]:
    """Call one compiled program for every batch, several at a time where there are cores for it.

    XLA runs a program of small operations on one core, and the programs that a thread starts one
    after another. What comes out does not depend on the number of threads. On a device that is no
    CPU, where programs fill the device, they are called in turn. Of JAX's context managers threads
    are told the precision; the others should be set for the whole process.

    Parameters
    ----------
    function : callable
        Returns arrays of JAX.
    batches : sequence of tuple
        Arguments, of equal shapes.
    keep : callable
        What is held of each result, whose arrays are then of NumPy.
    """

    def fetched(result: PyTree) -> PyTree:
        return keep(jax.tree.map(np.asarray, result))

    # It compiles here, once, and mostly comes back before it has run.
    first = function(*batches[0])
    num_threads = min(len(batches), _num_cores(), _MOST_THREADS)
    if num_threads == 1 or jax.default_backend() != "cpu":
        return [fetched(first), *(fetched(function(*batch)) for batch in batches[1:])]
    is_wide = bool(jax.config.jax_enable_x64)

    def call(batch: tuple) -> PyTree:
        with jax.enable_x64(is_wide):
            return fetched(function(*batch))

    with ThreadPoolExecutor(num_threads) as pool:
        waiting = pool.submit(fetched, first)  # holds a place for as long as the first runs
        rest = list(pool.map(call, batches[1:]))
    return [waiting.result(), *rest]


def num_parts(number: int) -> int:
    """Parts of equal size into which so many runs are divided for :func:`in_threads`.

    One where there are several devices, or one that many particles fill better than few.
    """
    is_one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    return math.gcd(number, _MOST_PARTS) if is_one_cpu else 1


def _num_cores() -> int:
    """Cores that this process may use."""
    is_told = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if is_told else os.cpu_count() or 1
