"""log Z(theta_1) by a named method, or by the cheapest that meets the requested error."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import jax
import numpy as np
from jaxtyping import PyTree

from generative import GaussianStage, InvalidInput, TwoStageModel
from inference.estimate import Estimate
from inference.normalizer.closed_form import closed_form
from inference.normalizer.gauss_newton import gauss_newton
from inference.normalizer.importance import importance
from inference.normalizer.tempered_smc import tempered_smc
from inference.precision import require_float64

Method = Literal["auto", "closed_form", "importance", "gauss_newton", "tempered_smc"]
_SAMPLERS: dict[str, Callable[..., Estimate]] = {
    "importance": importance,
    "gauss_newton": gauss_newton,
    "tempered_smc": tempered_smc,
}
# A proposal around one mode can miss others without its weights telling: never trusted alone.
_UNIMODAL = ("gauss_newton",)
_MAX_CONTRADICTION = 4.0  # standard errors


def log_normalizer(
    model: TwoStageModel,
    theta_1: PyTree,
    method: Method = "auto",
    seed: int = 0,
    target_standard_error: float = 0.1,
    max_evaluations: int = 2_000_000,
) -> Estimate:
    """Estimate log Z(theta_1), the log probability that the heads agree, in nats.

    Parameters
    ----------
    model : TwoStageModel
    theta_1 : pytree like theta_0, or array of shape (..., d)
        Leading axes are a batch, done at once.
    method : str
        `auto` climbs closed_form, importance, gauss_newton, tempered_smc until the error is met;
        if none meets it, it returns the estimate with the smallest error. gauss_newton, which
        looks around one mode, counts only where tempered_smc does not contradict it.
    seed : int
    target_standard_error : float
        Nats.
    max_evaluations : int
        Evaluations of C, per rung.

    Returns
    -------
    Estimate
        With the batch's shape; `upper` is 0 where the method gives nothing better, since Z <= 1.

    Raises
    ------
    InvalidInput
        If an argument cannot be used, or the method needs what the model does not have.
    """
    require_float64("a log normaliser")
    if method not in get_args(Method):
        raise InvalidInput("method", repr(method), ", ".join(get_args(Method)))
    if not target_standard_error > 0:
        raise InvalidInput("target_standard_error", target_standard_error, "a number > 0")
    if max_evaluations < 1:
        raise InvalidInput("max_evaluations", max_evaluations, "an integer >= 1")
    vectors = model.space.vector(theta_1, "theta_1")
    if not np.all(np.isfinite(vectors)):
        raise InvalidInput("theta_1", "NaN or infinity", "finite numbers")
    flat = vectors.reshape(-1, model.dimension)
    budget = (target_standard_error, max_evaluations)
    if method == "closed_form" or (method == "auto" and model.agreement.is_tractable):
        estimate = closed_form(model, flat)
    elif method == "auto":
        estimate = _climb(model, flat, seed, *budget)
    else:
        estimate = _SAMPLERS[method](model, flat, jax.random.key(seed), *budget)
    return _reshaped(estimate, vectors.shape[:-1])


def _climb(
    model: TwoStageModel, theta_1: np.ndarray, seed: int, target: float, max_evaluations: int
) -> Estimate:
    best = None
    for index, (name, sampler) in enumerate(_SAMPLERS.items()):
        needs_residuals = name == "gauss_newton"
        has_residuals = model.agreement.residuals is not None
        if needs_residuals and not (
            has_residuals and isinstance(model.second_stage, GaussianStage)
        ):
            continue
        # The cheap rungs get a small part of the budget: they meet the target soon or never.
        share = max_evaluations if name == "tempered_smc" else max_evaluations // 10
        key = jax.random.fold_in(jax.random.key(seed), index)
        estimate = sampler(model, theta_1, key, target, share)
        if best is not None and best.method in _UNIMODAL:
            best = _disagreeing(best, estimate)
        if best is None or np.max(estimate.standard_error) < np.max(best.standard_error):
            best = estimate
        if np.all(estimate.standard_error <= target) and name not in _UNIMODAL:
            break
    return best


def _disagreeing(proposal: Estimate, annealed: Estimate) -> Estimate:
    """Give an estimate from one mode an infinite error where annealing contradicts it."""
    error = np.hypot(proposal.standard_error, annealed.standard_error)
    contradicted = np.abs(proposal.value - annealed.value) > _MAX_CONTRADICTION * error
    return replace(
        proposal,
        standard_error=np.where(contradicted, np.inf, proposal.standard_error),
        num_evaluations=proposal.num_evaluations + annealed.num_evaluations,
    )


def _reshaped(estimate: Estimate, shape: tuple[int, ...]) -> Estimate:
    def reshape(value: np.ndarray | None) -> float | np.ndarray | None:
        if value is None:
            return None
        value = np.reshape(value, shape)
        return value if shape else float(value)

    return Estimate(
        reshape(estimate.value),
        reshape(estimate.standard_error),
        reshape(estimate.lower),
        reshape(estimate.upper),
        estimate.method,
        estimate.num_evaluations,
    )
