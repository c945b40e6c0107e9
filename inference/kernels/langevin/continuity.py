"""Does C jump? Then its gradient says nothing of the jump, and methods that follow it are wrong.

Between two points of a continuous C, the change of C is the integral of its derivative along the
way. A jump is left over from that integral, and stays as large however short the interval around
it: bisection finds it, where the remainder of a smooth C, of a kink or of a narrow slope shrinks
with the interval.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import InvalidInput, TwoStageModel

# Segments, and parts of an interval: where these are many, a smooth C leaves little beside a jump.
_NUM_SEGMENTS, _NUM_PARTS, _LARGEST_CHEAP = 32, 256, 20_000
_FEW_SEGMENTS, _FEW_PARTS = 4, 32
# Width of the last interval, far above rounding errors of its ends.
_NARROWEST = {"float64": 1e-9, "float32": 1e-4}
_SMALLEST_JUMP = 1e-3  # nats
_ROUNDINGS = 1e3
# A remainder that keeps more than this share at the last division of the interval is a jump.
_KEPT = 0.5


def require_continuous(model: TwoStageModel, backend: str) -> None:
    """Refuse an agreement whose gradient does not tell how it changes.

    Parameters
    ----------
    model : TwoStageModel
    backend : str
        Name of the backend that follows gradients, for the message.

    Raises
    ------
    InvalidInput
        If C jumps between two draws from both stages.
    """
    if model.agreement.is_absent:
        return
    dtype = str(model.space.origin.dtype)
    cheap = model.dimension <= _LARGEST_CHEAP
    number, parts = (_NUM_SEGMENTS, _NUM_PARTS) if cheap else (_FEW_SEGMENTS, _FEW_PARTS)
    narrowest = _NARROWEST.get(dtype, _NARROWEST["float32"])
    num_levels = max(2, round(-np.log(narrowest) / np.log(parts)))
    found = _remainders(jax.random.key(0), model, number, parts, num_levels)
    before, last, size = (np.asarray(x, float) for x in found)
    rounding = _ROUNDINGS * np.finfo(dtype).eps * size
    jumps = (last > np.maximum(_SMALLEST_JUMP, rounding)) & (last >= _KEPT * before)
    jumps |= ~np.isfinite(last)
    if jumps.any():
        raise InvalidInput(
            "disagreement",
            f"a jump of {np.max(np.where(jumps, last, 0)):.3g} nats in lambda C, which no gradient "
            f"shows, on {int(jumps.sum())} of {number} lines",
            f"a continuous C for {backend}, or the hmc, smc, nested or rejection-gibbs backend",
        )


@partial(jax.jit, static_argnums=(2, 3, 4))
def _remainders(
    key: jax.Array, model: TwoStageModel, num_segments: int, num_parts: int, num_levels: int
) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
    """Largest remainder of lambda C at the last two levels, and the size of lambda C; nats."""
    key_1, key_2 = jax.random.split(key)
    theta_1 = model.first_stage.around(model.space.origin).sample(key_1, (2 * num_segments,))
    points = model.second_stage.around(theta_1).sample(key_2)
    agreement = model.agreement

    def on_segment(ends: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        start, along = ends[0], ends[1] - ends[0]

        def cost(t: Array) -> Array:
            return agreement.strength * agreement.disagreement(start + t * along)

        def narrow(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
            low, width = carry
            step = width / num_parts
            at = low + step * jnp.arange(num_parts + 1, dtype=low.dtype)
            value, slope = jax.lax.map(lambda t: jax.jvp(cost, (t,), (jnp.ones_like(t),)), at)
            remainder = jnp.abs(jnp.diff(value) - 0.5 * step * (slope[1:] + slope[:-1]))
            remainder = jnp.where(jnp.isnan(remainder), jnp.inf, remainder)
            # Remainders of a smooth C vary slowly along the line: a jump stands out of those beside
            # it, though others may be larger.
            beside = jnp.pad(remainder, 1, mode="edge")
            rounding = jnp.finfo(value.dtype).eps * jnp.max(jnp.abs(value))
            worst = jnp.argmax(remainder / (0.5 * (beside[:-2] + beside[2:]) + 10 * rounding))
            return (at[worst], step), jnp.stack([remainder[worst], jnp.max(jnp.abs(value))])

        zero, one = jnp.zeros((), start.dtype), jnp.ones((), start.dtype)
        _, found = jax.lax.scan(narrow, (zero, one), None, length=num_levels)
        return found[-2, 0], found[-1, 0], found[-1, 1]

    return jax.lax.map(on_segment, (points[:num_segments], points[num_segments:]))
