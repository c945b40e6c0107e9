"""How many moves a negative sample needs to forget where it was.

After K moves under a new theta_1 the negative sample still remembers the old one; the variance of
theta_1 grows by about the correlation that is left. Variograms of w at fixed theta_1 measure it,

    V_k = E[(g(w_k) - g(w_0))^2] / 2 = Var(g | theta_1) (1 - rho_k),

with no need to know the mean of g given theta_1. A basin that w never leaves is not seen here: that
is what fresh draws are for (:mod:`inference.annealing.certificate`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from inference.kernels.exchange.kernel import ExchangeKernel
from inference.kernels.exchange.state import Tuning
from inference.moves.density import log_second

FEWEST, MOST = 4, 64
_NUM_MOVES, _PLATEAU = 48, 16
# Correlations below this are lost in the noise of a few hundred pairs; beyond it their decay is
# taken to go on as it began, down to what may be left.
_RESOLVED, _NOISE, _LEFT = 0.2, 0.1, 0.01
_NUM_DIRECTIONS = 8


def moves_needed(
    key: jax.Array,
    kernel: ExchangeKernel,
    tuning: Tuning,
    theta_1: Float[Array | np.ndarray, "chain n d"],
    negative: Float[Array | np.ndarray, "chain n d"],
) -> int:
    """Return the moves after which a negative sample keeps about a hundredth of its correlation.

    Parameters
    ----------
    key : PRNG key
    kernel : ExchangeKernel
    tuning : Tuning
        Leading axis: chains.
    theta_1, negative : arrays, shape (chain, n, d)
        Of the end of warm-up.
    """
    keys = jax.random.split(key, theta_1.shape[:2])
    variogram = np.asarray(_variogram(kernel, keys, tuning, theta_1, negative))
    plateau = variogram[-_PLATEAU:].mean(axis=0)
    varying = plateau > 0
    if not varying.any():
        return FEWEST
    left = 1 - variogram[:, varying] / plateau[varying]
    needed = [_extrapolated(correlation) for correlation in left.T]
    each = kernel.negative.moves_each
    return kernel.negative.whole(int(np.clip(each * max(needed), FEWEST, MOST)))


def _extrapolated(correlation: Float[np.ndarray, " k"]) -> int:
    below = np.flatnonzero(correlation < _RESOLVED)
    if not len(below):
        return MOST
    left = max(float(correlation[below[0]]), _NOISE)
    return int(np.ceil((below[0] + 1) * np.log(_LEFT) / np.log(left)))


@jax.jit
def _variogram(
    kernel: ExchangeKernel,
    keys: jax.Array,
    tuning: Tuning,
    theta_1: Float[Array, "chain n d"],
    negative: Float[Array, "chain n d"],
) -> Float[Array, "k g"]:
    """Half the mean squared changes of C(w), log p2 and w along fixed directions, move by move."""
    model = kernel.model
    number = min(_NUM_DIRECTIONS, model.dimension)
    shape = (number, model.dimension)
    spread = jnp.sqrt(jnp.asarray(model.second_stage.reference_variance, theta_1.dtype))
    directions = jax.random.normal(jax.random.key(0), shape, theta_1.dtype)
    if number == model.dimension:
        directions = jnp.eye(number, dtype=theta_1.dtype)
    inverse = jnp.where(spread > 0, 1 / jnp.where(spread > 0, spread, 1), 0)

    def functionals(theta_1: Array, w: Array) -> Array:
        named = [model.agreement.disagreement(w), log_second(model, theta_1, w)]
        return jnp.concatenate([jnp.stack(named), directions @ (inverse * (w - theta_1))])

    def one(key: jax.Array, tuning: Tuning, theta_1: Array, w: Array) -> Array:
        start = functionals(theta_1, w)

        def move(w: Array, key: jax.Array) -> tuple[Array, Array]:
            settings = (tuning.metric_negative, tuning.step_negative.value, jnp.asarray(1))
            w = kernel.negative(key, model, theta_1, w, *settings)[0]
            return w, 0.5 * (functionals(theta_1, w) - start) ** 2

        return jax.lax.scan(move, w, jax.random.split(key, _NUM_MOVES))[1]

    by_chain = jax.vmap(jax.vmap(one, (0, None, 0, 0)))(keys, tuning, theta_1, negative)
    return by_chain.mean(axis=(0, 1))
