"""Whether agreement is quadratic, so that q has one basin under a Gaussian second stage."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from generative import TwoStageModel
from inference import prng
from inference.annealing.certificate import NUM_FRESH_PARTICLES
from inference.annealing.conditional_smc import pilots
from inference.moves.density import first_draws

# As many theta_1 as a block of annealed draws has: fresh draws then share the program.
_NUM_PROBED = 64
# What rounding may leave, relative to machine precision, and nats.
_ROUNDINGS, _FEW_NATS = 1e3, 0.1


def is_quadratic(model: TwoStageModel) -> bool:
    """Whether C is quadratic, to rounding, where q is and where both stages put their draws.

    A quadratic function and its gradient at a + b - c follow from those at a, b and c. Here a comes
    from annealed draws of q: a plateau with holes is flat at draws of the stages, not in the holes.
    """
    key_1, key_2, key_anneal = prng.split(jax.random.key(4), 3)
    theta_1 = first_draws(key_1, model, _NUM_PROBED)
    annealed = pilots(key_anneal, model, theta_1, NUM_FRESH_PARTICLES)[0]
    return bool(_follows(key_2, model, theta_1, annealed))


@jax.jit
def _follows(
    key: jax.Array, model: TwoStageModel, theta_1: Float[Array, "n d"], a: Float[Array, "n d"]
) -> Bool[Array, ""]:
    keys = jax.random.split(key, (2, len(theta_1)))
    sample = jax.vmap(lambda key, x: model.second_stage.around(x).sample(key))
    b, c = sample(keys[0], theta_1), sample(keys[1], jnp.roll(theta_1, 1, axis=0))
    of_one = jax.value_and_grad(model.agreement.disagreement)
    value, gradient = jax.vmap(jax.vmap(of_one))(jnp.stack([a, b, c, a + b - c]))
    mixed = jnp.sum((a - c) * (gradient[1] - gradient[2]), axis=-1)
    signs = jnp.asarray([1, 1, -1, -1], a.dtype)
    off = jnp.abs(jnp.tensordot(signs, value, 1) + mixed)
    off_gradient = jnp.abs(jnp.tensordot(signs, gradient, 1))
    rounding = _ROUNDINGS * jnp.finfo(a.dtype).eps
    size = jnp.abs(value).sum(axis=0) + jnp.sum(
        jnp.abs(a - c) * (jnp.abs(gradient[1]) + jnp.abs(gradient[2])), axis=-1
    )
    is_right = (off <= rounding * size) & (model.agreement.strength * off <= _FEW_NATS)
    scale = jnp.abs(gradient).sum(axis=(0, 2), keepdims=True)[0]
    return jnp.all(is_right) & jnp.all(off_gradient <= rounding * scale)
