"""A linear-Gaussian stand-in for a nonlinear agreement, fitted to draws and frozen.

It serves as transport, force and metric. None of these needs to be right for the kernels to be
exact; the better it is, the more they accept.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from generative import LinearGaussianAgreement, TwoStageModel

# Exact where d is small; beyond that products with the surrogate must not outweigh gradients.
_SMALL_DIMENSION, _RANK_WHEN_SMALL, _RANK_WHEN_LARGE = 256, 128, 32
_POWER_ITERATIONS = 3
_SMALLEST_RELATIVE_CURVATURE = 1e-8


class Potential(NamedTuple):
    """A function to stand in for, in nats, and its curvature.

    Attributes
    ----------
    value : callable
        theta -> scalar, such as lambda C.
    curvature : callable
        (theta, direction) -> curvature at theta times direction.
    """

    value: Callable[[Array], Array]
    curvature: Callable[[Array, Array], Array]


def agreement_potential(model: TwoStageModel) -> Potential:
    """Lambda C, with Gauss-Newton curvature where there are residuals, else the Hessian."""
    agreement = model.agreement

    def value(theta: Array) -> Array:
        return -agreement.log_factor(theta)

    residuals = agreement.residuals
    if residuals is None:
        return Potential(value, _hessian(value))

    def gauss_newton(theta: Array, direction: Array) -> Array:
        _, tangent = jax.jvp(residuals, (theta,), (direction,))
        _, pullback = jax.vjp(residuals, theta)
        return agreement.strength * pullback(tangent)[0]

    return Potential(value, gauss_newton)


def likelihood_potential(model: TwoStageModel) -> Potential:
    """-L."""

    def value(theta: Array) -> Array:
        return -model.log_likelihood(theta)

    return Potential(value, _hessian(value))


def posterior_potential(model: TwoStageModel) -> Potential:
    """Lambda C - L."""
    of_agreement = agreement_potential(model)
    if model.is_null:
        return of_agreement
    of_likelihood = likelihood_potential(model)
    return Potential(
        lambda theta: of_agreement.value(theta) + of_likelihood.value(theta),
        lambda theta, along: (
            of_agreement.curvature(theta, along) + of_likelihood.curvature(theta, along)
        ),
    )


def _hessian(fn: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda theta, direction: jax.jvp(jax.grad(fn), (theta,), (direction,))[1]


def rank(model: TwoStageModel) -> int:
    """Rank of a surrogate: d where that is small."""
    d = model.dimension
    return min(d, _RANK_WHEN_SMALL if d <= _SMALL_DIMENSION else _RANK_WHEN_LARGE)


def flat(model: TwoStageModel, num_rows: int = 0) -> LinearGaussianAgreement:
    """Return the surrogate that knows nothing: q(. | theta_1) is p2(. | theta_1)."""
    dtype = model.space.origin.dtype
    return LinearGaussianAgreement(
        jnp.zeros((num_rows, model.dimension), dtype),
        jnp.zeros(num_rows, dtype),
        model.second_stage.reference_variance,
    )


def fit(
    key: jax.Array,
    model: TwoStageModel,
    potential: Potential,
    draws: Float[Array, "n d"],
    num_points: int,
    num_rows: int | None = None,
) -> LinearGaussianAgreement:
    """Fit |A theta - c|^2 / 2 to a potential: mean curvature, and mean gradient at the mean draw.

    Matching the mean gradient makes the surrogate's conditional mean right on average, since
    draws of q(. | theta_1) balance it: E[grad lambda C] = (theta_1 - E[theta_2]) / S2. It also
    makes the fit exact, without noise, where the potential is quadratic.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    potential : Potential
    draws : array, shape (n, d)
        Of theta_2, or negative samples.
    num_points : int
        The curvature is averaged over so many of the draws.
    num_rows : int, optional
        Of A, at most; by default as :func:`rank` has it.
    """
    points = draws[:: max(1, len(draws) // num_points)][:num_points]
    number = rank(model) if num_rows is None else num_rows
    values, vectors, spread, inverse_spread = _curvatures(key, model, potential, points, number)
    usable = jnp.isfinite(values) & (values > _SMALLEST_RELATIVE_CURVATURE * jnp.max(values))
    root = jnp.sqrt(jnp.where(usable, jnp.maximum(values, 0), 0))
    matrix = root[:, None] * jnp.nan_to_num(vectors.T) * inverse_spread
    gradient = jnp.nan_to_num(jax.vmap(jax.grad(potential.value))(draws).mean(axis=0))
    slope = jnp.nan_to_num(vectors.T) @ (spread * gradient)
    offset = matrix @ draws.mean(axis=0) - jnp.where(
        root > 0, slope / jnp.where(root > 0, root, 1), 0
    )
    return LinearGaussianAgreement(matrix, offset, model.second_stage.reference_variance)


def curvature_rows(
    key: jax.Array,
    model: TwoStageModel,
    potential: Potential,
    point: Float[Array, " d"],
    num_rows: int,
) -> tuple[Float[Array, "r d"], Float[Array, "r d"]]:
    """Rows P and N with P'P - N'N the curvature at a point, but for what is beyond `num_rows`."""
    values, vectors, _, inverse_spread = _curvatures(key, model, potential, point[None], num_rows)
    rows = vectors.T * inverse_spread
    positive, negative = (jnp.sqrt(jnp.maximum(x, 0))[:, None] for x in (values, -values))
    return positive * rows, negative * rows


def _curvatures(
    key: jax.Array,
    model: TwoStageModel,
    potential: Potential,
    points: Float[Array, "n d"],
    num_rows: int,
) -> tuple[Float[Array, " r"], Float[Array, "d r"], Float[Array, " d"], Float[Array, " d"]]:
    """Leading eigenpairs of the mean curvature, whitened by the prior; its scales and inverse."""
    # Whitening by the prior makes "largest curvature" meaningful across blocks.
    spread = jnp.sqrt(model.first_stage.reference_variance + model.second_stage.reference_variance)
    inverse_spread = jnp.where(spread > 0, 1 / jnp.where(spread > 0, spread, 1), 0)

    def whitened(direction: Array) -> Array:
        along = jax.vmap(potential.curvature, (0, None))(points, spread * direction)
        return spread * jnp.mean(along, axis=0)

    number = min(num_rows, model.dimension)
    pairs = _leading_eigenpairs(key, whitened, model.dimension, number, points.dtype)
    return *pairs, spread, inverse_spread


def bounded(model: TwoStageModel, score: Float[Array, " d"]) -> Float[Array, " d"]:
    """A surrogate's gradient of log Z(theta_1), kept where that of log Z must lie.

    The gradient of log Z is a mean of gradients of log p2, which heavy tails bound. The surrogate's
    is not bounded, and would drive theta_1 to infinity against a prior that falls only
    exponentially, or slower.
    """
    bound = model.second_stage.score_bound
    return score if bound is None else jnp.clip(score, -bound, bound)


def _leading_eigenpairs(
    key: jax.Array, matvec: Callable[[Array], Array], dimension: int, rank: int, dtype: jnp.dtype
) -> tuple[Float[Array, " r"], Float[Array, "d r"]]:
    """Eigenpairs of largest magnitude, by randomised subspace iteration (exact when rank = d).

    N. Halko, P. G. Martinsson and J. A. Tropp, SIAM Review 53 (2011), doi:10.1137/090771806.
    """
    apply = jax.vmap(matvec, in_axes=1, out_axes=1)
    basis = jnp.linalg.qr(jax.random.normal(key, (dimension, rank), dtype))[0]
    num_iterations = 0 if rank == dimension else _POWER_ITERATIONS
    for _ in range(num_iterations):
        basis = jnp.linalg.qr(apply(basis))[0]
    projected = basis.T @ apply(basis)
    values, rotation = jnp.linalg.eigh(0.5 * (projected + projected.T))
    return values, basis @ rotation
