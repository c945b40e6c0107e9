"""Linear residuals, Gaussian stages, Gaussian data: every answer in closed form, at any d."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike

from generative.errors import InvalidInput
from generative.linear import LinearResiduals
from generative.model import TwoStageModel
from generative.problems.problem import LARGEST_DENSE, Problem, Truth
from generative.stages import GaussianStage
from generative.values import as_jax, require_integer


def linear_gaussian(
    d: int = 20,
    m: int | None = None,
    closed_form: bool = True,
    form: Literal["residuals", "disagreement"] = "residuals",
    first_scale: float = 1.0,
    second_scale: float = 0.5,
    agreement_strength: float = 20.0,
    noise: float = 0.5,
    num_observations: int | None = None,
    seed: int = 0,
) -> Problem:
    """C = |A theta - c|^2 / 2 (a sum over m constraints), L = log N(y; B theta, noise^2 I).

    Parameters
    ----------
    d, m : int
        Parameters, and constraints (d by default).
    closed_form : bool
        Whether inference may know that the residuals are linear. The truth is kept either way.
    form : {"residuals", "disagreement"}
        With ``closed_form=False``: what inference is given, r(theta) or C(theta) alone.
    first_scale, second_scale : float
    agreement_strength : float
    noise : float
        Standard deviation of the observations.
    num_observations : int
        d / 2, rounded up, by default.
    seed : int
        Of A, c, B and of the parameters that the data come from.
    """
    m = d if m is None else m
    sizes = {"d": d, "m": m}
    if num_observations is not None:
        sizes["num_observations"] = num_observations
    for name, value in sizes.items():
        require_integer(name, value, least=1)
    if not noise > 0:
        raise InvalidInput("noise", noise, "a number > 0")
    if form not in ("residuals", "disagreement"):
        raise InvalidInput("form", form, "residuals or disagreement")
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(m, d)) / np.sqrt(d)
    c = rng.normal(size=m) * 0.5
    num_observations = (d + 1) // 2 if num_observations is None else num_observations
    b = rng.normal(size=(num_observations, d)) / np.sqrt(d)
    y = b @ (first_scale * rng.normal(size=d)) + noise * rng.normal(size=num_observations)

    linear = LinearResiduals(a, c)

    agreement: dict = {"residuals": linear}
    if not closed_form and form == "residuals":
        agreement = {"residuals": Partial(_residuals, linear)}
    elif not closed_form:
        agreement = {"disagreement": Partial(_disagreement, linear)}

    model = TwoStageModel(
        theta_0=jnp.zeros(d),
        first_stage=GaussianStage(first_scale),
        second_stage=GaussianStage(second_scale),
        agreement_strength=agreement_strength,
        log_likelihood=Partial(_log_likelihood, as_jax(b), as_jax(y), noise),
        **agreement,
    )
    root = np.sqrt(agreement_strength)
    truth = _truth(
        np.full(d, first_scale**2), np.full(d, second_scale**2), root * a, root * c, b, y, noise**2
    )
    return Problem(
        "linear_gaussian", model, truth, "linear residuals, Gaussian everything; any d and m"
    )


# Not an instance of LinearResiduals, which inference would recognise.
def _residuals(linear: LinearResiduals, theta: Array) -> Array:
    return linear(theta)


def _disagreement(linear: LinearResiduals, theta: Array) -> Array:
    return 0.5 * jnp.sum(linear(theta) ** 2)


def _log_likelihood(b: Array, y: Array, noise: float, theta: Array) -> Array:
    error = (y - b @ theta) / noise
    return -0.5 * jnp.sum(error**2) - len(y) * np.log(noise * np.sqrt(2 * np.pi))


def _truth(
    s1: np.ndarray,
    s2: np.ndarray,
    a: np.ndarray,
    c: np.ndarray,
    b: np.ndarray,
    y: np.ndarray,
    noise_variance: float,
) -> Truth:
    m, d = a.shape
    capacitance = np.eye(m) + (a * s2) @ a.T
    inverse = np.linalg.inv(capacitance)
    log_det = np.linalg.slogdet(capacitance)[1]

    def log_normalizer(theta_1: ArrayLike) -> np.ndarray:
        r = np.asarray(theta_1) @ a.T - c
        return np.asarray(-0.5 * log_det - 0.5 * np.einsum("...i,ij,...j->...", r, inverse, r))

    if d > LARGEST_DENSE:
        return Truth(log_normalizer=log_normalizer)
    # Prior of (theta_1, theta_2) as one Gaussian (theta_0 = 0), then conditioned on y.
    sq = np.diag(s2) - (s2[:, None] * a.T) @ inverse @ (a * s2)
    gain = np.eye(d) - (s2[:, None] * a.T) @ inverse @ a
    mean = np.concatenate([np.zeros(d), s2 * (a.T @ (inverse @ c))])
    s1_gain = s1[:, None] * gain.T
    prior = np.block([[np.diag(s1), s1_gain], [s1_gain.T, sq + gain @ s1_gain]])
    design = np.hstack([np.zeros_like(b), b])
    innovation = noise_variance * np.eye(len(y)) + design @ prior @ design.T
    weight = np.linalg.solve(innovation, design @ prior).T
    error = y - design @ mean
    posterior_mean = mean + weight @ error
    posterior = prior - weight @ design @ prior
    log_evidence = -0.5 * (
        np.linalg.slogdet(2 * np.pi * innovation)[1] + error @ np.linalg.solve(innovation, error)
    )
    cov_1 = posterior[:d, :d]
    difference = np.hstack([-np.eye(d), np.eye(d)])
    expected_log_z = log_normalizer(posterior_mean[:d]) - 0.5 * np.sum(inverse * (a @ cov_1 @ a.T))
    return Truth(
        log_evidence=float(log_evidence),
        mean_1=posterior_mean[:d],
        mean_2=posterior_mean[d:],
        cov_1=cov_1,
        cov_2=posterior[d:, d:],
        cov_difference=difference @ posterior @ difference.T,
        log_normalizer=log_normalizer,
        bits_saved=float(-expected_log_z / np.log(2)),
    )
