"""The copies that a model's own symmetries make of a mode: judged as one, and drawn from all.

Where a change of signs leaves the posterior as it is, the reflection of a draw is a draw, if what
decides to make it does not look at the draw. Convergence is judged by what is the same in all
copies; a chain that stays in one of them then gives draws from all.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from generative import TwoStageModel
from generative.reflections import product, random_signs

_REFLECTED = ("theta_1", "theta_2", "negative")


def reflected(model: TwoStageModel, key: jax.Array, values: dict[str, Any]) -> dict[str, Any]:
    """Reflect each draw at random: theta_1, theta_2 and the negative sample together.

    Parameters
    ----------
    model : TwoStageModel
        The values themselves are returned where it has no reflections.
    key : PRNG key
    values : dict
        As in :class:`~inference.results.draws.Draws`; all but the parameters stays as it is.
    """
    if not len(model.reflections):
        return values
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    signs = random_signs(model.reflections, rng, values["theta_1"].shape[:-1])
    turned = {n: values[n] * signs.astype(values[n].dtype) for n in _REFLECTED if n in values}
    return values | turned


def in_one_copy(
    model: TwoStageModel,
    theta_1: Float[np.ndarray, "*batch d"],
    theta_2: Float[np.ndarray, "*batch d"],
) -> tuple[Float[np.ndarray, "*batch d"], Float[np.ndarray, "*batch d"]]:
    """Reflect each pair into one copy of all: a function of the pair that reflections leave alone.

    By elimination each reflection but those that others make up gets a coordinate that it alone
    turns; the one reflection is made after which theta_2 is positive in all of these.

    Parameters
    ----------
    model : TwoStageModel
    theta_1, theta_2 : arrays, shape (..., d)
    """
    rows = (model.reflections < 0) & (model.moving_1 | model.moving_2)
    kept = []
    for index in range(len(rows)):
        if not rows[index].any():
            continue  # made up by others
        pivot = int(rows[index].argmax())
        others = rows[:, pivot].copy()
        others[index] = False
        rows[others] ^= rows[index]
        kept.append((index, pivot))
    if not kept:
        return theta_1, theta_2
    chosen, pivots = (list(x) for x in zip(*kept, strict=True))
    signs = product(rows[chosen], theta_2[..., pivots] < 0).astype(theta_1.dtype)
    return signs * theta_1, signs * theta_2


def turned_together(model: TwoStageModel) -> list[tuple[Bool[np.ndarray, " d"], bool]]:
    """Masks of the coordinates that the same reflections turn, and whether any turns them."""
    if not len(model.reflections):
        return [(np.ones(model.dimension, bool), False)]
    signs, group = np.unique(model.reflections, axis=1, return_inverse=True)
    return [(group == index, bool((signs[:, index] < 0).any())) for index in range(group.max() + 1)]
