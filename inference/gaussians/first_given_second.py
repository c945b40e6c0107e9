"""The Gaussian reference for theta_1 given theta_2, under a surrogate of log Z.

With log Z replaced by the surrogate's, theta_1 | theta_2 has precision
S1^-1 + S2^-1 - A' K^-1 A with K = I + A S2 A'. Its inverse is a sum of two positive terms,
T + T A' N^-1 A T with T = (S1^-1 + S2^-1)^-1 and N = K - A T A' = I + A (S2 - T) A', so that draws
need one m x m Cholesky factor. Coordinates that theta_2 shares with theta_1 (second-stage scale 0)
keep their first-stage prior as reference; coordinates that are constants stay where they are.
"""

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from generative import CentredGaussian, LinearGaussianAgreement, TwoStageModel


class FirstGivenSecond(CentredGaussian):
    """N(mean(theta_2), P^-1), the reference for moves of theta_1.

    Parameters
    ----------
    model : TwoStageModel
    surrogate : LinearGaussianAgreement
    """

    surrogate: LinearGaussianAgreement
    origin: Float[Array, " d"]
    inverse_1: Float[Array, " d"]
    inverse_2: Float[Array, " d"]
    variance: Float[Array, " d"]
    shared: Float[Array, " d"]
    root_A: Float[Array, "m d"]

    def __init__(self, model: TwoStageModel, surrogate: LinearGaussianAgreement):
        dtype = surrogate.A.dtype
        moving, both = model.moving_1, model.moving_1 & model.moving_2
        s1 = jnp.asarray(model.first_stage.reference_variance, dtype)
        s2 = surrogate.variance
        self.surrogate = surrogate
        self.origin = model.space.origin
        self.inverse_1 = jnp.where(moving, 1 / jnp.where(moving, s1, 1), 0)
        self.inverse_2 = jnp.where(both, 1 / jnp.where(both, s2, 1), 0)
        self.variance = jnp.where(both, s1 * s2 / jnp.where(both, s1 + s2, 1), 0)
        self.shared = jnp.where(moving & ~model.moving_2, s1, 0)
        a = surrogate.A
        noise = jnp.eye(len(a), dtype=dtype) + (a * (s2 - self.variance)) @ a.T
        self.root_A = solve_triangular(jnp.linalg.cholesky(noise), a, lower=True)

    def mean(self, theta_2: Float[Array, " d"]) -> Float[Array, " d"]:
        """Mean of theta_1 given theta_2."""
        push = self.inverse_2 * (theta_2 - self.origin) - self.surrogate.score(self.origin)
        return self.origin + self._solve(push)

    def _solve(self, x: Array) -> Array:
        t = self.variance
        return t * x + t * (self.root_A.T @ (self.root_A @ (t * x)))

    def covariance(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """P^-1 x."""
        return self._solve(x) + self.shared * x

    def precision(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """P x, for x that is 0 where theta_1 is constant."""
        both = self.variance > 0
        low_rank = self.surrogate.low_rank(jnp.where(both, x, 0))
        return (self.inverse_1 + self.inverse_2) * x - jnp.where(both, low_rank, 0)

    @property
    def num_normals(self) -> int:
        """Standard normals that a draw from N(0, P^-1) takes: d + m."""
        return self.variance.size + len(self.root_A)

    @property
    def dtype(self) -> jnp.dtype:
        """That of the variances."""
        return self.variance.dtype

    def colour(self, normals: Float[Array, " n"]) -> Float[Array, " d"]:
        """Turn standard normals into a draw from N(0, P^-1)."""
        t = self.variance
        diagonal, noise = jnp.split(normals, [t.size])
        return jnp.sqrt(t + self.shared) * diagonal + t * (self.root_A.T @ noise)
