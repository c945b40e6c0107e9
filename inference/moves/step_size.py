"""Step sizes that adapt to an acceptance rate during warm-up, by dual averaging with a bound.

Dual averaging minimises a sum of linear models plus a quadratic pull; where the variable is
bounded its minimum is cut off at the bound (Y. Nesterov, Math. Program. 120 (2009),
doi:10.1007/s10107-007-0149-x, formula 3.4). Iterates that are averaged before they are cut off, as
where there is no bound, drag the average beyond it: a rate of one acceptance in four at the longest
trajectory then looks like one in two. Constants are those of M. D. Hoffman and A. Gelman, JMLR 15
(2014), https://jmlr.org/papers/v15/hoffman14a.html.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LARGEST_ANGLE = jnp.pi / 2
SMALLEST_ANGLE = 1e-6
_DELAY, _FORGETTING, _PULL = 10, 0.75, 0.05  # t0, kappa and gamma


class StepSize(NamedTuple):
    """An angle in radians, and the state of its dual averaging.

    Attributes
    ----------
    value : float array
    log_average : float array
        Of the iterates, in which late ones count most.
    mean_error : float array
        Of the rate: target less acceptance rate.
    num_updates : float array
        So far.
    centre : float array
        Log angle to which iterates are pulled.
    """

    value: Float[Array, ""]
    log_average: Float[Array, ""]
    mean_error: Float[Array, ""]
    num_updates: Float[Array, ""]
    centre: Float[Array, ""]


def initial(value: float | Array, dtype: jnp.dtype) -> StepSize:
    """Start at `value`."""
    value, zero = jnp.asarray(value, dtype), jnp.zeros((), dtype)
    return StepSize(value, zero, zero, zero, jnp.log(value))


def update(
    step: StepSize,
    acceptance_rate: Float[Array, ""],
    target: float,
    is_warmup: Bool[Array, ""],
    is_last: Bool[Array, ""],
) -> StepSize:
    """Adapt in warm-up; at its last iteration take the average over the iterates."""
    weight = (1 / (step.num_updates + 1 + _DELAY)).astype(step.value.dtype)
    error = (target - acceptance_rate).astype(step.value.dtype)
    new = _after(step, (1 - weight) * step.mean_error + weight * error)
    value = jnp.where(is_last, averaged(new).value, new.value)
    kept = (new._replace(value=value), step)
    return jax.tree.map(lambda changed, old: jnp.where(is_warmup, changed, old), *kept)


def pooled(step: StepSize, steps: StepSize) -> StepSize:
    """One step size for many particles, each of which has made one update of `step`.

    Mean errors are linear in the acceptance rate, so theirs is that of an update by the mean rate.
    """
    return _after(step, jnp.mean(steps.mean_error, axis=0))


def averaged(step: StepSize) -> StepSize:
    """Take the average over the iterates, as `update` does at its last iteration."""
    return step._replace(value=jnp.exp(step.log_average))


def _after(step: StepSize, mean_error: Float[Array, ""]) -> StepSize:
    """Iterate once more."""
    number = step.num_updates + 1
    log_value = jnp.clip(
        step.centre - jnp.sqrt(number) / _PULL * mean_error,
        jnp.log(SMALLEST_ANGLE),
        jnp.log(LARGEST_ANGLE),
    )
    weight = number**-_FORGETTING
    log_average = (1 - weight) * step.log_average + weight * log_value
    return StepSize(jnp.exp(log_value), log_average, mean_error, number, step.centre)
