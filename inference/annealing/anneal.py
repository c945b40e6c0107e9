"""Particles carried along a path: adaptively, or along a schedule that an earlier run fixed.

The adaptive run chooses its temperatures and step sizes from its own particles, which biases its
estimate of log Z by about the number of temperatures over that of particles. A second run along
the schedule of the first is exactly unbiased for Z. P. Del Moral, A. Doucet and A. Jasra, J. R.
Stat. Soc. B 68 (2006), doi:10.1111/j.1467-9868.2006.00553.x.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.smc.resampling import systematic
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int

from generative import TwoStageModel
from inference.annealing.path import Path
from inference.gaussians.surrogate import flat

MAX_TEMPERATURES = 1000
ESS_FRACTION = 0.9
_TARGET_ACCEPTANCE = 0.8
_BISECTIONS = 50
_SMALLEST_INCREMENT = 1e-9
_SMALLEST_STEP, _LARGEST_STEP = 1e-4, jnp.pi / 2


class Schedule(NamedTuple):
    """Temperatures after the base, each with the step size of its moves.

    Attributes
    ----------
    temperatures : array, shape (1000,)
        Increasing to 1, which fills the rest.
    step_sizes : array, shape (1000,)
        Radians.
    length : int array
        How many are used.
    """

    temperatures: Float[Array, " t"]
    step_sizes: Float[Array, " t"]
    length: Int[Array, ""]


class Annealed(NamedTuple):
    """What one run gives.

    Attributes
    ----------
    particles : array, shape (n, d)
        Equally weighted, approximately from q(. | theta_1), in random order.
    log_normalizer : float array
        Estimate of log Z(theta_1), nats.
    num_evaluations : int array
        Evaluations of C and of its gradient, all particles together.
    reached : bool array
        Whether temperature 1 was reached.
    schedule : Schedule
    means, variances : arrays, shape (1001,)
        Of the excess (nats, nats^2) at the base and then at each temperature.
    """

    particles: Float[Array, "n d"]
    log_normalizer: Float[Array, ""]
    num_evaluations: Int[Array, ""]
    reached: Bool[Array, ""]
    schedule: Schedule
    means: Float[Array, " t1"]
    variances: Float[Array, " t1"]


class _State(NamedTuple):
    key: jax.Array
    particles: Float[Array, "n d"]
    excess: Float[Array, " n"]
    temperature: Float[Array, ""]
    step_size: Float[Array, ""]
    annealed: Annealed


@partial(jax.jit, static_argnums=3)
def anneal(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array, " d"],
    num_particles: int,
    ess_fraction: float | Array = ESS_FRACTION,
    max_increment: float | Array = 1.0,
) -> Annealed:
    """Anneal particles at one theta_1, choosing temperatures and step sizes on the way.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    theta_1 : array, shape (d,)
    num_particles : int
    ess_fraction : float
        Each increment keeps this effective sample size, relative to the particles.
    max_increment : float
        Of temperature.
    """
    path = Path(model, theta_1, flat(model))

    def plan(state: _State) -> tuple[Array, Array, Array]:
        left = 1 - state.temperature
        delta = jnp.minimum(largest_increment(state.excess, left, ess_fraction), max_increment)
        temperature = jnp.where(delta >= left, 1.0, state.temperature + delta)
        return delta, temperature, state.step_size

    return _carry(key, path, num_particles, plan, MAX_TEMPERATURES)


@partial(jax.jit, static_argnums=3)
def anneal_along(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array, " d"],
    num_particles: int,
    schedule: Schedule,
) -> Annealed:
    """Anneal particles along a given schedule; exp of the estimate of log Z is unbiased.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    theta_1 : array, shape (d,)
    num_particles : int
    schedule : Schedule
        Of an independent run of :func:`anneal`.
    """
    path = Path(model, theta_1, flat(model))

    def plan(state: _State) -> tuple[Array, Array, Array]:
        index = state.annealed.schedule.length
        temperature = schedule.temperatures[index]
        return temperature - state.temperature, temperature, schedule.step_sizes[index]

    return _carry(key, path, num_particles, plan, schedule.length)


def _carry(
    key: jax.Array,
    path: Path,
    num_particles: int,
    plan: Callable[[_State], tuple[Array, Array, Array]],
    max_temperatures: int | Array,
) -> Annealed:
    """Reweight, resample and move until temperature 1 or the last of the temperatures."""

    def advance(state: _State) -> _State:
        key, key_resample, key_move = jax.random.split(state.key, 3)
        delta, temperature, step_size = plan(state)
        log_w = -delta * state.excess
        chosen = systematic(key_resample, jax.nn.softmax(log_w), num_particles)
        keys = jax.random.split(key_move, num_particles)
        particles, info = jax.vmap(path.move, (0, 0, None, None))(
            keys, state.particles[chosen], temperature, step_size
        )
        excess = jax.vmap(path.excess)(particles)
        old, index = state.annealed, state.annealed.schedule.length
        schedule = Schedule(
            old.schedule.temperatures.at[index].set(temperature),
            old.schedule.step_sizes.at[index].set(step_size),
            index + 1,
        )
        annealed = Annealed(
            particles,
            old.log_normalizer + logsumexp(log_w) - jnp.log(num_particles),
            old.num_evaluations + jnp.sum(info.num_steps + 2),
            temperature >= 1,
            schedule,
            old.means.at[index + 1].set(excess.mean()),
            old.variances.at[index + 1].set(excess.var(ddof=1)),
        )
        rate = info.acceptance_rate.mean().astype(step_size.dtype)
        step_size = step_size * jnp.exp(rate - _TARGET_ACCEPTANCE)
        step_size = jnp.clip(step_size, _SMALLEST_STEP, _LARGEST_STEP)
        return _State(key, particles, excess, temperature, step_size, annealed)

    def unfinished(state: _State) -> Array:
        return ~state.annealed.reached & (state.annealed.schedule.length < max_temperatures)

    key, key_start, key_order = jax.random.split(key, 3)
    particles = path.sample(key_start, num_particles)
    excess = jax.vmap(path.excess)(particles)
    ones = jnp.ones(MAX_TEMPERATURES)
    zeros = jnp.zeros(MAX_TEMPERATURES + 1)
    start = Annealed(
        particles,
        path.log_base_normalizer,
        jnp.asarray(num_particles),
        jnp.asarray(False),
        Schedule(ones, ones, jnp.asarray(0)),
        zeros.at[0].set(excess.mean()),
        zeros.at[0].set(excess.var(ddof=1)),
    )
    half = jnp.asarray(0.5, ones.dtype)
    state = _State(key, particles, excess, jnp.zeros_like(half), half, start)
    annealed = jax.lax.while_loop(unfinished, advance, state).annealed
    # Systematic resampling keeps the order of the ancestors, so that a position in it has a
    # history of its own: the first particle feels only part of every reweighting.
    order = jax.random.permutation(key_order, num_particles)
    return annealed._replace(particles=annealed.particles[order])


def largest_increment(
    excess: Float[Array, " n"], left: Array, ess_fraction: float | Array
) -> Array:
    """Largest increment of temperature that keeps the effective sample size, by bisection."""

    def is_enough(delta: Array) -> Array:
        log_w = -delta * excess
        log_ess = 2 * logsumexp(log_w) - logsumexp(2 * log_w)
        return log_ess >= jnp.log(ess_fraction * len(excess))

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        enough = is_enough(middle)
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(left), left))
    # Where even the smallest increment starves the particles (an infinite penalty), go on with
    # what bisection can resolve rather than stall.
    low = jnp.maximum(low, jnp.minimum(left, _SMALLEST_INCREMENT))
    return jnp.where(is_enough(left), left, low)
