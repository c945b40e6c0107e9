"""Draws spread over the copies that a model's own symmetries make of a mode.

Where a change of signs leaves the posterior as it is, the reflection of a draw is a draw, if what
decides to make it does not look at the draw. Convergence is judged by what is the same in all
copies; a chain that stays in one of them then gives draws from all.
"""

from typing import Any

import jax
import numpy as np

from generative import TwoStageModel
from generative.reflections import random_signs

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


def turns(model: TwoStageModel) -> np.ndarray:
    """Mask of the coordinates that change their sign in some reflection, shape (d,)."""
    return (model.reflections < 0).any(axis=0)
