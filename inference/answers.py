"""Answers of both heads, draw by draw."""

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from generative import TwoStageModel
from inference.batches import over_points

_MAX_DRAWS, _BATCH = 1000, 250


def answers(
    model: TwoStageModel, theta_2: np.ndarray, max_draws: int = _MAX_DRAWS
) -> dict[str, np.ndarray]:
    """Both heads' answers to every set of questions, at evenly thinned draws.

    Parameters
    ----------
    model : TwoStageModel
    theta_2 : array, shape (chain, draw, d)
    max_draws : int
        Per chain, about: fewer than twice as many are kept.

    Returns
    -------
    dict
        Set name to array of shape (chain, draw, head, question, ...); empty without heads.
    """
    if model.heads is None or not model.questions:
        return {}
    num_chains, num_draws, dimension = theta_2.shape
    kept = theta_2[:, :: max(1, num_draws // max_draws)]
    flat = kept.reshape(-1, dimension)
    both = over_points(Partial(_answers_at, model), flat, _BATCH)
    values = jax.tree.map(np.asarray, both)
    return {name: value.reshape(num_chains, -1, *value.shape[1:]) for name, value in values.items()}


def _answers_at(model: TwoStageModel, theta: Array) -> dict[str, Array]:
    return {name: model.answers(theta, inputs) for name, inputs in model.questions.items()}
