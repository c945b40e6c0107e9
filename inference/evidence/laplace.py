"""log p(data) by Laplace's method at a joint maximum: a local value, of one mode.

The precision there is prior plus curvatures of low rank: that of lambda C - L at theta_2 adds, that
of log Z at theta_1 subtracts. Its determinant needs one m x m matrix.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import LinearGaussianAgreement, TwoStageModel
from inference.estimate import Estimate
from inference.kernels.joint import JointReference
from inference.kernels.surrogate import agreement_potential, fit, flat, posterior_potential

_NUM_POINTS = 16
# A determinant wants all curvatures, once, where a metric is content with the largest.
_MAX_ROWS = 1024


def laplace_evidence(
    key: jax.Array,
    model: TwoStageModel,
    theta_2: Float[Array, " d"],
    negative: Float[Array, "n d"],
    objective: Estimate,
) -> Estimate:
    """Estimate log p(data), nats, by a Gaussian at a joint maximum.

    Exact for linear-Gaussian models. Curvatures are Gauss-Newton's where there are residuals, and
    of limited rank in large models.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
        With Gaussian stages: kinks have no curvature.
    theta_2 : array, shape (d,)
        At the maximum.
    negative : array, shape (n, d)
        Draws of q(. | theta_1) there, for the curvature of log Z.
    objective : Estimate
        Log joint density of parameters and data at the maximum.

    Returns
    -------
    Estimate
        With the objective's standard error, infinite where the point is no maximum; the error of
        the approximation itself is not known.
    """
    log_det = float(_log_determinant(key, model, theta_2, negative))
    variances = np.concatenate([model.first_stage.variance, model.second_stage.variance])
    moving = variances[variances > 0]
    volume = 0.5 * np.sum(np.log(2 * np.pi * moving)) - 0.5 * log_det
    return Estimate(
        float(objective.value + volume),
        float(objective.standard_error) if np.isfinite(log_det) else np.inf,
        method="laplace, local",
    )


@partial(jax.jit, static_argnums=(1,))
def _log_determinant(
    key: jax.Array, model: TwoStageModel, theta_2: Array, negative: Array
) -> Float[Array, ""]:
    """Log det of the posterior's precision over the prior's without agreement."""
    key_second, key_first = jax.random.split(key)
    gained = fit(key_second, model, posterior_potential(model), theta_2[None], 1, _MAX_ROWS).A
    lost = _normalizer_curvature(key_first, model, negative)
    zeros = jnp.zeros_like
    design = jnp.concatenate(
        [
            jnp.concatenate([zeros(gained), gained], axis=1),
            jnp.concatenate([lost, zeros(lost)], axis=1),
        ]
    )
    variance_1 = jnp.asarray(model.first_stage.variance, theta_2.dtype)
    prior = JointReference(flat(model), variance_1)
    gram = design @ jax.vmap(prior.covariance)(design).T
    signs = jnp.concatenate([jnp.ones(len(gained)), -jnp.ones(len(lost))])
    sign, log_det = jnp.linalg.slogdet(jnp.eye(len(gram)) + gram * signs)
    return jnp.where(sign > 0, log_det, jnp.inf)


def _normalizer_curvature(
    key: jax.Array, model: TwoStageModel, negative: Float[Array, "n d"]
) -> Float[Array, "m d"]:
    """Rows W with W'W = minus the Hessian of log Z."""
    exact = model.agreement.closed_form
    if exact is not None:
        return exact.whitened_A
    if model.agreement.strength == 0:
        return jnp.zeros((0, model.dimension), negative.dtype)
    fitted: LinearGaussianAgreement = fit(
        key, model, agreement_potential(model), negative, _NUM_POINTS, _MAX_ROWS
    )
    return fitted.whitened_A
