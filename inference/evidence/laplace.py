"""log p(data) by Laplace's method at a joint maximum: a local value, of one mode.

The precision there is prior plus curvatures of low rank: that of lambda C - L at theta_2, of either
sign, and minus that of log Z at theta_1. Its determinant needs two m x m matrices.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from generative import LinearGaussianAgreement, TwoStageModel
from inference.estimate import Estimate
from inference.gaussians.joint import JointReference
from inference.gaussians.surrogate import (
    agreement_potential,
    curvature_rows,
    fit,
    flat,
    posterior_potential,
)

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

    Exact for linear-Gaussian models. The curvature of C is Gauss-Newton's where there are
    residuals, that of L the Hessian; both of limited rank in large models.

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
        With the objective's standard error; the error of the approximation itself is not known.
        Minus infinity where the density is not concave.
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


@jax.jit
def _log_determinant(
    key: jax.Array, model: TwoStageModel, theta_2: Array, negative: Array
) -> Float[Array, ""]:
    """Log det of the posterior's precision over the prior's without agreement."""
    key_second, key_first = jax.random.split(key)
    potential = posterior_potential(model)
    gained, lost = curvature_rows(key_second, model, potential, theta_2, _MAX_ROWS)
    of_normalizer = _normalizer_curvature(key_first, model, negative)
    zeros = jnp.zeros_like
    gained = jnp.concatenate([zeros(gained), gained], axis=1)
    lost = jnp.concatenate(
        [
            jnp.concatenate([zeros(lost), lost], axis=1),
            jnp.concatenate([of_normalizer, zeros(of_normalizer)], axis=1),
        ]
    )
    variance_1 = jnp.asarray(model.first_stage.variance, theta_2.dtype)
    prior = JointReference(flat(model), variance_1)
    covariance = jax.vmap(prior.covariance)
    root = jnp.linalg.cholesky(jnp.eye(len(gained)) + gained @ covariance(gained).T)
    across = solve_triangular(root, gained @ covariance(lost).T, lower=True)
    # Positive definite only where there is a maximum; else a NaN comes out.
    left = jnp.eye(len(lost)) - lost @ covariance(lost).T + across.T @ across
    diagonal = jnp.diagonal(jnp.linalg.cholesky(left))
    log_det = 2 * (jnp.log(jnp.diagonal(root)).sum() + jnp.log(diagonal).sum())
    return jnp.where(jnp.isnan(log_det), jnp.inf, log_det)


def _normalizer_curvature(
    key: jax.Array, model: TwoStageModel, negative: Float[Array, "n d"]
) -> Float[Array, "m d"]:
    """Rows W with W'W = minus the Hessian of log Z."""
    exact = model.agreement.closed_form
    if exact is not None:
        return exact.whitened_A
    if model.agreement.is_absent:
        return jnp.zeros((0, model.dimension), negative.dtype)
    fitted: LinearGaussianAgreement = fit(
        key, model, agreement_potential(model), negative, _NUM_POINTS, _MAX_ROWS
    )
    return fitted.whitened_A
