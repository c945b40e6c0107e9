"""The bits that conditioning on agreement saves, averaged over the posterior."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

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
# Draws at which controls are evaluated, and those of the stand-in that correct it at each.
_NUM_CONTROLLED, _NUM_CORRECTING = 2000, 256
_FEWEST_OF_A_CHAIN = 4
# A point through which the regression all but passes tells nothing of the noise there.
_LARGEST_LEVERAGE = 0.99


def posterior_mean_cost(
    model: TwoStageModel,
    theta_1: Float[np.ndarray, "chain draw d"],
    theta_2: Float[np.ndarray, "chain draw d"],
    key: jax.Array,
) -> Estimate:
    """Posterior mean of -log Z(theta_1), nats.

    Where log Z has a closed form every draw counts. Elsewhere 40 evenly spaced draws get two
    annealing runs each, and up to 2000 draws two controls: log Z of a linear-Gaussian stand-in, and
    what importance sampling from it, with the same noise everywhere, adds. Regression on them,
    whose means are known far better, removes what they explain; its error is the jackknife's, since
    cost is skewed. The mean of log Z-hat is low by half its variance, which the pairs measure, and
    which is added back.

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
    key_fit, key_runs, key_noise = prng.split(key, 3)
    flat = theta_2.reshape(-1, model.dimension)
    draws = jnp.asarray(flat[_evenly(len(flat), _NUM_FIT_DRAWS)])
    stand_in, fluctuations = _stand_in(key_fit, key_noise, model, draws)
    kept = _thinned(theta_1)
    controls = _over_draws(Partial(_controls_at, model, stand_in, fluctuations), kept)
    # No correction where no draw of the stand-in agrees.
    controls = controls[..., np.isfinite(controls).all(axis=(0, 1))]
    flat = kept.reshape(-1, model.dimension)
    chosen = _evenly(len(flat), _NUM_POINTS)
    runs = few_runs(model, flat[chosen], key_runs, _NUM_RUNS)
    value, error = _regressed(-runs.log_normalizer.mean(axis=1), chosen, controls)
    variances = runs.spread**2
    variance = variances.mean()
    error = np.hypot(error, 0.5 * variances.std(ddof=1) / np.sqrt(len(variances)))
    usable = runs.reached.all() and variance <= LARGEST_SPREAD**2
    error = error if usable else np.inf
    return Estimate(
        value - 0.5 * variance,
        float(error),
        method="tempered_smc",
        num_evaluations=runs.num_evaluations + len(flat) * _NUM_CORRECTING,
    )


@jax.jit
def _stand_in(
    key: jax.Array, key_noise: jax.Array, model: TwoStageModel, draws: Float[Array, "n d"]
) -> tuple[LinearGaussianAgreement, Float[Array, "k d"]]:
    """Fit a stand-in for q, and draw from it around its mean."""
    stand_in = fit(key, model, agreement_potential(model), draws, _NUM_FIT_POINTS)
    keys = jax.random.split(key_noise, _NUM_CORRECTING)
    return stand_in, jax.vmap(stand_in.fluctuation)(keys)


def _thinned(theta_1: Float[np.ndarray, "chain draw d"]) -> Float[np.ndarray, "chain kept d"]:
    """Keep the draws at which controls are evaluated; at least four per chain show its memory."""
    num_chains, num_draws = theta_1.shape[:2]
    stride = min(-(-num_chains * num_draws // _NUM_CONTROLLED), num_draws // _FEWEST_OF_A_CHAIN)
    return theta_1[:, :: max(1, stride)]


def _controls_at(
    model: TwoStageModel,
    stand_in: LinearGaussianAgreement,
    fluctuations: Float[Array, "n d"],
    theta_1: Float[Array, " d"],
) -> Float[Array, " k"]:
    """-log Z of the stand-in, and what importance sampling from it adds, nats."""
    draws = stand_in.mean(theta_1) + fluctuations

    def log_weight(theta: Array) -> Array:
        return stand_in.potential(theta) + model.agreement.log_factor(theta)

    added = logsumexp(jax.vmap(log_weight)(draws)) - jnp.log(len(draws))
    return -jnp.stack([stand_in.log_normalizer(theta_1), added])


def _regressed(
    cost: Float[np.ndarray, " point"],
    chosen: Int[np.ndarray, " point"],
    controls: Float[np.ndarray, "chain draw k"],
) -> tuple[float, float]:
    """Mean cost by regression on controls whose means over all draws are known, and its error.

    Weights of points that the regression gives to the mean, and residuals over 1 - leverage: the
    jackknife, J. G. MacKinnon and H. White, J. Econometrics 29 (1985),
    doi:10.1016/0304-4076(85)90158-7.
    """
    flat = controls.reshape(-1, controls.shape[-1])
    centre = flat.mean(axis=0)
    rows = np.column_stack([np.ones(len(chosen)), flat[chosen] - centre])
    solve = np.linalg.pinv(rows)
    coefficients = solve @ cost
    leverage = np.minimum(np.einsum("ij,ji->i", rows, solve), _LARGEST_LEVERAGE)
    influence = solve[0] * (cost - rows @ coefficients) / (1 - leverage)
    explained = (controls - centre) @ coefficients[1:]
    dependence = max(1.0, len(cost) / _ess(explained))
    error = np.hypot(np.linalg.norm(influence) * dependence**0.5, _mcse(explained))
    return float(coefficients[0]), float(error)


def _over_draws(
    function: Partial, theta_1: Float[np.ndarray, "chain draw d"]
) -> Float[np.ndarray, "chain draw *of_each"]:
    flat = theta_1.reshape(-1, theta_1.shape[-1])
    values = np.asarray(over_points(function, flat), np.float64)
    return values.reshape(*theta_1.shape[:2], *values.shape[1:])


def _mcse(x: Float[np.ndarray, "chain draw"]) -> float:
    return float(np.asarray(az.mcse(x))) if np.ptp(x) > 0 else 0.0


def _ess(x: Float[np.ndarray, "chain draw"]) -> float:
    return float(np.asarray(az.ess(x))) if np.ptp(x) > 0 else float(x.size)


def _evenly(number: int, wanted: int) -> np.ndarray:
    return np.linspace(0, number - 1, min(wanted, number)).astype(int)
