"""Step sizes that adapt to an acceptance rate during warm-up, by dual averaging."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from numpyro.infer.hmc_util import dual_averaging

_init, _update = dual_averaging()
LARGEST_ANGLE = jnp.pi / 2
SMALLEST_ANGLE = 1e-6


class StepSize(NamedTuple):
    """An angle in radians, and the state of its dual averaging (Hoffman and Gelman 2014)."""

    value: Float[Array, ""]
    averaging: Any


def initial(value: float | Array, dtype: jnp.dtype) -> StepSize:
    """Start at `value`."""
    value = jnp.asarray(value, dtype)
    # The counter too, which is divided by.
    return StepSize(value, tuple(jnp.asarray(x, dtype) for x in _init(jnp.log(value))))


def update(
    step: StepSize,
    acceptance_rate: Float[Array, ""],
    target: float,
    is_warmup: Bool[Array, ""],
    is_last: Bool[Array, ""],
) -> StepSize:
    """Adapt in warm-up; at its last iteration take the average over the iterates."""
    averaging = _update(target - acceptance_rate, step.averaging)
    log_step = jnp.where(is_last, averaging[1], averaging[0])
    value = jnp.where(is_warmup, _angle(log_step, step.value.dtype), step.value)
    kept = jax.tree.map(
        lambda new, old: jnp.where(is_warmup, new, old).astype(jnp.result_type(old)),
        tuple(averaging),
        tuple(step.averaging),
    )
    return StepSize(value, kept)


def pooled(steps: StepSize) -> StepSize:
    """One step size for many particles, each of which made the same number of updates.

    Dual averaging is linear in the acceptance rate, so the mean of the states is the state after
    updates by the mean rate.
    """
    averaging = tuple(jnp.mean(x, axis=0).astype(x.dtype) for x in steps.averaging)
    return StepSize(_angle(averaging[0], steps.value.dtype), averaging)


def averaged(step: StepSize) -> StepSize:
    """Take the average over the iterates, as `update` does at its last iteration."""
    return step._replace(value=_angle(step.averaging[1], step.value.dtype))


def _angle(log_step: Float[Array, ""], dtype: jnp.dtype) -> Float[Array, ""]:
    return jnp.clip(jnp.exp(log_step), SMALLEST_ANGLE, LARGEST_ANGLE).astype(dtype)
