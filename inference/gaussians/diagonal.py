"""Gaussian references that know curvature coordinate by coordinate: O(d) memory, no rank.

They offer what :class:`~generative.LinearGaussianAgreement` and
:class:`~inference.gaussians.joint.PosteriorReference` offer, for networks too large for these.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from inference.moves.noise import standard_normal


class DiagonalConditional(eqx.Module):
    """theta_2 given theta_1 where lambda C has a diagonal Hessian.

    Parameters
    ----------
    curvature : array, shape (d,)
        Of lambda C, nats per squared unit; 0 knows nothing.
    variance : array, shape (d,)
        Second-stage variance S2; 0 is allowed.
    """

    curvature: Float[Array, " d"]
    variance: Float[Array, " d"]

    def low_rank(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """Minus the Hessian of log Z, times x."""
        return self.curvature * self.gain(x)

    def gain(self, shift: Float[Array, " d"]) -> Float[Array, " d"]:
        """How the mean of theta_2 follows a shift of theta_1."""
        return shift / (1 + self.variance * self.curvature)

    def covariance(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """Sq x."""
        return self.gain(self.variance * x)

    def fluctuation(self, key: jax.Array) -> Float[Array, " d"]:
        """Draw from N(0, Sq)."""
        noise = standard_normal(key, self.variance.size, self.variance.dtype)
        return jnp.sqrt(self.gain(self.variance)) * noise


class DiagonalJoint(eqx.Module):
    """theta_1 and theta_2 together: a 2 x 2 covariance per coordinate.

    The prior of the pair (theta_1 ~ p1, theta_2 by the conditional), conditioned on a likelihood
    with a diagonal Hessian. With both curvatures 0 it is the covariance of the two stages.

    Parameters
    ----------
    variance_1 : array, shape (d,)
        First-stage variance; 0 for constants.
    conditional : DiagonalConditional
    curvature : array, shape (d,)
        Of -L, nats per squared unit.
    """

    first: Float[Array, " d"]
    both: Float[Array, " d"]
    second: Float[Array, " d"]

    def __init__(
        self,
        variance_1: Float[Array, " d"],
        conditional: DiagonalConditional,
        curvature: Float[Array, " d"],
    ):
        gain = conditional.gain(jnp.ones_like(variance_1))
        both = gain * variance_1
        second = gain * both + conditional.gain(conditional.variance)
        shrunk = 1 / (1 + curvature * second)
        self.first = variance_1 - curvature * shrunk * both**2
        self.both, self.second = both * shrunk, second * shrunk

    def covariance(self, x: Float[Array, " two_d"]) -> Float[Array, " two_d"]:
        """Sigma x."""
        first, second = jnp.split(x, 2)
        return jnp.concatenate(
            [self.first * first + self.both * second, self.both * first + self.second * second]
        )

    def fluctuation(self, key: jax.Array) -> Float[Array, " two_d"]:
        """Draw from N(0, Sigma)."""
        keys = jax.random.split(key)
        noise = [standard_normal(k, self.second.size, self.second.dtype) for k in keys]
        # theta_2 varies wherever theta_1 does, so that this order divides by 0 only for 0 / 0.
        slope = self.both / jnp.where(self.second > 0, self.second, 1)
        second = jnp.sqrt(self.second) * noise[0]
        left = jnp.sqrt(jnp.maximum(self.first - slope * self.both, 0))
        return jnp.concatenate([slope * second + left * noise[1], second])
