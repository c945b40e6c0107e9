r"""A library of agreeing draws, from which moves of theta_2 and of negative samples cross basins.

Let B be one wide law of theta_2, and h(w) = B(w) exp(-lambda C(w)) / Z_h what agreement makes of B.
Against h the conditional q(w | theta_1), which is p2(w | theta_1) exp(-lambda C(w)) / Z(theta_1),
has the weight ::

    q(w | theta_1) / h(w) = p2(w | theta_1) / B(w)  up to a constant in w:

lambda C cancels, whatever it is. So draws of h, made once, serve as proposals under every theta_1,
and a choice among hundreds of them evaluates no C. With B of variance s1^2 + s2^2, the spread of
theta_2 under the prior before agreement, the weights vary little in few dimensions; their
effective number falls geometrically with d, and with it what the move does.

The move is iterated sampling importance resampling, C. Andrieu, A. Lee and M. Vihola, Bernoulli 24
(2018), doi:10.3150/15-BEJ785: the current point and K draws of h are put in a row, and one of them
is chosen by its weight. It is reversible and exact for independent draws of h. A library has so
many and no more, annealed, so that the shares of basins keep its error of about one over the root
of their number.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import GaussianStage, TwoStageModel
from generative.parts import Data
from inference import prng
from inference.annealing.anneal import anneal
from inference.moves.density import log_second

# Populations that are annealed apart, and their particles.
_NUM_POPULATIONS, _NUM_PARTICLES = 8, 2048
_NUM_PROPOSED = 256


class Library(Data):
    """Draws of h, and its base.

    Attributes
    ----------
    draws : array, shape (n, d)
    centre, spread : arrays, shape (d,)
        Mean and standard deviation of B, a Gaussian.
    """

    draws: Float[Array, "n d"]
    centre: Float[Array, " d"]
    spread: Float[Array, " d"]

    def step(
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[Array, " d"],
        w: Float[Array, " d"],
    ) -> Float[Array, " d"]:
        """Choose among w and draws of the library, which leaves q(. | theta_1) invariant."""
        key_propose, key_choose = jax.random.split(key)
        index = jax.random.randint(key_propose, (_NUM_PROPOSED,), 0, len(self.draws))
        points = jnp.concatenate([w[None], self.draws[index]])

        def log_weight(w: Array) -> Array:
            log_base = -0.5 * jnp.sum(((w - self.centre) / self.spread) ** 2)
            return log_second(model, theta_1, w) - log_base

        return points[jax.random.categorical(key_choose, jax.vmap(log_weight)(points))]


def is_possible(model: TwoStageModel) -> bool:
    """Whether one library serves every theta_1: no block of theta_2 may be theta_1's own."""
    return bool(model.moving_2.all())


def build(key: jax.Array, model: TwoStageModel) -> Library:
    """Anneal a library.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    """
    variances = (model.first_stage.reference_variance, model.second_stage.reference_variance)
    spread = np.sqrt(np.asarray(variances[0]) + np.asarray(variances[1]))
    base = model.replace(second_stage=GaussianStage(model.space.unravel(spread)))
    origin = base.space.origin
    keys = prng.split(key, _NUM_POPULATIONS)
    populations = [anneal(key, base, origin, _NUM_PARTICLES).particles for key in keys]
    return Library(jnp.concatenate(populations), origin, jnp.asarray(spread, origin.dtype))
