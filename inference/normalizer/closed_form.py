"""log Z(theta_1) in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import InvalidInput, TwoStageModel
from inference.estimate import Estimate


def closed_form(model: TwoStageModel, theta_1: Float[Array | np.ndarray, "batch d"]) -> Estimate:
    """Evaluate log Z(theta_1) exactly.

    Raises
    ------
    InvalidInput
        If it has no closed form for this model.
    """
    log_normalizer = model.agreement.log_normalizer
    if log_normalizer is None:
        raise InvalidInput(
            "method",
            "closed_form for a model without one",
            "auto, or another method (closed_form needs LinearResiduals and a GaussianStage)",
        )
    value = np.asarray(jax.vmap(log_normalizer)(jnp.asarray(theta_1)), np.float64)
    return Estimate(value, np.zeros_like(value), value, value, "closed_form")
