"""Moves of (theta_1, theta_2) under the two-stage prior that stay where L exceeds a floor.

Hamiltonian trajectories under the prior, with a surrogate of log Z, bounce off the contour of L:
where a step ends outside, the velocity is reflected at the gradient of L there. The reflection is
an involution for a given position, so that trajectories are reversible and keep volume; one that
ends outside is rejected. Z(theta_1) cancels by the exchange ratio, as everywhere.

M. Betancourt, AIP Conf. Proc. 1305 (2011), doi:10.1063/1.3573613, reflects likewise; here the
reference is a Gaussian fitted to the live points, in whose coordinates the contour is rounder.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from generative import TwoStageModel
from inference.gaussians.joint import posterior_reference
from inference.kernels.exchange.hmc import surrogate_force
from inference.kernels.exchange.kernel import ExchangeKernel, Proposal
from inference.kernels.exchange.state import ExchangeState
from inference.kernels.negative import NegativeSampler
from inference.moves.accept import is_accepted
from inference.moves.density import log_agreeing, share
from inference.moves.reference_hmc import (
    LONGEST,
    SHORTEST,
    Reference,
    divided,
    integrate,
    kinetic_energy,
)

ValueAndGrad = Callable[[Array], tuple[Array, Array]]

# Nats, far below any error. Where L is -1e30, as users write it for "impossible", less than its
# tenth digit would be lost.
TIE_BREAK, _RELATIVE_TIE_BREAK = 1e-6, 1e-10
# Points where L is -infinity are worth nothing, but must still be told apart.
WORTHLESS = 1e300


def ranked(value: Float[Array, "..."], tie: Float[Array, "..."]) -> Float[Array, "..."]:
    """L with its ties broken by a coordinate in [0, 1], nats; -1e300 to -2e300 for -infinity."""
    return jnp.where(
        jnp.isneginf(value), -WORTHLESS * (2 - tie), value + _height_of_ties(value) * tie
    )


def redraw_tie(
    key: jax.Array, value: Float[Array, ""], floor: Float[Array, ""]
) -> Float[Array, ""]:
    """Draw the tie-breaking coordinate again, uniformly where it keeps a point above the floor."""
    above = (floor - value) / _height_of_ties(value)
    lowest = jnp.clip(jnp.where(jnp.isneginf(value), 2 + floor / WORTHLESS, above), 0, 1)
    return lowest + (1 - lowest) * jax.random.uniform(key, (), lowest.dtype)


def _height_of_ties(value: Float[Array, "..."]) -> Float[Array, "..."]:
    finite = jnp.where(jnp.isneginf(value), 0, value)
    return jnp.maximum(TIE_BREAK, _RELATIVE_TIE_BREAK * jnp.abs(finite))


class ConstrainedInfo(NamedTuple):
    """What one sweep did.

    Attributes
    ----------
    rate_second, rate_both : float arrays
        Acceptance of the two trajectories, by the surrogate's energy and the constraint.
    rate_exchange : float array
        Acceptance of the exchange.
    progress : float array
        Mean squared distance that the trajectory of both goes if it does not bounce, in units of
        twice the variance of its reference.
    num_failed : int array
        Negative samples that were not found.
    """

    rate_second: Float[Array | np.ndarray, ""]
    rate_both: Float[Array | np.ndarray, ""]
    rate_exchange: Float[Array | np.ndarray, ""]
    progress: Float[Array | np.ndarray, ""]
    num_failed: Int[Array | np.ndarray, ""]


class _End(NamedTuple):
    position: Float[Array, " n"]
    log_proposal: Float[Array, ""]  # reverse over forward, nats; -infinity outside
    log_accept: Float[Array, ""]  # by the energy that the trajectory followed


class ConstrainedHMC(ExchangeKernel):
    """A move of theta_2, then one trajectory of both, within {ranked L > floor}.

    Parameters
    ----------
    model : TwoStageModel
        Its L makes the constraint, and is no part of the target.
    negative : NegativeSampler
    max_num_steps : int
        Leapfrog steps of one trajectory, at most.
    floor : float array
        Of the ranked L, nats; may be traced.
    tie : float array
        Coordinate in [0, 1] that breaks ties of L.
    """

    full_model: TwoStageModel
    floor: Float[Array, ""]
    tie: Float[Array, ""]

    def __init__(
        self,
        model: TwoStageModel,
        negative: NegativeSampler,
        max_num_steps: int,
        floor: Float[Array, ""],
        tie: Float[Array, ""],
    ):
        super().__init__(model.temper(0.0), negative, max_num_steps=max_num_steps)
        self.full_model = model
        self.floor, self.tie = floor, tie

    def _sweep(self, state: ExchangeState) -> ExchangeState:
        return self.move(state)[0]

    def move(self, state: ExchangeState) -> tuple[ExchangeState, ConstrainedInfo]:
        """Make one sweep; with it, what step sizes adapt to."""
        rng_key, key_second, key_both, key_settle = jax.random.split(state.rng_key, 4)
        state = state._replace(rng_key=rng_key)
        rate_2 = jnp.ones((), state.negative.dtype)
        if self.model.moving_2.any():
            state, rate_2 = self._move_second_within(key_second, state)
        state, rate = self._move_both_within(key_both, key_settle, state)
        longest = self.max_num_steps * state.tuning.step_joint.value
        angle = jnp.minimum(state.tuning.step_1.value, longest)
        accepted = state.acceptance_rate
        progress = accepted * (1 - jnp.cos(angle))
        return state, ConstrainedInfo(rate_2, rate, accepted, progress, state.num_failed)

    def _move_second_within(
        self, key: jax.Array, state: ExchangeState
    ) -> tuple[ExchangeState, Array]:
        key_bounce, key_length, key_accept = jax.random.split(key, 3)
        theta_1, theta_2 = state.z["theta_1"], state.z["theta_2"]
        metric = state.tuning.metric_2
        end = self._bounce(
            key_bounce,
            theta_2,
            jax.value_and_grad(lambda theta: log_agreeing(self.model, theta_1, theta)),
            self._constraint,
            metric,
            metric.mean(theta_1),
            jax.random.uniform(key_length, (), theta_2.dtype, SHORTEST, LONGEST),
            state.tuning.step_2.value,
        )
        accept = is_accepted(key_accept, end.log_accept)
        theta_2 = jnp.where(accept, end.position, theta_2)
        rate = jnp.exp(jnp.minimum(end.log_accept, 0.0))
        return state._replace(z={"theta_1": theta_1, "theta_2": theta_2}), rate

    def _move_both_within(
        self, key: jax.Array, key_settle: jax.Array, state: ExchangeState
    ) -> tuple[ExchangeState, Array]:
        model, tuning = self.model, state.tuning
        key_bounce, key_length = jax.random.split(key)
        theta_1, theta_2 = state.z["theta_1"], state.z["theta_2"]
        jitter = jax.random.uniform(key_length, (), theta_1.dtype, 0.8, 1.2)
        reference = posterior_reference(tuning.variance_1, tuning.transport, tuning.likelihood)
        end = self._bounce(
            key_bounce,
            jnp.concatenate([theta_1, theta_2]),
            surrogate_force(model, tuning.normalizer),
            lambda both: self._constraint(share(model, *jnp.split(both, 2))),
            reference,
            reference.mean(model.space.origin),
            jitter * tuning.step_1.value,
            tuning.step_joint.value,
        )
        proposed_1, proposed_2 = jnp.split(end.position, 2)
        proposed_1 = jnp.where(model.moving_1, proposed_1, theta_1)
        proposed_2 = share(model, proposed_1, proposed_2)
        # What the surrogate of log Z accepted for its own density is settled for the true one.
        proposal = Proposal(proposed_1, proposed_2, end.log_proposal)
        state = self._settle(key_settle, state, proposal)
        return state, jnp.exp(jnp.minimum(end.log_accept, 0.0))

    def _constraint(self, theta_2: Float[Array, " d"]) -> Float[Array, ""]:
        return self.full_model.log_likelihood(theta_2)

    def _is_above(self, value: Float[Array, ""]) -> Bool[Array, ""]:
        return ranked(value.astype(self.floor.dtype), self.tie) > self.floor

    def _bounce(
        self,
        key: jax.Array,
        position: Float[Array, " n"],
        force: ValueAndGrad,
        constraint: Callable[[Array], Array],
        reference: Reference,
        mean: Float[Array, " n"],
        length: Float[Array, ""],
        step_size: Float[Array, ""],
    ) -> _End:
        """Follow a trajectory that bounces off the contour, without accepting its end."""
        step_size, num_steps = divided(length, step_size, self.max_num_steps)
        velocity = reference.fluctuation(key)

        def bounce(position: Array, velocity: Array) -> Array:
            value, normal = jax.value_and_grad(constraint)(position)
            pushed = reference.covariance(normal)
            norm = jnp.sum(normal * pushed)
            is_wall = ~self._is_above(value) & (norm > 0) & jnp.isfinite(norm)
            across = jnp.sum(normal * velocity) / jnp.where(is_wall, norm, 1)
            return jnp.where(is_wall, velocity - 2 * across * pushed, velocity)

        end = integrate(
            force, position, velocity, mean, reference.covariance, step_size, num_steps, bounce
        )
        log_proposal = kinetic_energy(reference, velocity)
        log_proposal -= kinetic_energy(reference, end.velocity)
        log_accept = end.log_density - end.log_density_start + log_proposal
        inside = self._is_above(constraint(end.position)) & ~jnp.isnan(log_accept)
        outside = jnp.full_like(log_accept, -jnp.inf)
        return _End(
            end.position,
            jnp.where(inside, log_proposal, outside),
            jnp.where(inside, log_accept, outside),
        )
