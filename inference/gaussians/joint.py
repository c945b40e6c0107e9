"""Gaussians on (theta_1, theta_2) jointly, by products with their covariance and its inverse."""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from generative import CentredGaussian, LinearGaussianAgreement, TwoStageModel

# Factors beyond these are those of chains that have not arrived.
_NARROWEST, _WIDEST = 0.1, 4.0
_NUM_HALVINGS = 20


class JointReference(CentredGaussian):
    """theta_1 ~ p1, theta_2 ~ the surrogate's conditional, as one Gaussian on vectors (2 d,).

    Parameters
    ----------
    surrogate : LinearGaussianAgreement
    variance_1 : array, shape (d,)
        First-stage variances; 0 for constants.
    """

    surrogate: LinearGaussianAgreement
    variance_1: Float[Array, " d"]

    def mean(self, origin: Float[Array, " d"]) -> Float[Array, " 2*d"]:
        """Mean of both, given the initialisation."""
        return jnp.concatenate([origin, self.surrogate.mean(origin)])

    @property
    def num_normals(self) -> int:
        """Standard normals that a draw takes."""
        return self.variance_1.size + self.surrogate.num_normals

    @property
    def dtype(self) -> jnp.dtype:
        """That of the variances."""
        return self.variance_1.dtype

    def colour(self, normals: Float[Array, " n"]) -> Float[Array, " two_d"]:
        """Turn standard normals into a draw from the centred reference."""
        first, second = jnp.split(normals, [self.variance_1.size])
        first = jnp.sqrt(self.variance_1) * first
        second = self.surrogate.gain(first) + self.surrogate.colour(second)
        return jnp.concatenate([first, second])

    def covariance(self, x: Float[Array, " two_d"]) -> Float[Array, " two_d"]:
        """Sigma x."""
        first, second = jnp.split(x, 2)
        surrogate = self.surrogate
        gain_transposed = second - surrogate.low_rank(surrogate.variance * second)
        moved = self.variance_1 * (first + gain_transposed)
        return jnp.concatenate([moved, surrogate.gain(moved) + surrogate.covariance(second)])

    def precision(self, x: Float[Array, " two_d"]) -> Float[Array, " two_d"]:
        """Sigma^-1 x, for x in the range of Sigma."""
        first, second = jnp.split(x, 2)
        surrogate = self.surrogate
        moving = self.variance_1 > 0
        inverse = jnp.where(moving, 1 / jnp.where(moving, self.variance_1, 1), 0)
        innovation = surrogate.precision(second - surrogate.gain(first))
        gain_transposed = innovation - surrogate.low_rank(surrogate.variance * innovation)
        return jnp.concatenate([inverse * first - gain_transposed, innovation])


class PosteriorReference(CentredGaussian):
    """The joint reference, conditioned on a quadratic stand-in for L: Matheron's rule again.

    With all surrogates exact this *is* the posterior of a linear-Gaussian model.

    Parameters
    ----------
    prior : JointReference
    likelihood : LinearGaussianAgreement
        -L is about |A theta_2 - c|^2 / 2.
    """

    prior: JointReference
    likelihood: LinearGaussianAgreement
    weight: Float[Array, "m two_d"]
    inverse_root: Float[Array, "m m"]

    def __init__(self, prior: JointReference, likelihood: LinearGaussianAgreement):
        self.prior, self.likelihood = prior, likelihood
        design = jnp.concatenate([jnp.zeros_like(likelihood.A), likelihood.A], axis=1)
        response = jax.vmap(prior.covariance)(design)
        identity = jnp.eye(len(design), dtype=design.dtype)
        root = jnp.linalg.cholesky(identity + response @ design.T)
        self.inverse_root = solve_triangular(root, identity, lower=True)
        self.weight = self.inverse_root @ response

    @property
    def variance_of_first(self) -> Float[Array, " d"]:
        """Variance of theta_1, coordinate by coordinate."""
        moved = jnp.split(self.weight, 2, axis=1)[0]
        return self.prior.variance_1 - jnp.sum(moved**2, axis=0)

    def _predict(self, x: Float[Array, " two_d"]) -> Float[Array, " m"]:
        return self.likelihood.A @ jnp.split(x, 2)[1]

    def mean(self, origin: Float[Array, " d"]) -> Float[Array, " 2*d"]:
        """Mean of both, given the initialisation and the data."""
        mean = self.prior.mean(origin)
        error = self.likelihood.c - self._predict(mean)
        return mean + self.weight.T @ (self.inverse_root @ error)

    @property
    def num_normals(self) -> int:
        """Standard normals that a draw takes."""
        return self.prior.num_normals + self.likelihood.c.size

    @property
    def dtype(self) -> jnp.dtype:
        """That of the prior."""
        return self.prior.dtype

    def colour(self, normals: Float[Array, " n"]) -> Float[Array, " two_d"]:
        """Turn standard normals into a draw from the centred reference."""
        of_prior, noise = jnp.split(normals, [self.prior.num_normals])
        x = self.prior.colour(of_prior)
        return x - self.weight.T @ (self.inverse_root @ (self._predict(x) + noise))

    def covariance(self, x: Float[Array, " two_d"]) -> Float[Array, " two_d"]:
        """Sigma x."""
        return self.prior.covariance(x) - self.weight.T @ (self.weight @ x)

    def precision(self, x: Float[Array, " two_d"]) -> Float[Array, " two_d"]:
        """Sigma^-1 x, for x in the range of Sigma."""
        pull = self.likelihood.A.T @ self._predict(x)
        return self.prior.precision(x) + jnp.concatenate([jnp.zeros_like(pull), pull])


def posterior_reference(
    variance_1: Float[Array, " d"],
    transport: LinearGaussianAgreement,
    likelihood: LinearGaussianAgreement,
) -> PosteriorReference:
    """Reference of a model's posterior, by the stand-ins for its agreement and its likelihood."""
    return PosteriorReference(JointReference(transport, variance_1), likelihood)


def first_variance(model: TwoStageModel) -> Float[Array, " d"]:
    """Variance of theta_1 under p1."""
    return jnp.asarray(model.first_stage.reference_variance, model.space.origin.dtype)


def matched_variance(
    model: TwoStageModel,
    transport: LinearGaussianAgreement,
    likelihood: LinearGaussianAgreement,
    theta_1: Float[Array, "n d"],
) -> Float[Array, " d"]:
    """p1's variance, scaled so that a reference is as wide as draws of theta_1, by one factor.

    Where q has several basins log Z curves by what lies between them, which the stand-in, curved as
    C is within basins, does not know. A quarter turn of a reference that is too wide overshoots:
    means alternate, and squares hardly change. Any width leaves the kernel exact.

    Parameters
    ----------
    model : TwoStageModel
    transport, likelihood : LinearGaussianAgreement
    theta_1 : array, shape (n, d)
    """
    variance_1 = first_variance(model)
    unit = jnp.where(variance_1 > 0, variance_1, 1)
    found = jnp.sum(theta_1.var(axis=0) / unit)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        scaled = jnp.exp(middle) * variance_1
        reference = posterior_reference(scaled, transport, likelihood)
        is_narrow = jnp.sum(reference.variance_of_first / unit) < found
        return jnp.where(is_narrow, middle, low), jnp.where(is_narrow, high, middle)

    # The reference's variances grow with the factor, less where data hold theta_1.
    bounds = jnp.log(jnp.asarray([_NARROWEST, _WIDEST], theta_1.dtype))
    low, high = jax.lax.fori_loop(0, _NUM_HALVINGS, halve, (bounds[0], bounds[1]))
    return variance_1 * jnp.exp((low + high) / 2)
