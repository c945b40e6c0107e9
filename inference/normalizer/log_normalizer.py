"""log Z(theta_1) by a named method, or by the cheapest that meets the requested error."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from generative import InvalidInput, TwoStageModel
from inference.estimate import Estimate
from inference.normalizer.closed_form import closed_form
from inference.normalizer.gauss_newton import gauss_newton
from inference.normalizer.importance import MARGIN, importance
from inference.normalizer.nested import nested
from inference.normalizer.reverse_annealing import reverse_annealing
from inference.normalizer.tempered_smc import tempered_smc
from inference.normalizer.thermodynamic import thermodynamic
from inference.precision import require_float64

Method = Literal[
    "auto",
    "closed_form",
    "importance",
    "gauss_newton",
    "tempered_smc",
    "thermodynamic",
    "nested",
    "reverse_annealing",
]
_SAMPLERS: dict[str, Callable[..., Estimate]] = {
    estimator.__name__: estimator
    for estimator in (
        importance,
        gauss_newton,
        tempered_smc,
        thermodynamic,
        nested,
        reverse_annealing,
    )
}
# The rungs that `auto` climbs, with the share of the budget that each may spend: the cheap ones
# meet the target soon or never.
_RUNGS = {"importance": 0.1, "gauss_newton": 0.1, "tempered_smc": 1.0, "thermodynamic": 1.0}
_NUM_TRIAL_DRAWS = 64
_ROUNDING = 1e-9  # a C of 0 may come out as less
ONE_VALUE = 1e-5  # nats; nested sampling breaks ties by less

BLIND = "C took one value at every draw: it is constant, or smaller in a region never met"


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
        `auto` climbs closed_form, importance, gauss_newton, tempered_smc until the error is met,
        and thermodynamic where none of them gave a finite error; it says which rung answered. If
        none meets it, it returns the estimate with the smallest error. The others are `nested`
        and `reverse_annealing`.
    seed : int
    target_standard_error : float
        Nats.
    max_evaluations : int
        Evaluations of C; under `auto` a tenth of it for each of importance and gauss_newton, and
        all of it for each of tempered_smc and thermodynamic.

    Returns
    -------
    Estimate
        With the batch's shape; `upper` is 0 where the method gives nothing better, since Z <= 1.

    Raises
    ------
    InvalidInput
        If an argument cannot be used, the method needs what the model does not have, or C is NaN
        or negative at theta_1 or at one of 64 draws of the second stage around it.

    Examples
    --------
    >>> import jax, numpy as np
    >>> jax.config.update("jax_enable_x64", True)
    >>> from generative import problems
    >>> problem = problems.get("linear_gaussian", d=3)
    >>> theta_1 = np.array([0.5, 0.0, -0.5])
    >>> estimate = log_normalizer(problem.model, theta_1)
    >>> estimate.method
    'closed_form'
    >>> bool(np.isclose(estimate.value, problem.truth.log_normalizer(theta_1)))
    True
    """
    require_float64("a log normaliser")
    if method not in get_args(Method):
        raise InvalidInput("method", repr(method), ", ".join(get_args(Method)))
    check_budget(target_standard_error, max_evaluations)
    vectors = finite_vector(model, theta_1, "theta_1")
    if vectors.size == 0:
        raise InvalidInput("theta_1", f"an empty batch of shape {vectors.shape}", "points")
    flat = np.asarray(vectors.reshape(-1, model.dimension))
    check_disagreement(model, flat, seed)
    budget = (target_standard_error, max_evaluations)
    if model.agreement.is_absent:
        exact = np.zeros(len(flat))
        estimate = Estimate(exact, exact, exact, exact, "closed_form")
    elif method == "closed_form" or (method == "auto" and model.agreement.is_tractable):
        estimate = closed_form(model, flat)
    elif method == "auto":
        estimate = _climb(model, flat, seed, *budget)
    else:
        estimate = _sampled(method, model, flat, jax.random.key(seed), *budget)
    return _reshaped(estimate, vectors.shape[:-1])


