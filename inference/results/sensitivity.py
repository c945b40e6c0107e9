"""How posterior means and the log evidence change with lambda and the scales, without Z.

For a parameter eta of the prior, the posterior's score is that of the unnormalised density less its
mean under q(. | theta_1), the law of negative samples w:

    d log p(theta_1, theta_2 | data) / d eta
        = d log f(theta_2 | theta_1) / d eta - E_q[d log f(w | theta_1) / d eta]
          + d log p1(theta_1) / d eta - constant.

So the covariance of any functional with the right-hand side is the derivative of its posterior
mean, and the mean of the right-hand side without its constant is that of the log evidence. For
lambda the score is E_q[C(w)] - C(theta_2).
"""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Float

from generative import TwoStageModel
from generative.parts import Parts
from inference.annealing.anneal import anneal
from inference.batches import over_points


def prior_scores(
    model: TwoStageModel,
    theta_1: Float[np.ndarray, "chain draw d"],
    theta_2: Float[np.ndarray, "chain draw d"],
    key: jax.Array,
    num_particles: int = 64,
) -> dict[str, Float[np.ndarray, "chain draw"]]:
    """Scores of the logarithms of lambda and of a factor on all scales of a stage, nats.

    Parameters
    ----------
    model : TwoStageModel
    theta_1, theta_2 : arrays, shape (chain, draw, d)
        Posterior draws; a few hundred do, since every one is given a population of its own.
    key : PRNG key
    num_particles : int
        Draws of q(. | theta_1) by annealing at each theta_1. The negative samples of exchange moves
        would not do: an accepted one has passed a test that depends on it.

    Returns
    -------
    dict
        `strength`, `first_scale`, `second_scale`.
    """
    flat = theta_1.reshape(-1, model.dimension)
    keys = jax.random.split(key, len(flat))
    means = Partial(_means, model, Parts(num_particles))
    expected = over_points(means, (keys, flat))
    cost, shift = (np.asarray(x, np.float64).reshape(theta_1.shape[:2]) for x in expected)
    own = Partial(TwoStageModel.disagreement, model)
    flat = theta_2.reshape(-1, model.dimension)
    disagreement = over_points(own, flat, 256)
    first = jnp.asarray(theta_1 - np.asarray(model.space.origin))
    second = jnp.asarray(theta_2 - theta_1)
    return {
        "strength": float(model.agreement.strength) * (cost - disagreement.reshape(cost.shape)),
        "first_scale": np.asarray(model.first_stage.scale_score(first)),
        "second_scale": np.asarray(model.second_stage.scale_score(second)) - shift,
    }


def sensitivities(functionals: xr.Dataset, scores: xr.Dataset) -> xr.Dataset:
    """Derivatives of posterior means, in units of posterior standard deviations.

    Returns
    -------
    Dataset
        `sensitivity` and `standard_error`, dims (functional, hyperparameter): change of a mean, in
        standard deviations of the functional, per doubling of the hyperparameter (to first order).
        `log_evidence` and its error, dims (hyperparameter): nats per doubling.
    """
    names, etas = [str(n) for n in functionals], [str(n) for n in scores]
    shape = (len(names), len(etas))
    value, error = np.zeros(shape), np.zeros(shape)
    evidence, evidence_error = np.zeros(len(etas)), np.zeros(len(etas))
    for j, eta in enumerate(etas):
        score = np.log(2) * scores[eta].values
        evidence[j] = score.mean()
        evidence_error[j] = float(np.asarray(az.mcse(score)))
        for i, name in enumerate(names):
            x = functionals[name].values
            products = (x - x.mean()) / x.std() * (score - score.mean())
            value[i, j] = products.mean()
            error[i, j] = float(np.asarray(az.mcse(products)))
    dims = ("functional", "hyperparameter")
    return xr.Dataset(
        {
            "sensitivity": (dims, value),
            "standard_error": (dims, error),
            "log_evidence": ("hyperparameter", evidence),
            "log_evidence_se": ("hyperparameter", evidence_error),
        },
        coords={"functional": names, "hyperparameter": etas},
    )


def _means(
    model: TwoStageModel, num_particles: Parts, pair: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Means of C and of the score of the second scale over draws of q(. | theta_1)."""
    key, a = pair
    draws = anneal(key, model, a, num_particles.whole).particles
    costs = jax.vmap(model.agreement.disagreement)(draws)
    return costs.mean(), model.second_stage.scale_score(draws - a).mean()
