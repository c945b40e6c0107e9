r"""A library of agreeing draws, from which moves of theta_2 and of negative samples cross basins.

Let B be one wide law of theta_2, and h(w) = B(w) exp(-lambda C(w)) / Z_h what agreement makes of B.
Against h the conditional q(w | theta_1), which is p2(w | theta_1) exp(-lambda C(w)) / Z(theta_1),
has the weight ::

    q(w | theta_1) / h(w) = p2(w | theta_1) / B(w)  up to a constant in w:

lambda C cancels, whatever it is. So draws of h, made once, serve as proposals under every theta_1,
and a choice among hundreds of them evaluates no C. B is the law of theta_2 before agreement, if
theta_1 has the mean and the variances of some draws: p1's to begin with, and then those of chains
in warm-up, or of a pilot at each power of the likelihood, since data may hold theta_1 where p1's
library has hardly a draw. Nested sampling keeps p1's.
The weights then vary little in few dimensions; their effective number falls geometrically with d,
and with it what the move does.

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
_BATCH = 256


class Library(Data):
    """Draws of h, and its base.

    Attributes
    ----------
    draws : array, shape (n, d)
    log_likelihood : array, shape (n,)
        L at the draws, nats.
    centre, spread : arrays, shape (d,)
        Mean and standard deviation of B, a Gaussian.
    """

    draws: Float[Array, "n d"]
    log_likelihood: Float[Array, " n"]
    centre: Float[Array, " d"]
    spread: Float[Array, " d"]

    def move(
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[Array, " d"],
        theta_2: Float[Array, " d"],
    ) -> Float[Array, " d"]:
        """Choose among theta_2 and draws of the library; q(. | theta_1) exp(L) stays invariant.

        Negative samples, which know no data, move under the model at power 0.
        """
        key_propose, key_choose = (jax.random.fold_in(key, index) for index in range(2))
        index = jax.random.randint(key_propose, (_NUM_PROPOSED,), 0, len(self.draws))
        points = jnp.concatenate([theta_2[None], self.draws[index]])
        others = model.tempered(self.log_likelihood[index])
        log_likelihood = jnp.concatenate([model.log_likelihood(theta_2)[None], others])
        log_weight = jax.vmap(lambda w: self.log_ratio(model, theta_1, w))(points)
        return points[jax.random.categorical(key_choose, log_weight + log_likelihood)]

    def log_ratio(self, model: TwoStageModel, theta_1: Array, w: Array) -> Array:
        """Log of p2 over B, nats, up to a constant."""
        log_base = -0.5 * jnp.sum(((w - self.centre) / self.spread) ** 2)
        return log_second(model, theta_1, w) - log_base


@jax.jit
def worth(
    library: Library, model: TwoStageModel, theta_1: Float[Array, "n d"]
) -> Float[Array, " n"]:
    """How many draws of q(. | theta_1) a library is worth: (sum of weights)^2 / sum of squares."""

    def one(theta_1: Array) -> Array:
        log_weight = jax.vmap(lambda w: library.log_ratio(model, theta_1, w))(library.draws)
        return 1 / jnp.sum(jax.nn.softmax(log_weight) ** 2)

    return jax.lax.map(one, theta_1)


def is_possible(model: TwoStageModel) -> bool:
    """Whether one library serves every theta_1: no block of theta_2 may be theta_1's own."""
    return bool(model.moving_2.all())


def build(
    key: jax.Array, model: TwoStageModel, theta_1: Float[np.ndarray, "n d"] | None = None
) -> Library:
    """Anneal a library.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    theta_1 : array, shape (n, d), optional
        Draws for which it is made; by default it is made for p1.
    """
    origin, variance = model.space.origin, np.asarray(model.first_stage.reference_variance)
    centre = origin
    if theta_1 is not None:
        centre, variance = jnp.asarray(theta_1.mean(axis=0), origin.dtype), theta_1.var(axis=0)
    spread = np.sqrt(variance + np.asarray(model.second_stage.reference_variance))
    base = model.replace(second_stage=GaussianStage(model.space.unravel(spread)))
    keys = prng.split(key, _NUM_POPULATIONS)
    populations = [anneal(key, base, centre, _NUM_PARTICLES).particles for key in keys]
    draws = jnp.concatenate(populations)
    return Library(draws, _values(model, draws), centre, jnp.asarray(spread, origin.dtype))


@jax.jit
def _values(model: TwoStageModel, draws: Float[Array, "n d"]) -> Float[Array, " n"]:
    values = jax.lax.map(model.log_likelihood, draws, batch_size=_BATCH)
    return jnp.where(jnp.isnan(values), -jnp.inf, values)  # which is never chosen
