"""The bits that conditioning on agreement saves, averaged over the posterior."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from generative import LinearGaussianAgreement, TwoStageModel
from inference import prng
from inference.annealing.repeated import few_runs
from inference.averages import LARGEST_SPREAD
from inference.batches import over_points
from inference.estimate import Estimate
from inference.gaussians.surrogate import agreement_potential, fit
from inference.moves.density import log_normalizer_at

_NUM_POINTS, _NUM_RUNS = 40, 2
_NUM_FIT_DRAWS, _NUM_FIT_POINTS = 512, 64
# A fitted coefficient needs a few times more points than it has parameters.
_COEFFICIENTS = 2


def posterior_mean_cost(
    model: TwoStageModel,
    theta_1: Float[np.ndarray, "chain draw d"],
    theta_2: Float[np.ndarray, "chain draw d"],
    key: jax.Array,
) -> Estimate:
    """Posterior mean of -log Z(theta_1), nats.

    Where log Z has a closed form every draw counts. Elsewhere 40 evenly spaced draws get two
    annealing runs each, and all draws a linear-Gaussian stand-in: regression on the stand-in, a
    control variate whose mean is known far better, removes what it explains. The mean of
    log Z-hat is low by half its variance, which the pairs measure, and which is added back.

    Parameters
    ----------
    model : TwoStageModel
    theta_1, theta_2 : arrays, shape (chain, draw, d)
    key : PRNG key
    """
    exact = model.agreement.log_normalizer
    if exact is not None:
        cost = -_over_draws(Partial(log_normalizer_at, model), theta_1)
        return Estimate(float(cost.mean()), _mcse(cost), method="closed_form")
    key_fit, key_runs = prng.split(key)
    flat = theta_2.reshape(-1, model.dimension)
    draws = jnp.asarray(flat[_evenly(len(flat), _NUM_FIT_DRAWS)])
    stand_in = _stand_in(key_fit, model, draws)
    control = -_over_draws(Partial(type(stand_in).log_normalizer, stand_in), theta_1)
    flat = theta_1.reshape(-1, model.dimension)
    chosen = _evenly(len(flat), _NUM_POINTS)
    runs = few_runs(model, flat[chosen], key_runs, _NUM_RUNS)
    value, error = _regressed(-runs.log_normalizer.mean(axis=1), control.ravel()[chosen], control)
    variances = runs.spread**2
    variance = variances.mean()
    error = np.hypot(error, 0.5 * variances.std(ddof=1) / np.sqrt(len(variances)))
    usable = runs.reached.all() and variance <= LARGEST_SPREAD**2
    error = error if usable else np.inf
    return Estimate(
        value - 0.5 * variance,
        float(error),
        method="tempered_smc",
        num_evaluations=runs.num_evaluations,
    )


@jax.jit
def _stand_in(
    key: jax.Array, model: TwoStageModel, draws: Float[Array, "n d"]
) -> LinearGaussianAgreement:
    return fit(key, model, agreement_potential(model), draws, _NUM_FIT_POINTS)


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
    effective = min(len(cost), _ess(control))
    error = np.hypot(np.sqrt(scatter / effective), slope * _mcse(control))
    return float(residual.mean() + slope * control.mean()), float(error)


def _over_draws(
    log_normalizer_fn: Partial, theta_1: Float[np.ndarray, "chain draw d"]
) -> Float[np.ndarray, "chain draw"]:
    flat = theta_1.reshape(-1, theta_1.shape[-1])
    values = over_points(log_normalizer_fn, flat)
    return np.asarray(values, np.float64).reshape(theta_1.shape[:2])


def _mcse(x: Float[np.ndarray, "chain draw"]) -> float:
    return float(np.asarray(az.mcse(x))) if np.ptp(x) > 0 else 0.0


def _ess(x: Float[np.ndarray, "chain draw"]) -> float:
    return float(np.asarray(az.ess(x))) if np.ptp(x) > 0 else float(x.size)


def _evenly(number: int, wanted: int) -> np.ndarray:
    return np.linspace(0, number - 1, min(wanted, number)).astype(int)
