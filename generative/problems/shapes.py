"""Agreements of awkward shape with an exact log Z: several modes, and a plateau. No data."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from numpy.typing import ArrayLike
from scipy.special import logsumexp as numpy_logsumexp
from scipy.stats import norm

from generative.errors import InvalidInput
from generative.model import TwoStageModel
from generative.problems.problem import LARGEST_DENSE, Problem, Truth
from generative.stages import GaussianStage


def gaussian_mixture(
    d: int = 5,
    num_modes: int = 3,
    width: float = 0.5,
    separation: float = 3.0,
    seed: int = 0,
) -> Problem:
    """Return exp(-lambda C) = mean of exp(-|theta - mu_k|^2 / (2 width^2)) over modes, lambda = 1.

    Parameters
    ----------
    d : int
    num_modes : int
    width : float
        Of each mode, relative to a second stage of scale 1.
    separation : float
        Distance of each mode from theta_0, in random directions.
    seed : int
        Of the directions.
    """
    _require_positive(d=d, num_modes=num_modes, width=width)
    directions = np.random.default_rng(seed).normal(size=(num_modes, d))
    modes = separation * directions / np.linalg.norm(directions, axis=1, keepdims=True)

    def disagreement(theta: jnp.ndarray) -> jnp.ndarray:
        squares = jnp.sum((theta - jnp.asarray(modes)) ** 2, axis=1)
        return jnp.log(num_modes) - logsumexp(-0.5 * squares / width**2)

    def log_normalizer(theta_1: ArrayLike) -> np.ndarray:
        squares = np.sum((np.asarray(theta_1)[..., None, :] - modes) ** 2, axis=-1)
        variance = 1 + width**2
        log_share = 0.5 * d * np.log(width**2 / variance) - np.log(num_modes)
        return numpy_logsumexp(-0.5 * squares / variance, axis=-1) + log_share

    model = TwoStageModel(
        jnp.zeros(d), GaussianStage(1.0), GaussianStage(1.0), disagreement=disagreement
    )
    return Problem(
        "gaussian_mixture", model, _null_truth(d, log_normalizer), "separate modes of agreement"
    )


def indicator(
    d: int = 5, probability: float = 0.05, agreement_strength: float = 20.0, seed: int = 0
) -> Problem:
    """Return C = 1 outside a half-space and 0 inside: two plateaus, no gradient anywhere.

    Parameters
    ----------
    d : int
    probability : float
        Of the half-space under the second stage around theta_0.
    agreement_strength : float
    seed : int
        Of the half-space's direction.
    """
    _require_positive(d=d)
    if not 0 < probability < 1:
        raise InvalidInput("probability", probability, "a number between 0 and 1")
    direction = np.random.default_rng(seed).normal(size=d)
    direction /= np.linalg.norm(direction)
    threshold = norm.isf(probability)

    def disagreement(theta: jnp.ndarray) -> jnp.ndarray:
        return jnp.where(jnp.asarray(direction) @ theta > threshold, 0.0, 1.0)

    def log_normalizer(theta_1: ArrayLike) -> np.ndarray:
        beyond = threshold - np.asarray(theta_1) @ direction
        return np.logaddexp(norm.logsf(beyond), norm.logcdf(beyond) - agreement_strength)

    model = TwoStageModel(
        jnp.zeros(d),
        GaussianStage(1.0),
        GaussianStage(1.0),
        agreement_strength=agreement_strength,
        disagreement=disagreement,
    )
    return Problem(
        "indicator", model, _null_truth(d, log_normalizer), "agreement in a half-space: a plateau"
    )


def _null_truth(d: int, log_normalizer) -> Truth:  # noqa: ANN001 - a callable
    """Without data theta_1 keeps its prior, and the evidence is 1, whatever C is."""
    dense = d <= LARGEST_DENSE
    return Truth(
        log_evidence=0.0,
        mean_1=np.zeros(d),
        cov_1=np.eye(d) if dense else None,
        log_normalizer=log_normalizer,
    )


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise InvalidInput(name, value, "a number > 0")
