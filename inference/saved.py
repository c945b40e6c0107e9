"""The bits that conditioning on agreement saves, averaged over the posterior."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from generative import TwoStageModel
from inference.estimate import Estimate
from inference.kernels.surrogate import agreement_potential, fit
from inference.normalizer.ladder import log_normalizer

_NUM_POINTS = 40
_NUM_FIT_DRAWS, _NUM_FIT_POINTS = 512, 64
# Of each point, nats: well below the spread over draws that the control variate leaves.
_TARGET_STANDARD_ERROR = 0.2
_MAX_EVALUATIONS = 2_000_000
# A fitted coefficient needs a few times more points than it has parameters.
_COEFFICIENTS = 2


def posterior_mean_cost(
    model: TwoStageModel,
    theta_1: Float[np.ndarray, "chain draw d"],
    theta_2: Float[np.ndarray, "chain draw d"],
    key: jax.Array,
) -> Estimate:
    """Posterior mean of -log Z(theta_1), nats.

    Where log Z has a closed form every draw counts. Elsewhere log Z is estimated at 40 evenly
    spaced draws, and a linear-Gaussian stand-in at all of them: regression on the stand-in, a
    control variate whose mean is known far better, removes what it explains.

    Parameters
    ----------
    model : TwoStageModel
    theta_1, theta_2 : arrays, shape (chain, draw, d)
    key : PRNG key
    """
    exact = model.agreement.log_normalizer
    if exact is not None:
        cost = -_over_draws(exact, theta_1)
        return Estimate(float(cost.mean()), _mcse(cost), method="closed_form")
    key_fit, key_seed = jax.random.split(key)
    draws = theta_2.reshape(-1, model.dimension)
    draws = jnp.asarray(draws[_evenly(len(draws), _NUM_FIT_DRAWS)])
    stand_in = fit(key_fit, model, agreement_potential(model), draws, _NUM_FIT_POINTS)
    control = -_over_draws(stand_in.log_normalizer, theta_1)
    flat = theta_1.reshape(-1, model.dimension)
    chosen = _evenly(len(flat), _NUM_POINTS)
    seed = int(jax.random.randint(key_seed, (), 0, 2**31 - 1))
    estimate = log_normalizer(
        model,
        flat[chosen],
        seed=seed,
        target_standard_error=_TARGET_STANDARD_ERROR,
        max_evaluations=_MAX_EVALUATIONS,
    )
    value, error = _regressed(-estimate.value, control.ravel()[chosen], control)
    # The points' own errors are part of their scatter, but not where they are infinite.
    error = error if np.all(np.isfinite(estimate.standard_error)) else np.inf
    return Estimate(value, error, method=estimate.method, num_evaluations=estimate.num_evaluations)


def _regressed(
    cost: Float[np.ndarray, " point"],
    control_at_points: Float[np.ndarray, " point"],
    control: Float[np.ndarray, "chain draw"],
) -> tuple[float, float]:
    """Mean cost by regression on a control whose mean over all draws is known, and its error."""
    slope = 0.0
    if np.ptp(control_at_points) > 0:
        slope = float(np.polyfit(control_at_points, cost, 1)[0])
    residual = cost - slope * control_at_points
    scatter = np.sum((residual - residual.mean()) ** 2) / max(len(cost) - _COEFFICIENTS, 1)
    error = np.hypot(np.sqrt(scatter / len(cost)), slope * _mcse(control))
    return float(residual.mean() + slope * control.mean()), float(error)


def _over_draws(log_normalizer_fn, theta_1: np.ndarray) -> np.ndarray:  # noqa: ANN001 - a callable
    flat = jnp.asarray(theta_1.reshape(-1, theta_1.shape[-1]))
    values = jax.jit(lambda x: jax.lax.map(log_normalizer_fn, x))(flat)
    return np.asarray(values, np.float64).reshape(theta_1.shape[:2])


def _mcse(x: Float[np.ndarray, "chain draw"]) -> float:
    return float(np.asarray(az.mcse(x))) if np.ptp(x) > 0 else 0.0


def _evenly(number: int, wanted: int) -> np.ndarray:
    return np.linspace(0, number - 1, min(wanted, number)).astype(int)
