"""The directions in parameter space along which C changes: where Z(theta_1) acts.

In d dimensions an unknown Z moves theta_1 in the row space of the agreement's Jacobian alone, and
total distances have no power to see it. Gradients of C span that space whether or not there are
residuals, and where second derivatives vanish (kinks) too; their leading singular vectors are the
active subspace of C (P. G. Constantine, E. Dow and Q. Wang, SIAM J. Sci. Comput. 36 (2014),
doi:10.1137/130916138).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from generative import TwoStageModel
from inference.reflections import turned_together

_NUM_GRADIENTS, _BATCH = 64, 16
_SMALLEST_RELATIVE = 1e-6


class Directions(NamedTuple):
    """Orthonormal directions of (theta_1 - theta_0) / s1, the leading ones first.

    Attributes
    ----------
    rows : array, shape (k, d)
        Of k <= 64 directions; none where C has no gradient or theta_1 is constant.
    group : int array, shape (k,)
        Directions of one group are turned by the same reflections of the model.
    is_turned : bool array, shape (k,)
        Whether any reflection turns the direction.
    """

    rows: Float[np.ndarray, "k d"]
    group: Int[np.ndarray, " k"]
    is_turned: Bool[np.ndarray, " k"]


def agreement_directions(model: TwoStageModel) -> Directions:
    """Return the directions along which C changes.

    They come from gradients at draws from both stages without agreement, which no data and no chain
    can move: two runs of one model are judged along the same directions. A reflection of the model
    turns each of them as a whole, or leaves it alone.

    Parameters
    ----------
    model : TwoStageModel
    """
    gradients = np.asarray(_whitened_gradients(model), float)
    gradients = gradients[np.isfinite(gradients).all(axis=1)]
    groups = turned_together(model)
    if not gradients.any():
        return Directions(np.zeros((0, model.dimension)), np.zeros(0, int), np.zeros(0, bool))
    parts = [np.linalg.svd(gradients[:, mask], full_matrices=False)[1:] for mask, _ in groups]
    weights = np.concatenate([weight for weight, _ in parts])
    group = np.repeat(np.arange(len(parts)), [len(weight) for weight, _ in parts])
    within = np.concatenate([np.arange(len(weight)) for weight, _ in parts])
    order = np.argsort(-weights, kind="stable")[:_NUM_GRADIENTS]
    order = order[weights[order] > _SMALLEST_RELATIVE * weights.max()]
    rows = np.zeros((len(order), model.dimension))
    for row, index in zip(rows, order, strict=True):
        row[groups[group[index]][0]] = parts[group[index]][1][within[index]]
    turned = np.array([is_turned for _, is_turned in groups])
    return Directions(rows, group[order], turned[group[order]])


def whitened_shift(
    model: TwoStageModel, theta_1: Float[np.ndarray, "*batch d"]
) -> Float[np.ndarray, "*batch d"]:
    """Return (theta_1 - theta_0) / s1, and 0 where theta_1 is constant."""
    spread = np.sqrt(np.asarray(model.first_stage.reference_variance))
    inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    return (theta_1 - np.asarray(model.space.origin)) * inverse


@jax.jit
def _whitened_gradients(model: TwoStageModel) -> Float[Array, "n d"]:
    key_1, key_2 = jax.random.split(jax.random.key(0))
    theta_1 = model.first_stage.around(model.space.origin).sample(key_1, (_NUM_GRADIENTS,))
    points = model.second_stage.around(theta_1).sample(key_2)
    gradients = jax.lax.map(jax.grad(model.agreement.disagreement), points, batch_size=_BATCH)
    return gradients * jnp.sqrt(jnp.asarray(model.first_stage.reference_variance, gradients.dtype))
