"""Checks of plain values: numbers that are numbers, integers that are no booleans, keys."""

import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np

from generative.errors import InvalidInput


def is_integer(value: Any) -> bool:
    """Whether a value is an integer and no boolean."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is one real number and no boolean, as a Python number or an array."""
    if isinstance(value, jax.Array | np.ndarray):
        real = np.issubdtype(value.dtype, np.integer) or jnp.issubdtype(value.dtype, jnp.floating)
        return value.ndim == 0 and bool(real)
    return is_integer(value) or isinstance(value, float | np.floating)


def require_integer(name: str, value: Any, least: int = 0) -> None:
    """Refuse what is no integer from `least` on.

    Raises
    ------
    InvalidInput
    """
    if not is_integer(value) or value < least:
        raise InvalidInput(name, repr(value), f"an integer >= {least}")


def require_finite(name: str, value: Any, allowed: str = "a finite number") -> None:
    """Refuse what is no finite real number.

    Raises
    ------
    InvalidInput
    """
    try:
        finite = is_number(value) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        finite = False
    if not finite:
        raise InvalidInput(name, repr(value)[:80], allowed)


def as_jax(value: Any, dtype: Any = None) -> jax.Array:
    """Return a JAX array, from NumPy's without the program per shape that `jnp.asarray` compiles.

    Raises
    ------
    TypeError, ValueError
        If it holds anything but numbers.
    """
    if isinstance(value, jax.Array):
        return jnp.asarray(value, dtype)
    array = np.array(value, dtype)  # a copy: the caller may go on to write into its own
    if array.dtype != bool and not jnp.issubdtype(array.dtype, jnp.number):
        raise TypeError(f"{array.dtype} is no dtype of numbers")
    return jax.device_put(array)


def as_array(name: str, value: Any) -> jax.Array:
    """Return a value as a JAX array.

    Raises
    ------
    InvalidInput
        If it holds anything but numbers.
    """
    try:
        return as_jax(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(name, str(error).split("\n")[0], "an array of numbers") from None


def rounding(dtype: Any) -> float:
    """Return what two computations of one number may differ by, relative to it."""
    return max(1e-9, 100 * float(jnp.finfo(dtype).eps))


def require_key(value: Any) -> None:
    """Refuse what is no single PRNG key, of the new or the old kind.

    Raises
    ------
    InvalidInput
    """
    array = isinstance(value, jax.Array | np.ndarray)
    new = array and jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.ndim == 0
    old = array and value.dtype == np.uint32 and value.shape in ((2,), (4,))
    if not (new or old):
        raise InvalidInput("key", repr(value)[:80], "a PRNG key, such as jax.random.key(0)")


def require_mapping(name: str, value: Any) -> None:
    """Refuse what maps no names to values.

    Raises
    ------
    InvalidInput
    """
    if not isinstance(value, Mapping):
        raise InvalidInput(name, repr(value)[:80], "a mapping from name to values")
    for key in value:
        if not isinstance(key, str):
            raise InvalidInput(name, f"{key!r}, which is no string", "a mapping from name")


def require_kind(name: str, value: Any, kind: Any) -> None:
    """Refuse an option of another type than its annotation says, or a number that is not finite.

    Parameters
    ----------
    name : str
    value : Any
    kind : annotation
        int (from 0 on), float, bool, str, a Literal, or a union of those and None; others pass.

    Raises
    ------
    InvalidInput
    """
    if get_origin(kind) is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in get_args(kind)):
            raise InvalidInput(name, repr(value)[:80], " or ".join(map(str, get_args(kind))))
    elif get_origin(kind) in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return
        kinds = [k for k in get_args(kind) if k is not type(None)]
        if len(kinds) == 1:
            require_kind(name, value, kinds[0])
    elif kind is float:
        require_finite(name, value)
    elif kind is bool and not isinstance(value, bool):
        raise InvalidInput(name, repr(value)[:80], "True or False")
    elif kind is int:
        require_integer(name, value)
    elif kind is str and not isinstance(value, str):
        raise InvalidInput(name, repr(value)[:80], "a string")
