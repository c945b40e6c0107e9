"""The bits that conditioning on agreement saves, averaged over the posterior."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from generative import TwoStageModel
from inference.estimate import Estimate
from inference.normalizer.tempered_smc import anneal

_NUM_POINTS = 40
_NUM_PARTICLES = 64


def posterior_mean_cost(
    model: TwoStageModel, theta_1: Float[np.ndarray, "chain draw d"], key: jax.Array
) -> Estimate:
    """Posterior mean of -log Z(theta_1), nats.

    Where log Z has a closed form every draw counts. Elsewhere 40 evenly spaced draws get two
    independent annealing runs each: averaged, log Z-hat is biased by about minus half its
    variance, which the pairs measure, and which is added back.

    Parameters
    ----------
    model : TwoStageModel
    theta_1 : array, shape (chain, draw, d)
    key : PRNG key
    """
    log_normalizer = model.agreement.log_normalizer
    if log_normalizer is not None:
        flat = jnp.asarray(theta_1.reshape(-1, theta_1.shape[-1]))
        cost = -np.asarray(jax.jit(jax.vmap(log_normalizer))(flat), np.float64)
        cost = cost.reshape(theta_1.shape[:2])
        error = float(np.asarray(az.mcse(cost))) if np.ptp(cost) > 0 else 0.0
        return Estimate(float(cost.mean()), error, method="closed_form")
    flat = theta_1.reshape(-1, theta_1.shape[-1])
    num_points = min(_NUM_POINTS, len(flat))
    points = jnp.asarray(flat[np.linspace(0, len(flat) - 1, num_points).astype(int)])
    keys = jax.random.split(key, (num_points, 2))
    over_runs = jax.vmap(anneal, (0, None, None, None))
    runs = jax.vmap(over_runs, (0, None, 0, None))(keys, model, points, _NUM_PARTICLES)
    log_z = np.asarray(runs.log_normalizer, np.float64)
    variance = 0.5 * np.mean((log_z[:, 0] - log_z[:, 1]) ** 2)
    cost = -log_z.mean(axis=1)
    error = cost.std(ddof=1) / np.sqrt(num_points)
    if not np.all(np.asarray(runs.reached)):
        error = np.inf
    return Estimate(
        float(cost.mean() - 0.5 * variance),
        float(error),
        method="tempered_smc",
        num_evaluations=int(runs.num_evaluations.sum()),
    )
