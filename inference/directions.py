"""The directions in parameter space along which C changes: where Z(theta_1) acts.

In d dimensions an unknown Z moves theta_1 in the row space of the agreement's Jacobian alone, and
total distances have no power to see it. Gradients of C span that space whether or not there are
residuals, and where second derivatives vanish (kinks) too; their leading singular vectors are the
active subspace of C (P. G. Constantine, E. Dow and Q. Wang, SIAM J. Sci. Comput. 36 (2014),
doi:10.1137/130916138).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import TwoStageModel

_NUM_GRADIENTS, _BATCH = 64, 16
_SMALLEST_RELATIVE = 1e-6


def agreement_directions(model: TwoStageModel) -> Float[np.ndarray, "k d"]:
    """Return orthonormal directions of (theta_1 - theta_0) / s1, the leading ones first.

    Each of them is turned by a reflection of the model, or left alone. They come from gradients at
    draws from both stages without agreement, which no data and no chain can move: two runs of one
    model are judged along the same directions.

    Parameters
    ----------
    model : TwoStageModel

    Returns
    -------
    array, shape (k, d)
        Of k <= 64 directions; none where C has no gradient or theta_1 is constant.
    """
    gradients = np.asarray(_whitened_gradients(model), float)
    gradients = gradients[np.isfinite(gradients).all(axis=1)]
    if not gradients.any():
        return np.zeros((0, model.dimension))
    found, values = [], []
    # Apart for coordinates whose signs do not change together: a reflection then turns a direction
    # as a whole, or leaves it alone.
    for mask in _together(model):
        _, weights, rows = np.linalg.svd(gradients[:, mask], full_matrices=False)
        whole = np.zeros((len(rows), model.dimension))
        whole[:, mask] = rows
        found.append(whole)
        values.append(weights)
    weights = np.concatenate(values)
    order = np.argsort(-weights, kind="stable")[:_NUM_GRADIENTS]
    chosen = order[weights[order] > _SMALLEST_RELATIVE * weights.max()]
    return np.concatenate(found)[chosen]


def _together(model: TwoStageModel) -> list[np.ndarray]:
    """Masks of the coordinates that the same reflections turn."""
    if not len(model.reflections):
        return [np.ones(model.dimension, bool)]
    _, group = np.unique(model.reflections, axis=1, return_inverse=True)
    return [group == index for index in range(group.max() + 1)]


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
