"""HMC on (theta_1, theta_2) jointly, with a surrogate force and the exchange ratio.

The trajectory follows log p1 + log p2 - lambda C + L - log Z-hat, with Z-hat the surrogate's
normaliser. Leapfrog with any force that is a function of position alone preserves volume and is
reversible, so accepting by the exchange ratio of the *true* densities makes the kernel exact
whatever the surrogate; a poor one only lowers acceptance.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from generative import LinearGaussianAgreement, TwoStageModel
from inference.kernels.density import log_joint, share
from inference.kernels.exchange_kernel import ExchangeKernel, ExchangeState
from inference.kernels.reference_hmc import Phase, integrate, kinetic_energy

_TURN = 0.5 * jnp.pi


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

    def mean(self, origin: Float[Array, " d"]) -> Float[Array, " 2d"]:
        """Mean of both, given the initialisation."""
        return jnp.concatenate([origin, self.surrogate.mean(origin)])

    def fluctuation(self, key: jax.Array) -> Float[Array, " 2d"]:
        """Draw from the centred reference."""
        key_1, key_2 = jax.random.split(key)
        noise = jax.random.normal(key_1, self.variance_1.shape, self.variance_1.dtype)
        first = jnp.sqrt(self.variance_1) * noise
        return jnp.concatenate(
            [first, self.surrogate.gain(first) + self.surrogate.fluctuation(key_2)]
        )

    def covariance(self, x: Float[Array, " 2d"]) -> Float[Array, " 2d"]:
        """Sigma x."""
        first, second = jnp.split(x, 2)
        surrogate = self.surrogate
        gain_transposed = second - surrogate.low_rank(surrogate.variance * second)
        moved = self.variance_1 * (first + gain_transposed)
        return jnp.concatenate([moved, surrogate.gain(moved) + surrogate.covariance(second)])

    def precision(self, x: Float[Array, " 2d"]) -> Float[Array, " 2d"]:
        """Sigma^-1 x, for x in the range of Sigma."""
        first, second = jnp.split(x, 2)
        surrogate = self.surrogate
        moving = self.variance_1 > 0
        inverse = jnp.where(moving, 1 / jnp.where(moving, self.variance_1, 1), 0)
        innovation = surrogate.precision(second - surrogate.gain(first))
        gain_transposed = innovation - surrogate.low_rank(surrogate.variance * innovation)
        return jnp.concatenate([inverse * first - gain_transposed, innovation])


class ExchangeHMC(ExchangeKernel):
    """One trajectory for theta_1 and theta_2 together, accepted by the exchange ratio.

    Parameters are those of :class:`~inference.kernels.exchange_kernel.ExchangeKernel`;
    `step_1` of its tuning is the angle of one leapfrog step.
    """

    def _sweep(self, state: ExchangeState) -> ExchangeState:
        rng_key, key_length, key_velocity, key_settle = jax.random.split(state.rng_key, 4)
        model, tuning = self.model, state.tuning
        variance_1 = jnp.asarray(model.first_stage.variance, state.negative.dtype)
        reference = JointReference(tuning.metric_2, variance_1)
        force = jax.value_and_grad(lambda x: surrogate_density(model, tuning.transport, x))
        position = jnp.concatenate([state.z["theta_1"], state.z["theta_2"]])
        velocity = reference.fluctuation(key_velocity)
        length = _TURN * jax.random.uniform(key_length, (), position.dtype, 0.8, 1.2)
        step_size = tuning.step_1.value
        num_steps = jnp.clip(jnp.ceil(length / step_size), 1, self.max_num_steps).astype(int)
        end = integrate(
            force,
            Phase(position, velocity, *force(position)),
            reference.mean(model.space.origin),
            reference.covariance,
            jnp.minimum(step_size, length / num_steps),
            num_steps,
        )
        proposed_1, proposed_2 = jnp.split(end.position, 2)
        proposed_1 = jnp.where(model.moving_1, proposed_1, state.z["theta_1"])
        log_proposal = kinetic_energy(reference, velocity) - kinetic_energy(
            reference, end.velocity
        )
        state = self._settle(
            key_settle,
            state._replace(rng_key=rng_key),
            proposed_1,
            share(model, proposed_1, proposed_2),
            log_proposal,
        )
        state = state._replace(
            acceptance_rate_2=state.acceptance_rate,
            diverging=~jnp.isfinite(end.log_density),
            tuning=state.tuning._replace(step_2=state.tuning.step_1),
            i=state.i + 1,
        )
        return self._describe(state)


def surrogate_density(
    model: TwoStageModel, surrogate: LinearGaussianAgreement, both: Float[Array, " 2d"]
) -> Float[Array, ""]:
    """Log joint density with the surrogate's normaliser, nats."""
    theta_1, theta_2 = jnp.split(both, 2)
    theta_2 = share(model, theta_1, theta_2)
    return log_joint(model, theta_1, theta_2) - surrogate.log_normalizer(theta_1)
