"""Changes of signs that leave a model as it is, such as those of a hidden unit of tanh.

A network whose hidden units are odd functions computes the same if all weights into a unit and out
of it change their signs, so that a posterior has two modes for every unit. They are one and the
same function: a sampler that knows this need not visit them all.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Int8

from generative.errors import InvalidInput
from generative.parameters import ParameterSpace
from generative.user_code import blame

_ALLOWED = "signs, each 1 or -1, like theta_0"


def signs_of(reflections: Iterable[Any], space: ParameterSpace) -> Int8[np.ndarray, "g d"]:
    """Return one row of signs per reflection.

    Parameters
    ----------
    reflections : iterable of pytrees like theta_0, or of arrays of shape (d,)
    space : ParameterSpace

    Raises
    ------
    InvalidInput
        If anything in them is neither 1 nor -1, or their shapes are not those of theta_0.
    """
    with blame("reflections", _ALLOWED):
        given = [np.asarray(space.vector(one, "reflections")) for one in reflections]
    rows = np.array(given).reshape(-1, space.dimension)
    if not (np.abs(rows) == 1).all():
        raise InvalidInput("reflections", rows[np.abs(rows) != 1][0], _ALLOWED)
    return rows.astype(np.int8)


def random_signs(
    reflections: Int8[np.ndarray, "g d"], rng: np.random.Generator, shape: tuple[int, ...]
) -> Int8[np.ndarray, "*shape d"]:
    """Draw products of reflections, each one a factor or not with probability 1/2.

    Parameters
    ----------
    reflections : array, shape (g, d)
    rng : Generator
    shape : tuple of int
        Of the batch.
    """
    is_factor = rng.integers(0, 2, (*shape, len(reflections)), dtype=np.int8)
    return product(reflections < 0, is_factor > 0)


def product(
    turned: Bool[np.ndarray, "g d"], is_factor: Bool[np.ndarray, "*shape g"]
) -> Int8[np.ndarray, "*shape d"]:
    """Return the signs of products of reflections.

    Parameters
    ----------
    turned : bool array, shape (g, d)
        The coordinates that each reflection turns.
    is_factor : bool array, shape (..., g)
    """
    # In floats, which hold such counts exactly: NumPy multiplies matrices of integers slowly.
    count = is_factor.astype(np.float32) @ turned.astype(np.float32)
    return (1 - 2 * (count % 2)).astype(np.int8)
