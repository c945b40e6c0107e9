"""log Z(theta_1) by importance sampling from the Gauss-Newton Gaussian at the mode of f.

With residuals r linearised at the mode, f(. | theta_1) is Gaussian and all algebra is m x m; the
importance weights correct what linearisation leaves out. A small share of the draws comes from p2
itself, which bounds the weights (T. Hesterberg, Technometrics 37 (1995),
doi:10.1080/00401706.1995.10484303).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from generative import GaussianStage, InvalidInput, LinearGaussianAgreement, TwoStageModel
from inference.estimate import Estimate
from inference.kernels.density import log_agreeing
from inference.normalizer.importance import weighted_average

_MAX_ITERATIONS = 50
_HALVINGS = 8
_DEFENSIVE_SHARE = 0.05


def gauss_newton(
    model: TwoStageModel,
    theta_1: Float[Array, "batch d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    """Average f / proposal over draws of the Gauss-Newton proposal.

    Raises
    ------
    InvalidInput
        If the model has no residuals, or its second stage is not Gaussian.
    """
    if model.agreement.residuals is None:
        raise InvalidInput(
            "method", "gauss_newton for a model given by disagreement", "models given by residuals"
        )
    if not isinstance(model.second_stage, GaussianStage):
        raise InvalidInput(
            "method", "gauss_newton for a second stage that is not Gaussian", "GaussianStage"
        )
    return weighted_average(
        partial(_log_weights, model),
        jnp.asarray(theta_1),
        key,
        target_standard_error,
        max_evaluations,
        "gauss_newton",
    )


def linearize(model: TwoStageModel, point: Float[Array, " d"]) -> LinearGaussianAgreement:
    """Linearise the residuals at a point; lambda is absorbed."""
    residuals = model.agreement.residuals
    root = jnp.sqrt(jnp.asarray(model.agreement.strength, point.dtype))
    value = residuals(point)
    jacobian = jax.jacrev(residuals)(point)
    return LinearGaussianAgreement(
        root * jacobian, root * (jacobian @ point - value), model.second_stage.variance
    )


def mode(model: TwoStageModel, theta_1: Float[Array, " d"]) -> Float[Array, " d"]:
    """Mode of f(. | theta_1) by Gauss-Newton steps, each halved until f increases."""

    def step(_: int, theta: Array) -> Array:
        # The conditional mean of the linearised problem is the full Gauss-Newton step.
        direction = linearize(model, theta).mean(theta_1) - theta
        lengths = jnp.append(0.5 ** jnp.arange(_HALVINGS), 0.0).astype(theta.dtype)
        candidates = theta + lengths[:, None] * direction
        values = jax.vmap(partial(log_agreeing, model, theta_1))(candidates)
        return candidates[jnp.argmax(jnp.nan_to_num(values, nan=-jnp.inf))]

    return jax.lax.fori_loop(0, _MAX_ITERATIONS, step, theta_1)


def _log_weights(model: TwoStageModel, key: jax.Array, theta_1: Array, num_draws: int) -> Array:
    # The proposal's density over p2 is its own exp(-|A theta - c|^2 / 2) over its own Z. A share
    # of the draws from p2 itself bounds the weights, where the proposal's tails are too thin.
    proposal = linearize(model, mode(model, theta_1))
    num_plain = max(1, int(_DEFENSIVE_SHARE * num_draws))
    share = num_plain / num_draws
    key_plain, key_proposal = jax.random.split(key)
    plain = model.second_stage.around(theta_1).sample(key_plain, (num_plain,))
    keys = jax.random.split(key_proposal, num_draws - num_plain)
    draws = jnp.concatenate([plain, jax.vmap(proposal.sample, (0, None))(keys, theta_1)])

    def log_weight(theta: Array) -> Array:
        linearized = -0.5 * jnp.sum((proposal.A @ theta - proposal.c) ** 2)
        density = jnp.logaddexp(
            jnp.log1p(-share) + linearized - proposal.log_normalizer(theta_1), jnp.log(share)
        )
        return -model.agreement.strength * model.agreement.disagreement(theta) - density

    return jax.vmap(log_weight)(draws)
