"""The gradient of log Z by its score identity, and log Z as a differentiable function.

Where the second stage moves every coordinate, grad log Z(theta_1) = E_q[grad_theta_1 log p2(w |
theta_1)] for w from q(. | theta_1). A coordinate that the second stage fixes adds
-lambda E_q[dC(w)]. No gradient flows through w.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from generative import InvalidInput, TwoStageModel
from inference.annealing.anneal import anneal
from inference.moves.density import log_agreeing, share
from inference.precision import require_float64


def score(
    model: TwoStageModel, theta_1: Float[Array, " d"], draws: Float[Array, "n d"]
) -> Float[Array, " d"]:
    """Estimate the gradient of log Z(theta_1) from draws of q(. | theta_1), nats per unit.

    Parameters
    ----------
    model : TwoStageModel
    theta_1 : array, shape (d,)
    draws : array, shape (n, d)
    """

    def mean_log_f(theta_1: Array) -> Array:
        # Free coordinates of a draw are constants; fixed ones are those of theta_1.
        of_one = jax.vmap(lambda w: log_agreeing(model, theta_1, share(model, theta_1, w)))
        return of_one(draws).mean()

    return jax.grad(mean_log_f)(theta_1)


def differentiable_log_normalizer(
    model: TwoStageModel, key: jax.Array, num_particles: int = 256
) -> Callable[[Float[Array, " d"]], Float[Array, ""]]:
    """Return theta_1 -> an estimate of log Z(theta_1), nats, for use in a JAX program.

    It may be differentiated once, in forward or reverse mode, vmapped and jitted. Its gradient is
    the score identity's, from the same particles, not the derivative of the particles' paths. NaN
    where annealing does not reach f in 1000 temperatures.

    Parameters
    ----------
    model : TwoStageModel
    key : PRNG key
        Kept: the function is deterministic.
    num_particles : int
        Its error falls as the inverse root; one evaluation anneals so many particles.

    Notes
    -----
    Where log Z has a closed form, that is returned. Elsewhere know what you do: inside a density
    the estimate's noise changes the target, since E[log Z-hat] < log Z and the error depends on
    theta_1. :func:`inference.infer` never needs log Z; prefer it.

    Raises
    ------
    InvalidInput
        If `num_particles` is below 2.
    """
    require_float64("a log normaliser")
    if num_particles < 2:
        raise InvalidInput("num_particles", num_particles, "an integer >= 2")
    if model.agreement.log_normalizer is not None:
        return model.agreement.log_normalizer

    @jax.custom_jvp
    def log_normalizer(theta_1: Float[Array, " d"]) -> Float[Array, ""]:
        run = anneal(key, model, theta_1, num_particles)
        return jnp.where(run.reached, run.log_normalizer, jnp.nan)

    @log_normalizer.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        (theta_1,), (tangent,) = primals, tangents
        run = anneal(key, model, theta_1, num_particles)
        slope = jnp.sum(score(model, theta_1, run.particles) * tangent)
        value = jnp.where(run.reached, run.log_normalizer, jnp.nan)
        return value, jnp.where(run.reached, slope, jnp.nan).astype(value.dtype)

    return log_normalizer
