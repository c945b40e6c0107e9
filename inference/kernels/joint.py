"""HMC on (theta_1, theta_2) jointly, with a surrogate force and the exchange ratio.

The trajectory follows log p1 + log p2 - lambda C + L - log Z-hat, with Z-hat the surrogate's
normaliser. Leapfrog with any force that is a function of position alone preserves volume and is
reversible, so accepting by the exchange ratio of the *true* densities makes the kernel exact
whatever the surrogate; a poor one only lowers acceptance.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from generative import LinearGaussianAgreement, TwoStageModel
from inference.kernels.density import log_joint, share
from inference.kernels.exchange_kernel import ExchangeKernel
from inference.kernels.exchange_state import ExchangeState
from inference.kernels.reference_hmc import integrate, kinetic_energy
from inference.kernels.surrogate import score

_TARGET_SURROGATE = 0.9


class JointReference(eqx.Module):
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

    def fluctuation(self, key: jax.Array) -> Float[Array, " two_d"]:
        """Draw from the centred reference."""
        key_1, key_2 = jax.random.split(key)
        noise = jax.random.normal(key_1, self.variance_1.shape, self.variance_1.dtype)
        first = jnp.sqrt(self.variance_1) * noise
        return jnp.concatenate(
            [first, self.surrogate.gain(first) + self.surrogate.fluctuation(key_2)]
        )

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


class PosteriorReference(eqx.Module):
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

    def _predict(self, x: Float[Array, " two_d"]) -> Float[Array, " m"]:
        return self.likelihood.A @ jnp.split(x, 2)[1]

    def mean(self, origin: Float[Array, " d"]) -> Float[Array, " 2*d"]:
        """Mean of both, given the initialisation and the data."""
        mean = self.prior.mean(origin)
        error = self.likelihood.c - self._predict(mean)
        return mean + self.weight.T @ (self.inverse_root @ error)

    def fluctuation(self, key: jax.Array) -> Float[Array, " two_d"]:
        """Draw from the centred reference."""
        key_prior, key_noise = jax.random.split(key)
        x = self.prior.fluctuation(key_prior)
        noise = jax.random.normal(key_noise, self.likelihood.c.shape, x.dtype)
        return x - self.weight.T @ (self.inverse_root @ (self._predict(x) + noise))

    def covariance(self, x: Float[Array, " two_d"]) -> Float[Array, " two_d"]:
        """Sigma x."""
        return self.prior.covariance(x) - self.weight.T @ (self.weight @ x)

    def precision(self, x: Float[Array, " two_d"]) -> Float[Array, " two_d"]:
        """Sigma^-1 x, for x in the range of Sigma."""
        pull = self.likelihood.A.T @ self._predict(x)
        return self.prior.precision(x) + jnp.concatenate([jnp.zeros_like(pull), pull])


class ExchangeHMC(ExchangeKernel):
    """A move of theta_2, then one trajectory of both, accepted by the exchange ratio.

    Parameters are those of :class:`~inference.kernels.exchange_kernel.ExchangeKernel`. Warm-up
    adapts the leapfrog step to the surrogate energy's error, and the length of the trajectory
    (`step_1`, at most a quarter turn) to the exchange's acceptance.
    """

    def _sweep(self, state: ExchangeState) -> ExchangeState:
        rng_key, key_second, key_length, key_velocity, key_settle = jax.random.split(
            state.rng_key, 5
        )
        model = self.model
        if model.moving_2.any():
            state = self._move_second(key_second, state)
        tuning = state.tuning
        origin = model.space.origin
        variance_1 = jnp.asarray(model.first_stage.reference_variance, origin.dtype)
        reference = PosteriorReference(
            JointReference(tuning.transport, variance_1), tuning.likelihood
        )
        position = jnp.concatenate([state.z["theta_1"], state.z["theta_2"]])
        velocity = reference.fluctuation(key_velocity)
        length = tuning.step_1.value * jax.random.uniform(key_length, (), origin.dtype, 0.8, 1.2)
        steps = jnp.ceil(length / tuning.step_joint.value)
        steps = jnp.clip(steps, 1, self.max_num_steps)
        end = integrate(
            surrogate_force(model, tuning.transport),
            position,
            velocity,
            reference.mean(origin),
            reference.covariance,
            jnp.minimum(tuning.step_joint.value, length / steps),
            steps.astype(int),
        )
        log_proposal = kinetic_energy(reference, velocity) - kinetic_energy(reference, end.velocity)
        surrogate_gain = end.log_density - end.log_density_start + log_proposal
        rate = jnp.exp(jnp.minimum(jnp.nan_to_num(surrogate_gain, nan=-jnp.inf), 0.0))
        step_joint = self._adapted(state, tuning.step_joint, rate, _TARGET_SURROGATE)
        proposed_1, proposed_2 = jnp.split(end.position, 2)
        proposed_1 = jnp.where(model.moving_1, proposed_1, state.z["theta_1"])
        state = state._replace(rng_key=rng_key, tuning=tuning._replace(step_joint=step_joint))
        state = self._settle(
            key_settle, state, proposed_1, share(model, proposed_1, proposed_2), log_proposal
        )
        return self._describe(state._replace(i=state.i + 1))


def surrogate_force(
    model: TwoStageModel, surrogate: LinearGaussianAgreement
) -> Callable[[Array], tuple[Array, Array]]:
    """Log joint density with the surrogate's normaliser (nats), and the field that kicks follow."""
    last = model.dimension

    def log_density(both: Array) -> Array:
        theta_1, theta_2 = jnp.split(both, 2)
        return log_joint(model, theta_1, share(model, theta_1, theta_2))

    def force(both: Float[Array, " two_d"]) -> tuple[Array, Array]:
        value, gradient = jax.value_and_grad(log_density)(both)
        theta_1 = both[:last]
        field = gradient.at[:last].add(-score(model, surrogate, theta_1))
        return value - surrogate.log_normalizer(theta_1), field

    return force
