"""Hamiltonian Monte Carlo that solves a Gaussian reference exactly and kicks for the rest.

The target is N(x; mean, Sigma) exp(phi(x)). The Gaussian part is a rotation of (x - mean, v) with
v ~ N(0, Sigma); phi only gives kicks. The step is an angle: pi / 2 forgets the start where the
target *is* the reference, in any dimension, and directions in which the reference is right cost
no accuracy. Only products with Sigma and its inverse are needed, never a d x d matrix.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Bool, Float, Int

from inference.moves.accept import is_accepted_by

# Length of a trajectory: around a quarter turn, jittered so that no direction is periodic.
SHORTEST, LONGEST = 0.8 * jnp.pi / 2, 1.2 * jnp.pi / 2
DIVERGENCE = 1000.0  # nats of energy error, NumPyro's and Stan's threshold


@runtime_checkable
class Reference(Protocol):
    """A centred Gaussian by its products: what :class:`LinearGaussianAgreement` offers."""

    @property
    def num_normals(self) -> int:
        """Standard normals that a draw takes."""

    def colour(self, normals: Array) -> Array:
        """Turn standard normals into a draw from N(0, Sigma)."""

    def fluctuation(self, key: jax.Array) -> Array:
        """Draw from N(0, Sigma)."""

    def covariance(self, x: Array) -> Array:
        """Sigma x."""

    def precision(self, x: Array) -> Array:
        """Sigma^-1 x."""


class Trajectory(NamedTuple):
    """The end of a trajectory; log densities at both ends, nats, and the last force."""

    position: Float[Array, " d"]
    velocity: Float[Array, " d"]
    log_density: Float[Array, ""]
    gradient: Float[Array, " d"]
    log_density_start: Float[Array, ""]


class MoveInfo(NamedTuple):
    """What one trajectory did.

    Attributes
    ----------
    acceptance_rate : float array
        Probability of acceptance of this proposal.
    diverging : bool array
        Whether the integrator broke down: a position or force that is not finite, or a finite
        energy error above 1000 nats.
    num_steps : int array
    """

    acceptance_rate: Float[Array, ""]
    diverging: Bool[Array, ""]
    num_steps: Int[Array, ""]


def kinetic_energy(reference: Reference, velocity: Float[Array, " d"]) -> Float[Array, ""]:
    """Half of v' Sigma^-1 v, nats; infinite where that overflows, be it to NaN or -infinity."""
    energy = 0.5 * jnp.sum(velocity * reference.precision(velocity))
    return jnp.where(jnp.isfinite(energy), energy, jnp.inf)


def divided(
    length: Float[Array, ""], step_size: Float[Array, ""], max_num_steps: int
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Equal steps of a trajectory, no larger than `step_size`, and how many; too many are cut."""
    steps = jnp.clip(jnp.ceil(length / step_size), 1, max_num_steps)
    return jnp.minimum(step_size, length / steps), steps.astype(int)


def integrate(
    value_and_grad_fn: Callable[[Array], tuple[Array, Array]],
    position: Float[Array, " d"],
    velocity: Float[Array, " d"],
    mean: Float[Array, " d"],
    covariance: Callable[[Array], Array],
    step_size: Float[Array, ""],
    num_steps: Int[Array, ""] | int,
    bounce_fn: Callable[[Array, Array], Array] | None = None,
) -> Trajectory:
    """Kick, rotate, kick: reversible and volume preserving for any force.

    The force is compiled in one place: the loop visits the start and the end of every step, where
    half a kick ends one step and half begins the next.

    Parameters
    ----------
    value_and_grad_fn : callable
        Log density (nats) of a position, and the force, its gradient or any other field.
    position, velocity : arrays, shape (d,)
    mean : array, shape (d,)
    covariance : callable
        x -> Sigma x.
    step_size : float array
        Angle of one step, radians.
    num_steps : int, or int array
    bounce_fn : callable, optional
        (position, velocity) -> velocity, between two steps.
    """
    cos, sin = jnp.cos(step_size), jnp.sin(step_size)

    def visit(index: Array, at: Trajectory) -> Trajectory:
        value, gradient = value_and_grad_fn(at.position)
        centred = at.position - mean
        # Sigma grad phi(x), since grad log N(x; mean, Sigma) = -Sigma^-1 (x - mean).
        half = 0.5 * step_size * (covariance(gradient) + centred)
        is_start, is_end = index == 0, index == num_steps
        velocity = jnp.where(is_start, at.velocity, at.velocity + half)
        if bounce_fn is not None:
            bounced = bounce_fn(at.position, velocity)
            velocity = jnp.where(is_start | is_end, velocity, bounced)
        kicked = velocity + half
        return Trajectory(
            jnp.where(is_end, at.position, mean + cos * centred + sin * kicked),
            jnp.where(is_end, velocity, cos * kicked - sin * centred),
            value,
            gradient,
            jnp.where(is_start, value, at.log_density_start),
        )

    value, gradient = jax.eval_shape(value_and_grad_fn, position)
    zero = jnp.zeros((), value.dtype)
    start = Trajectory(position, velocity, zero, jnp.zeros(gradient.shape, gradient.dtype), zero)
    return jax.lax.fori_loop(0, num_steps + 1, visit, start)


def reference_hmc(
    key: jax.Array,
    position: Float[Array, " d"],
    logdensity_fn: Callable[[Array], Array],
    reference: Reference,
    mean: Float[Array, " d"],
    step_size: Float[Array, ""],
    max_num_steps: int,
) -> tuple[Float[Array, " d"], MoveInfo]:
    """Make one Metropolis-corrected trajectory that leaves exp(logdensity_fn) invariant.

    Parameters
    ----------
    key : PRNG key
    position : array, shape (d,)
    logdensity_fn : callable
        Log density in nats, up to a constant.
    reference : Reference
    mean : array, shape (d,)
        Of the reference.
    step_size : float array
        Largest angle of one step, radians. Too large: nothing is accepted. Too small:
        `max_num_steps` cuts the trajectory short of a quarter turn and the chain diffuses.
    max_num_steps : int
    """
    # All at once: with few chains calls of the generator took half of the time of a move.
    normals = jax.random.normal(key, (2 + reference.num_normals,), position.dtype)
    length = SHORTEST + (LONGEST - SHORTEST) * ndtr(normals[0])
    step_size, num_steps = divided(length, step_size, max_num_steps)
    velocity = reference.colour(normals[2:])
    end = integrate(
        jax.value_and_grad(logdensity_fn),
        position,
        velocity,
        mean,
        reference.covariance,
        step_size,
        num_steps,
    )
    gain = end.log_density - end.log_density_start
    gain -= kinetic_energy(reference, end.velocity) - kinetic_energy(reference, velocity)
    # A start outside the support (an indicator C can put it there) must not freeze the chain.
    log_accept = jnp.where(jnp.isnan(gain), -jnp.inf, gain)
    accept = is_accepted_by(normals[1], log_accept)
    info = MoveInfo(jnp.exp(jnp.minimum(log_accept, 0.0)), _is_divergent(end, gain), num_steps)
    return jnp.where(accept, end.position, position), info


def _is_divergent(end: Trajectory, gain: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether the integrator broke down: no force at the end, or a huge error along a finite path.

    Ending outside the support (log density -infinity) is an honest rejection.
    """
    broken = ~jnp.isfinite(end.position).all() | ~jnp.isfinite(end.gradient).all()
    return broken | (jnp.isfinite(gain) & (jnp.abs(gain) > DIVERGENCE))
