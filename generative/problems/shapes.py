"""Agreements of awkward shape with an exact log Z: modes, a plateau, a singular set. No data."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike
from scipy.special import logsumexp as numpy_logsumexp
from scipy.stats import norm

from generative.errors import InvalidInput
from generative.model import TwoStageModel
from generative.problems.problem import LARGEST_DENSE, Problem, Truth, require_positive
from generative.stages import GaussianStage
from generative.values import as_jax


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
    require_positive(d=d, num_modes=num_modes, width=width)
    directions = np.random.default_rng(seed).normal(size=(num_modes, d))
    modes = separation * directions / np.linalg.norm(directions, axis=1, keepdims=True)

    def log_normalizer(theta_1: ArrayLike) -> np.ndarray:
        squares = np.sum((np.asarray(theta_1)[..., None, :] - modes) ** 2, axis=-1)
        variance = 1 + width**2
        log_share = 0.5 * d * np.log(width**2 / variance) - np.log(num_modes)
        return np.asarray(numpy_logsumexp(-0.5 * squares / variance, axis=-1) + log_share)

    model = TwoStageModel(
        jnp.zeros(d),
        GaussianStage(1.0),
        GaussianStage(1.0),
        disagreement=Partial(_mixture, as_jax(modes), width),
    )
    return Problem(
        "gaussian_mixture", model, _null_truth(d, log_normalizer), "separate modes of agreement"
    )


def indicator(
    d: int = 5, probability: float = 0.05, agreement_strength: float = 20.0, seed: int = 0
) -> Problem:
    """C = 1 outside a half-space and 0 inside: two plateaus, no gradient anywhere.

    Parameters
    ----------
    d : int
    probability : float
        Of the half-space under the second stage around theta_0.
    agreement_strength : float
    seed : int
        Of the half-space's direction.
    """
    require_positive(d=d)
    if not 0 < probability < 1:
        raise InvalidInput("probability", probability, "a number between 0 and 1")
    direction = np.random.default_rng(seed).normal(size=d)
    direction /= np.linalg.norm(direction)
    threshold = norm.isf(probability)

    def log_normalizer(theta_1: ArrayLike) -> np.ndarray:
        beyond = threshold - np.asarray(theta_1) @ direction
        tails = norm.logsf(beyond), norm.logcdf(beyond) - agreement_strength
        return np.asarray(np.logaddexp(*tails))

    model = TwoStageModel(
        jnp.zeros(d),
        GaussianStage(1.0),
        GaussianStage(1.0),
        agreement_strength=agreement_strength,
        disagreement=Partial(_outside, as_jax(direction), as_jax(threshold)),
    )
    return Problem(
        "indicator", model, _null_truth(d, log_normalizer), "agreement in a half-space: a plateau"
    )


_SINGULAR_STRENGTH, _PRODUCT = 3.0, 0.7


def singular_product() -> Problem:
    """C = (t0 t1 - 0.7)^2 + |sin t2 - t3|: a curved valley and a crease, in four dimensions.

    Both stages have scale 1, lambda = 3. The first term falls to 0 on two curves that do not meet,
    the second has a kink wherever it is 0.
    """

    def log_normalizer(theta_1: ArrayLike) -> np.ndarray:
        a0, a1, a2, a3 = np.moveaxis(np.asarray(theta_1, float), -1, 0)[..., None]
        return np.asarray(_log_z_of_product(a0, a1) + _log_z_of_sine(a2, a3))

    model = TwoStageModel(
        jnp.zeros(4),
        GaussianStage(1.0),
        GaussianStage(1.0),
        agreement_strength=_SINGULAR_STRENGTH,
        disagreement=_valley_and_crease,
    )
    # C is even, so that theta_2 has mean 0 as well.
    truth = replace(
        _null_truth(4, log_normalizer), mean_2=np.zeros(4), bits_saved=_singular_bits_saved()
    )
    return Problem(
        "singular_product", model, truth, "a curved valley and a crease, no data; 1-d quadratures"
    )


def _mixture(modes: Array, width: float, theta: Array) -> Array:
    squares = jnp.sum((theta - modes) ** 2, axis=1)
    return jnp.log(len(modes)) - logsumexp(-0.5 * squares / width**2)


def _outside(direction: Array, threshold: Array, theta: Array) -> Array:
    return jnp.where(direction @ theta > threshold, 0.0, 1.0)


def _valley_and_crease(theta: Array) -> Array:
    return (theta[0] * theta[1] - _PRODUCT) ** 2 + jnp.abs(jnp.sin(theta[2]) - theta[3])


# Trapezoid rules for integrals against a standard normal. The fine one is for integrands with poles
# 0.4 off the real line, the coarse one for log Z, which is smooth.
_FINE, _COARSE = np.linspace(-8.5, 8.5, 681), np.linspace(-7.5, 7.5, 61)


def _log_z_of_product(a0: np.ndarray, a1: np.ndarray) -> np.ndarray | np.floating:
    """Log E exp(-lambda (t0 t1 - 0.7)^2): given t0 a Gaussian integral, by quadrature over t0.

    Of arrays of shape (..., 1).
    """
    t0 = a0 + _FINE
    spread = 1 + 2 * _SINGULAR_STRENGTH * t0**2
    error = t0 * a1 - _PRODUCT
    return _log_mean(-_SINGULAR_STRENGTH * error**2 / spread - 0.5 * np.log(spread))


def _log_z_of_sine(a2: np.ndarray, a3: np.ndarray) -> np.ndarray | np.floating:
    """Log E exp(-lambda |sin t2 - t3|): given t2 two Gaussian tails, by quadrature over t2."""
    k, m = _SINGULAR_STRENGTH, np.sin(a2 + _FINE) - a3
    return 0.5 * k**2 + _log_mean(
        np.logaddexp(norm.logcdf(m - k) - k * m, norm.logcdf(-m - k) + k * m)
    )


def _log_mean(log_f: np.ndarray) -> np.ndarray | np.floating:
    """Log of the mean of f at standard normal points of the fine grid."""
    return numpy_logsumexp(log_f + norm.logpdf(_FINE), axis=-1) + np.log(_FINE[1] - _FINE[0])


@cache
def _singular_bits_saved() -> float:
    """Mean of -log2 Z over the prior, which is the posterior: a sum over pairs of coordinates."""
    first, second = np.meshgrid(_COARSE, _COARSE, indexing="ij")
    weight = norm.pdf(first) * norm.pdf(second) * (_COARSE[1] - _COARSE[0]) ** 2
    a, b = first[..., None], second[..., None]
    log_z = _log_z_of_product(a, b) + _log_z_of_sine(a, b)
    return float(-np.sum(weight * log_z) / np.log(2))


def _null_truth(d: int, log_normalizer: Callable[[ArrayLike], np.ndarray]) -> Truth:
    """Without data theta_1 keeps its prior, and the evidence is 1, whatever C is."""
    dense = d <= LARGEST_DENSE
    return Truth(
        log_evidence=0.0,
        mean_1=np.zeros(d),
        cov_1=np.eye(d) if dense else None,
        log_normalizer=log_normalizer,
    )
