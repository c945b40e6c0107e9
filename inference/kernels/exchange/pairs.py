"""Pairs (theta_1, score of log Z) from negative samples, at as many theta_1 as are wanted."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from generative import TwoStageModel
from inference.gaussians.joint import posterior_reference
from inference.kernels.exchange.learned import Pairs
from inference.kernels.exchange.state import Tuning
from inference.kernels.negative import NegativeSampler

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
    """Move negative samples at the draws of the chains, and at draws of the chains' reference."""
    keys = jax.random.split(key, (3, *theta_1.shape[:2]))

    def drawn(key: jax.Array, tuning: Tuning) -> tuple[Array, Array]:
        reference = posterior_reference(model, tuning.transport, tuning.likelihood)
        origin = model.space.origin
        both = reference.mean(origin) + reference.fluctuation(key)
        other = jnp.split(both, 2)[0]
        return other, tuning.transport.sample(jax.random.fold_in(key, 1), other)

    def scores(key: jax.Array, tuning: Tuning, theta_1: Array, w: Array) -> Array:
        def move(w: Array, key: jax.Array) -> tuple[Array, Array]:
            settings = (tuning.metric_negative, tuning.step_negative.value, jnp.asarray(1))
            w = negative(key, model, theta_1, w, *settings)[0]
            return w, -model.second_stage.score(w - theta_1)

        number = _NUM_SETTLING + 2 * _NUM_COUNTED
        found = jax.lax.scan(move, w, jax.random.split(key, number))[1][_NUM_SETTLING:]
        return found.reshape(2, _NUM_COUNTED, -1).mean(axis=1)

    others, starts = jax.vmap(jax.vmap(drawn, (0, None)))(keys[0], tuning)
    theta_1, w = (jnp.concatenate(x, axis=1) for x in ((theta_1, others), (w, starts)))
    keys = jnp.concatenate([keys[1], keys[2]], axis=1)
    found = jax.vmap(jax.vmap(scores, (0, None, 0, 0)))(keys, tuning, theta_1, w)
    dimension = theta_1.shape[-1]
    return Pairs(
        theta_1.reshape(-1, dimension), jnp.moveaxis(found, 2, 0).reshape(2, -1, dimension)
    )
