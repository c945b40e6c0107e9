"""Pairs (theta_1, score of log Z) from negative samples, at as many theta_1 as are wanted."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from generative import TwoStageModel
from inference.batches import in_flight
from inference.gaussians.joint import posterior_reference
from inference.kernels.exchange.learned import Pairs
from inference.kernels.exchange.state import Tuning
from inference.kernels.negative import NegativeSampler, PersistentNegative
from inference.moves.density import log_agreeing, share

# Moves of w at each theta_1: before they count, and in either half of those that do.
_NUM_SETTLING, _NUM_COUNTED = 8, 16


@jax.jit
def pairs(
    key: jax.Array,
    model: TwoStageModel,
    negative: NegativeSampler,
    tuning: Tuning,
    theta_1: Float[Array, "chain n d"],
    w: Float[Array, "chain n d"],
) -> Pairs:
    """Move negative samples at draws of the chains' references, and at draws of the chains.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    negative : NegativeSampler
    tuning : Tuning
        Leading axis: chains.
    theta_1, w : arrays, shape (chain, n, d)
    """
    num_chains, number, dimension = theta_1.shape
    chain = jnp.repeat(jnp.arange(num_chains), number)
    key_drawn, key_scores = jax.random.split(key)

    def drawn(keys: jax.Array, tuning: Tuning) -> tuple[Array, Array]:
        """Draws of one chain's reference, which is factorised once."""
        reference = posterior_reference(tuning.variance_1, tuning.transport, tuning.likelihood)
        mean = reference.mean(model.space.origin)

        def one(key: jax.Array) -> tuple[Array, Array]:
            key_both, key_w = jax.random.split(key)
            theta_1 = jnp.split(mean + reference.fluctuation(key_both), 2)[0]
            return theta_1, share(model, theta_1, tuning.transport.sample(key_w, theta_1))

        return jax.lax.map(one, keys, batch_size=in_flight(number, 4 * dimension))

    def scores(x: tuple[jax.Array, Array, Array, Array]) -> Float[Array, "2 d"]:
        of_chain = jax.tree.map(lambda leaf: leaf[x[1]], tuning)
        return _scores(x[0], model, negative, of_chain, *x[2:])

    others, starts = jax.vmap(drawn)(jax.random.split(key_drawn, theta_1.shape[:2]), tuning)
    theta_1, w = (
        jnp.concatenate([x.reshape(-1, dimension) for x in pair])
        for pair in ((others, theta_1), (starts, w))
    )
    points = (jax.random.split(key_scores, 2 * len(chain)), jnp.tile(chain, 2), theta_1, w)
    found = jax.lax.map(scores, points, batch_size=in_flight(len(w), 4 * dimension))
    return Pairs(theta_1, jnp.moveaxis(found, 1, 0))


def _scores(
    key: jax.Array,
    model: TwoStageModel,
    negative: NegativeSampler,
    tuning: Tuning,
    theta_1: Float[Array, " d"],
    w: Float[Array, " d"],
) -> Float[Array, "2 d"]:
    """Two means of grad log f(w | theta_1) by theta_1, over earlier and over later moves of w."""
    settings = (tuning.metric_negative, tuning.step_negative.value, jnp.asarray(1))

    def score(w: Array) -> Array:
        if model.moving_2.all():  # C does not depend on theta_1
            return -model.second_stage.score(w - theta_1)
        return jax.grad(lambda t: log_agreeing(model, t, share(model, t, w)))(theta_1)

    def move(index: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        w, sums = carry
        w = negative(jax.random.fold_in(key, index), model, theta_1, w, *settings)[0]
        half = (index - _NUM_SETTLING) // _NUM_COUNTED  # negative before they count
        share_of_half = jnp.where(jnp.arange(2) == half, 1 / _NUM_COUNTED, 0).astype(w.dtype)
        return w, sums + share_of_half[:, None] * score(w)

    if isinstance(negative, PersistentNegative):
        w = negative.rescued(key, model, theta_1, w)
    start = (w, jnp.zeros((2, len(w)), w.dtype))
    return jax.lax.fori_loop(0, _NUM_SETTLING + 2 * _NUM_COUNTED, move, start)[1]
