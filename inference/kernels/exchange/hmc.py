"""HMC on (theta_1, theta_2) jointly, with a surrogate force and the exchange ratio.

The trajectory follows log p1 + log p2 - lambda C + L - log Z-hat, with Z-hat the surrogate's
normaliser. Leapfrog with any force that is a function of position alone preserves volume and is
reversible, so accepting by the exchange ratio of the *true* densities makes the kernel exact
whatever the surrogate; a poor one only lowers acceptance.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from generative import TwoStageModel
from inference.gaussians.joint import posterior_reference
from inference.kernels.exchange.kernel import ExchangeKernel, Proposal
from inference.kernels.exchange.learned import NormalizerSurrogate
from inference.kernels.exchange.state import ExchangeState
from inference.moves.density import log_joint, share
from inference.moves.reference_hmc import DIVERGENCE, divided, integrate, kinetic_energy

_TARGET_SURROGATE = 0.9


class ExchangeHMC(ExchangeKernel):
    """A move of theta_2, then one trajectory of both, accepted by the exchange ratio.

    Parameters are those of :class:`~inference.kernels.exchange.kernel.ExchangeKernel`. Warm-up
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
        reference = posterior_reference(tuning.variance_1, tuning.transport, tuning.likelihood)
        position = jnp.concatenate([state.z["theta_1"], state.z["theta_2"]])
        velocity = reference.fluctuation(key_velocity)
        length = tuning.step_1.value * jax.random.uniform(key_length, (), origin.dtype, 0.8, 1.2)
        step_size, num_steps = divided(length, tuning.step_joint.value, self.max_num_steps)
        end = integrate(
            surrogate_force(model, tuning.normalizer),
            position,
            velocity,
            reference.mean(origin),
            reference.covariance,
            step_size,
            num_steps,
        )
        log_proposal = kinetic_energy(reference, velocity) - kinetic_energy(reference, end.velocity)
        surrogate_gain = end.log_density - end.log_density_start + log_proposal
        rate = jnp.exp(jnp.minimum(jnp.nan_to_num(surrogate_gain, nan=-jnp.inf), 0.0))
        step_joint = self._adapted(state, tuning.step_joint, rate, _TARGET_SURROGATE)
        is_refused = is_divergent(surrogate_gain, state.i < state.num_warmup)
        log_proposal = jnp.where(is_refused, -jnp.inf, log_proposal)
        proposed_1, proposed_2 = jnp.split(end.position, 2)
        proposed_1 = jnp.where(model.moving_1, proposed_1, state.z["theta_1"])
        state = state._replace(rng_key=rng_key, tuning=tuning._replace(step_joint=step_joint))
        proposed_2 = share(model, proposed_1, proposed_2)
        state = self._settle(key_settle, state, Proposal(proposed_1, proposed_2, log_proposal))
        return self._describe(state._replace(i=state.i + 1))


def is_divergent(surrogate_gain: Float[Array, ""], is_warmup: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether the surrogate's energy is off by so much that a trajectory must not be tried.

    Far outside, a negative sample that has not arrived gives a ratio of normalisers as huge as the
    loss of density, and of either sign. The trajectory back has the same error with its sign
    turned, so that refusing both keeps the law; only in warm-up may a poor start gain so much.
    """
    is_lost = ~(surrogate_gain > -DIVERGENCE)  # NaN, too
    return is_lost | ((surrogate_gain > DIVERGENCE) & ~is_warmup)


def surrogate_force(
    model: TwoStageModel, surrogate: NormalizerSurrogate
) -> Callable[[Array], tuple[Array, Array]]:
    """Log joint density with the surrogate's normaliser (nats), and the field that kicks follow."""
    last = model.dimension

    def log_density(both: Array) -> Array:
        theta_1, theta_2 = jnp.split(both, 2)
        return log_joint(model, theta_1, share(model, theta_1, theta_2))

    def force(both: Float[Array, " two_d"]) -> tuple[Array, Array]:
        value, gradient = jax.value_and_grad(log_density)(both)
        theta_1 = both[:last]
        field = gradient.at[:last].add(-surrogate.score(model, theta_1))
        return value - surrogate.log_normalizer(theta_1), field

    return force