def _climb(
    model: TwoStageModel, theta_1: np.ndarray, seed: int, target: float, max_evaluations: int
) -> Estimate:
    best = Estimate(np.nan, np.inf)
    spent = 0
    for index, (name, share) in enumerate(_RUNGS.items()):
        if name == "gauss_newton" and not model.second_stage.is_gaussian:
            continue
        has_answer = np.all(np.isfinite(best.standard_error))
        is_bounded = best.lower is not None and bool(np.all(np.isfinite(best.lower)))
        if name == "thermodynamic" and (has_answer or not is_bounded):
            break  # it costs as much as the rung below, and needs a finite C
        key = jax.random.fold_in(jax.random.key(seed), index)
        budget = max(1, int(share * max_evaluations))
        estimate = _sampled(name, model, theta_1, key, target, budget)
        spent += estimate.num_evaluations
        if not best.method or _badness(estimate) <= _badness(best):
            best = estimate
        if np.all(best.standard_error <= target):
            break
    return replace(best, num_evaluations=spent)


def _badness(estimate: Estimate) -> tuple[int, float]:
    """How many points have no finite error, and the largest error of the others."""
    error = np.asarray(estimate.standard_error)
    finite = np.isfinite(error)
    return int(np.sum(~finite)), float(np.max(error, where=finite, initial=0.0))


def _sampled(
    method: str,
    model: TwoStageModel,
    theta_1: np.ndarray,
    key: jax.Array,
    target: float,
    max_evaluations: int,
) -> Estimate:
    estimate = _SAMPLERS[method](model, theta_1, key, target, max_evaluations)
    if estimate.lower is None:
        return estimate
    # Jensen's bound is sharp only where C is one constant at every draw.
    is_one = np.abs(estimate.value - estimate.lower) <= ONE_VALUE * (1 + np.abs(estimate.value))
    num_draws = estimate.num_evaluations / len(theta_1)
    is_blind = is_one & (estimate.value < MARGIN - np.log(num_draws))
    if not is_blind.any():
        return estimate
    error = np.where(is_blind, np.inf, estimate.standard_error)
    return replace(estimate, standard_error=error, note=BLIND)


def check_budget(target_standard_error: float, max_evaluations: int) -> None:
    """Refuse a target or a budget that is not positive.

    Raises
    ------
    InvalidInput
    """
    if not target_standard_error > 0:
        raise InvalidInput("target_standard_error", target_standard_error, "a number > 0")
    if max_evaluations < 1:
        raise InvalidInput("max_evaluations", max_evaluations, "an integer >= 1")


def finite_vector(model: TwoStageModel, theta_1: PyTree, name: str) -> Array:
    """Return points as vectors, shape (..., d).

    Raises
    ------
    InvalidInput
        If the structure is not that of theta_0, or a number is not finite.
    """
    vectors = model.space.vector(theta_1, name)
    if not np.all(np.isfinite(vectors)):
        raise InvalidInput(name, "NaN or infinity", "finite numbers")
    return vectors


def check_disagreement(model: TwoStageModel, theta_1: np.ndarray, seed: int) -> None:
    """Evaluate C where the estimators will, and refuse what cannot be a disagreement.

    Raises
    ------
    InvalidInput
        If C is NaN or negative at theta_1 or at draws of the second stage around it.
    """
    number = _NUM_TRIAL_DRAWS // len(theta_1) + 1
    values = np.asarray(_disagreements(jax.random.key(seed), model, theta_1, number))
    for is_bad, found in ((np.isnan(values), "NaN"), (values < -_ROUNDING, "a negative value")):
        if is_bad.any():
            raise InvalidInput(
                "disagreement",
                f"{found} at {int(is_bad.sum())} of {len(values)} points around theta_1",
                "numbers >= 0",
            )


@partial(jax.jit, static_argnums=3)
def _disagreements(
    key: jax.Array, model: TwoStageModel, theta_1: Float[Array | np.ndarray, "point d"], number: int
) -> Float[Array, " n"]:
    """C at points, and at draws of the second stage around each of them."""
    draws = model.second_stage.around(theta_1).sample(key, (number,))
    points = jnp.concatenate([theta_1, draws.reshape(-1, model.dimension)])
    return jax.lax.map(model.disagreement, points)


def _reshaped(estimate: Estimate, shape: tuple[int, ...]) -> Estimate:
    def reshape(value: float | np.ndarray) -> float | np.ndarray:
        value = np.reshape(value, shape)
        return value if shape else float(value)

    return replace(
        estimate,
        value=reshape(estimate.value),
        standard_error=reshape(estimate.standard_error),
        lower=None if estimate.lower is None else reshape(estimate.lower),
        upper=None if estimate.upper is None else reshape(estimate.upper),
    )
