"""How posterior means and the log evidence change with lambda and the scales, without Z.

For a parameter eta of the prior, the posterior's score is that of the unnormalised density less its
mean under q(. | theta_1), and a draw w of q stands in for that mean without bias, because given
theta_1 it is independent of everything else:

    d log p(theta_1, theta_2 | data) / d eta
        = d log f(theta_2 | theta_1) / d eta - d log f(w | theta_1) / d eta
          + d log p1(theta_1) / d eta - constant.

So the covariance of any functional with the right-hand side is the derivative of its posterior
mean, and the mean of the right-hand side without its constant is that of the log evidence. For
lambda the score is C(w) - C(theta_2).
"""

import arviz as az
import numpy as np
import xarray as xr
from jaxtyping import Float

from generative import TwoStageModel
from generative.stages import GaussianStage, Stage


def prior_scores(
    model: TwoStageModel, draws: dict[str, np.ndarray]
) -> dict[str, Float[np.ndarray, "chain draw"]]:
    """Scores of the logarithms of lambda and of a factor on all scales of a stage, nats.

    Parameters
    ----------
    model : TwoStageModel
    draws : dict
        `theta_1`, `theta_2` and `negative`, a draw of q(. | theta_1), all of shape (chain, draw,
        d); `disagreement` and `disagreement_negative`, C of theta_2 and of the negative sample.

    Returns
    -------
    dict
        `score_strength`, `score_first_scale`, `score_second_scale`; empty where draws have no
        negative samples beside them.
    """
    names = ("theta_1", "theta_2", "negative", "disagreement_negative")
    if any(name not in draws for name in names):
        return {}
    theta_1, theta_2, negative, disagreement_negative = (draws[name] for name in names)
    if not theta_1.shape == negative.shape == (*disagreement_negative.shape, model.dimension):
        return {}
    stage = model.second_stage
    return {
        "score_strength": model.agreement.strength
        * (disagreement_negative - draws["disagreement"]),
        "score_first_scale": _scale_score(
            model.first_stage, theta_1 - np.asarray(model.space.origin)
        ),
        "score_second_scale": _scale_score(stage, theta_2 - theta_1)
        - _scale_score(stage, negative - theta_1),
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


def _scale_score(stage: Stage, shift: np.ndarray) -> np.ndarray:
    """Derivative of a stage's log density by the logarithm of a factor on all its scales."""
    free = stage.free
    scaled = np.abs(shift[..., free]) / np.broadcast_to(stage.scale, free.shape)[free]
    power = scaled**2 if isinstance(stage, GaussianStage) else scaled
    return (power - 1).sum(axis=-1)
