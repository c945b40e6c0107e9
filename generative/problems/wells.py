"""Double wells: one in one dimension, and d of them hidden by a rotation."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from generative.errors import InvalidInput
from generative.model import TwoStageModel
from generative.problems.problem import Problem, Truth
from generative.stages import GaussianStage

_THETA_0 = 0.2
_STRENGTH = 3.0
_VARIANCE = 0.25
_OBSERVED = 0.8


def double_well(form: Literal["residuals", "disagreement"] = "disagreement") -> Problem:
    """Return C = (t^2 - 1)^2 / 4 with one noisy observation of theta_2.

    Parameters
    ----------
    form : {"residuals", "disagreement"}
        What inference is given: r = (t^2 - 1) / sqrt 2, or C alone.
    """
    model = _wells_model(np.full(1, _THETA_0), np.eye(1), np.full(1, _OBSERVED), form)
    well = _well_by_quadrature(_OBSERVED, _THETA_0)
    truth = Truth(
        log_evidence=well.log_evidence,
        mean_1=np.array([well.mean_1]),
        mean_2=np.array([well.mean_2]),
        cov_1=np.array([[well.variance_1]]),
        cov_2=np.array([[well.variance_2]]),
        log_normalizer=lambda theta_1: _log_normalizer(np.asarray(theta_1)[..., 0]),
        bits_saved=well.bits_saved,
    )
    return Problem("double_well", model, truth, "a double well in one dimension; quadrature")


def rotated_wells(
    d: int = 5, form: Literal["residuals", "disagreement"] = "residuals", seed: int = 0
) -> Problem:
    """Return d double wells along the axes of a random rotation: C is the sum over the wells.

    Parameters
    ----------
    d : int
    form : {"residuals", "disagreement"}
    seed : int
        Of the rotation and of the observations, one per well.
    """
    if d < 1:
        raise InvalidInput("d", d, "an integer >= 1")
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    observed = rng.choice([-1.0, 1.0], size=d) * rng.uniform(0.4, 1.2, size=d)
    model = _wells_model(rotation.T @ np.full(d, _THETA_0), rotation, observed, form)
    wells = [_well_by_quadrature(y, _THETA_0) for y in observed]
    columns = _Well(*map(np.array, zip(*wells, strict=True)))
    truth = Truth(
        log_evidence=float(columns.log_evidence.sum()),
        mean_1=rotation.T @ columns.mean_1,
        mean_2=rotation.T @ columns.mean_2,
        cov_1=(rotation.T * columns.variance_1) @ rotation,
        cov_2=(rotation.T * columns.variance_2) @ rotation,
        log_normalizer=lambda theta_1: _log_normalizer(np.asarray(theta_1) @ rotation.T).sum(-1),
        bits_saved=float(columns.bits_saved.sum()),
    )
    return Problem(
        "rotated_wells", model, truth, "d double wells behind a rotation; 1-d quadratures"
    )


def _wells_model(
    theta_0: np.ndarray, rotation: np.ndarray, observed: np.ndarray, form: str
) -> TwoStageModel:
    if form not in ("residuals", "disagreement"):
        raise InvalidInput("form", form, "residuals or disagreement")
    rotation, observed = jnp.asarray(rotation), jnp.asarray(observed)

    def residuals(theta: jnp.ndarray) -> jnp.ndarray:
        return ((rotation @ theta) ** 2 - 1) / jnp.sqrt(2.0)

    def log_likelihood(theta: jnp.ndarray) -> jnp.ndarray:
        error = observed - rotation @ theta
        constant = 0.5 * np.log(2 * np.pi * _VARIANCE)
        return jnp.sum(-0.5 * error**2 / _VARIANCE - constant)

    agreement: dict = {"residuals": residuals}
    if form == "disagreement":
        agreement = {"disagreement": lambda theta: 0.5 * jnp.sum(residuals(theta) ** 2)}
    return TwoStageModel(
        theta_0=jnp.asarray(theta_0),
        first_stage=GaussianStage(1.0),
        second_stage=GaussianStage(1.0),
        agreement_strength=_STRENGTH,
        log_likelihood=log_likelihood,
        **agreement,
    )


class _Well(NamedTuple):
    log_evidence: float
    mean_1: float
    variance_1: float
    mean_2: float
    variance_2: float
    bits_saved: float


# Quadrature by the trapezoid rule, which converges exponentially for these smooth, decaying
# integrands: doubling the resolution moves nothing beyond 1e-12.
_GRID = np.linspace(-9.0, 9.0, 721)
_LOG_STEP = np.log(_GRID[1] - _GRID[0])


def _log_normal(x: np.ndarray, variance: float) -> np.ndarray:
    return -0.5 * x**2 / variance - 0.5 * np.log(2 * np.pi * variance)


def _log_normalizer(theta_1: np.ndarray) -> np.ndarray:
    log_f = _log_normal(_GRID - np.asarray(theta_1)[..., None], 1.0) - _penalty(_GRID)
    return logsumexp(log_f, axis=-1) + _LOG_STEP


def _penalty(t: np.ndarray) -> np.ndarray:
    return _STRENGTH * (t**2 - 1) ** 2 / 4


def _well_by_quadrature(observed: float, theta_0: float) -> _Well:
    a, b = _GRID[:, None], _GRID[None, :]
    log_z = _log_normalizer(_GRID)[:, None]
    log_joint = (
        _log_normal(a - theta_0, 1.0)
        + _log_normal(b - a, 1.0)
        - _penalty(b)
        - log_z
        + _log_normal(observed - b, _VARIANCE)
    )
    log_evidence = logsumexp(log_joint) + 2 * _LOG_STEP
    weight = np.exp(log_joint + 2 * _LOG_STEP - log_evidence)
    mean_1, mean_2 = np.sum(weight * a), np.sum(weight * b)
    return _Well(
        float(log_evidence),
        float(mean_1),
        float(np.sum(weight * (a - mean_1) ** 2)),
        float(mean_2),
        float(np.sum(weight * (b - mean_2) ** 2)),
        float(-np.sum(weight * log_z) / np.log(2)),
    )
