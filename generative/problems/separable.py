"""Exact answers where every coordinate is a model of its own: one-dimensional quadratures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float
from scipy.special import logsumexp

from generative.problems.problem import Truth

# Integrals reach so many prior standard deviations of theta_2 to either side of theta_0.
_REACH = 8.0
# The trapezoid rule converges exponentially for smooth, decaying integrands: with five points per
# narrowest standard deviation, doubling the resolution moves nothing beyond 1e-12.
_POINTS_PER_WIDTH = 5
_LARGEST_BLOCK = 4_000_000


@dataclass(frozen=True)
class Coordinate:
    """A model of one parameter, apart from all others.

    Attributes
    ----------
    penalty : callable
        lambda C(t), nats, of an array; smooth.
    log_likelihood : callable
        L(t), nats, of an array; smooth.
    first_scale, second_scale : float
        Standard deviations of the Gaussian stages.
    theta_0 : float
    narrowest : float
        Standard deviation of the narrowest feature of any density, which sets the resolution.
    """

    penalty: Callable[[np.ndarray], np.ndarray]
    log_likelihood: Callable[[np.ndarray], np.ndarray]
    first_scale: float
    second_scale: float
    theta_0: float
    narrowest: float

    def grid(self, refinement: int = 1) -> Float[np.ndarray, " point"]:
        """Evenly spaced points, `refinement` times as many as are needed."""
        half = _REACH * np.hypot(self.first_scale, self.second_scale)
        number = refinement * int(np.ceil(2 * half * _POINTS_PER_WIDTH / self.narrowest)) + 1
        return self.theta_0 + np.linspace(-half, half, number)


class Moments(NamedTuple):
    """Posterior of one coordinate; nats and bits."""

    log_evidence: float
    mean_1: float
    variance_1: float
    mean_2: float
    variance_2: float
    variance_difference: float
    bits_saved: float


def separable_truth(
    coordinates: Sequence[Coordinate], rotation: Float[np.ndarray, "d d"] | None = None
) -> Truth:
    """Return the truth of coordinates that lie along the rows of a rotation, or along the axes.

    Parameters
    ----------
    coordinates : sequence of Coordinate
        Equal ones, by identity of their functions, are integrated once.
    rotation : array, shape (d, d), optional
        Row i is the direction of coordinate i.
    """
    rotation = np.eye(len(coordinates)) if rotation is None else rotation
    found = {coordinate: moments(coordinate) for coordinate in dict.fromkeys(coordinates)}
    # One row per field of Moments, one column per coordinate.
    table = np.array([found[coordinate] for coordinate in coordinates]).T
    evidence, mean_1, variance_1, mean_2, variance_2, variance_difference, bits_saved = table

    def log_z(theta_1: ArrayLike) -> np.ndarray:
        along = np.moveaxis(np.asarray(theta_1) @ rotation.T, -1, 0)
        pairs = zip(coordinates, along, strict=True)
        return np.asarray(np.sum([log_normalizer(*pair) for pair in pairs], axis=0))

    def covariance(variance: np.ndarray) -> np.ndarray:
        return (rotation.T * variance) @ rotation

    return Truth(
        log_evidence=float(evidence.sum()),
        mean_1=rotation.T @ mean_1,
        mean_2=rotation.T @ mean_2,
        cov_1=covariance(variance_1),
        cov_2=covariance(variance_2),
        cov_difference=covariance(variance_difference),
        log_normalizer=log_z,
        bits_saved=float(bits_saved.sum()),
    )


def log_normalizer(
    coordinate: Coordinate, theta_1: ArrayLike, refinement: int = 1
) -> Float[np.ndarray, "..."]:
    """Return log Z(theta_1) of one coordinate, nats, for an array of any shape."""
    b = coordinate.grid(refinement)
    inner = coordinate.penalty(b) - np.log(b[1] - b[0])
    flat = np.ravel(theta_1)
    blocks = np.array_split(flat, 1 + len(flat) * len(b) // _LARGEST_BLOCK)
    log_z = [
        logsumexp(_log_normal(b - a[:, None], coordinate.second_scale) - inner, axis=1)
        for a in blocks
    ]
    return np.concatenate(log_z).reshape(np.shape(theta_1))


def moments(coordinate: Coordinate, refinement: int = 1) -> Moments:
    """Return the posterior's moments of one coordinate, by quadrature over (theta_1, theta_2).

    Parameters
    ----------
    coordinate : Coordinate
    refinement : int
        Of both grids.
    """
    grid = coordinate.grid(refinement)
    log_cell = 2 * np.log(grid[1] - grid[0])
    a, b = grid[:, None], grid[None, :]
    log_z = log_normalizer(coordinate, grid, refinement)[:, None]
    log_joint = (
        _log_normal(a - coordinate.theta_0, coordinate.first_scale)
        - log_z
        + _log_normal(b - a, coordinate.second_scale)
        - coordinate.penalty(b)
        + coordinate.log_likelihood(b)
    )
    log_evidence = logsumexp(log_joint) + log_cell
    weight = np.exp(log_joint + log_cell - log_evidence)
    mean_1, mean_2 = np.sum(weight * a), np.sum(weight * b)
    return Moments(
        float(log_evidence),
        float(mean_1),
        float(np.sum(weight * (a - mean_1) ** 2)),
        float(mean_2),
        float(np.sum(weight * (b - mean_2) ** 2)),
        float(np.sum(weight * (b - a - mean_2 + mean_1) ** 2)),
        float(-np.sum(weight * log_z) / np.log(2)),
    )


def _log_normal(x: np.ndarray, scale: float) -> np.ndarray:
    return -0.5 * (x / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi))
