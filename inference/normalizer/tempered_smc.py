"""Adaptive tempered SMC from p2(. | theta_1) to q(. | theta_1).

The temperature multiplies lambda. Each increment keeps the effective sample size at a set fraction
of the particles; each move is Hamiltonian with p2 as its reference, so the unconstrained directions
cost nothing. P. Del Moral, A. Doucet and A. Jasra, J. R. Stat. Soc. B 68 (2006),
doi:10.1111/j.1467-9868.2006.00553.x.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.resampling import systematic
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int

from generative import TwoStageModel
from inference.estimate import Estimate
from inference.kernels.density import log_second
from inference.kernels.reference_hmc import reference_hmc
from inference.kernels.surrogate import flat

_ESS_FRACTION = 0.5
_MAX_TEMPERATURES = 400
_MAX_NUM_STEPS = 16
_NUM_MOVES = 2
_TARGET_ACCEPTANCE = 0.8


class Annealed(NamedTuple):
    """What one run of tempered SMC gives.

    Attributes
    ----------
    particles : array, shape (n, d)
        Equally weighted, approximately from q(. | theta_1).
    log_normalizer : float array
        Estimate of log Z(theta_1), nats; exp of it is unbiased up to the adaptation.
    num_evaluations : int array
        Gradients of C, all particles together.
    reached : bool array
        Whether temperature 1 was reached within 400 steps.
    num_temperatures : int array
        Steps taken.
    """

    particles: Float[Array, "n d"]
    log_normalizer: Float[Array, ""]
    num_evaluations: Int[Array, ""]
    reached: Bool[Array, ""]
    num_temperatures: Int[Array, ""]


class _State(NamedTuple):
    key: jax.Array
    particles: Float[Array, "n d"]
    penalties: Float[Array, " n"]
    temperature: Float[Array, ""]
    log_normalizer: Float[Array, ""]
    step_size: Float[Array, ""]
    num_evaluations: Int[Array, ""]
    num_temperatures: Int[Array, ""]


@partial(jax.jit, static_argnums=(1, 3))
def anneal(
    key: jax.Array, model: TwoStageModel, theta_1: Float[Array, " d"], num_particles: int
) -> Annealed:
    """Anneal particles at one theta_1.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    theta_1 : array, shape (d,)
    num_particles : int
        The error of log Z falls as its inverse root.
    """
    reference = flat(model)
    penalty = jax.vmap(lambda theta: model.agreement.strength * model.agreement.disagreement(theta))

    def increment(penalties: Array, left: Array) -> Array:
        """Largest increment that keeps the effective sample size, by bisection."""

        def ess(delta: Array) -> Array:
            log_w = -delta * penalties
            return jnp.exp(2 * logsumexp(log_w) - logsumexp(2 * log_w))

        def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = 0.5 * (low + high)
            enough = ess(middle) >= _ESS_FRACTION * num_particles
            return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

        low, _ = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(left), left))
        # Where even the smallest increment starves the particles (an infinite penalty), go on
        # with what bisection can resolve rather than stall.
        low = jnp.maximum(low, jnp.minimum(left, 1e-9))
        return jnp.where(ess(left) >= _ESS_FRACTION * num_particles, left, low)

    def move(state: _State, temperature: Array) -> tuple[Array, Array, Array]:
        def logdensity(theta: Array) -> Array:
            agreement = temperature * model.agreement.strength
            return log_second(model, theta_1, theta) - agreement * model.agreement.disagreement(
                theta
            )

        def trajectory(key: jax.Array, theta: Array) -> tuple:
            return reference_hmc(
                key, theta, logdensity, reference, theta_1, state.step_size, _MAX_NUM_STEPS
            )

        def once(particles: Array, key: jax.Array) -> tuple[Array, tuple[Array, Array]]:
            keys = jax.random.split(key, num_particles)
            particles, info = jax.vmap(trajectory)(keys, particles)
            return particles, (info.acceptance_rate.mean(), jnp.sum(info.num_steps + 1))

        keys = jax.random.split(state.key, _NUM_MOVES)
        particles, (acceptance, cost) = jax.lax.scan(once, state.particles, keys)
        return particles, acceptance.mean(), cost.sum()

    def advance(state: _State) -> _State:
        key, key_resample, key_move = jax.random.split(state.key, 3)
        delta = increment(state.penalties, 1 - state.temperature)
        log_w = -delta * state.penalties
        log_mean = logsumexp(log_w) - jnp.log(num_particles)
        chosen = systematic(key_resample, jax.nn.softmax(log_w), num_particles)
        temperature = jnp.where(delta >= 1 - state.temperature, 1.0, state.temperature + delta)
        temperature = temperature.astype(log_w.dtype)
        moved, acceptance, cost = move(
            state._replace(key=key_move, particles=state.particles[chosen]), temperature
        )
        step_size = state.step_size * jnp.exp(acceptance - _TARGET_ACCEPTANCE)
        return _State(
            key,
            moved,
            penalty(moved),
            temperature,
            state.log_normalizer + log_mean,
            jnp.clip(step_size, 1e-4, jnp.pi / 2),
            state.num_evaluations + cost + num_particles,
            state.num_temperatures + 1,
        )

    def unfinished(state: _State) -> Array:
        return (state.temperature < 1) & (state.num_temperatures < _MAX_TEMPERATURES)

    key, key_start = jax.random.split(key)
    particles = model.second_stage.around(theta_1).sample(key_start, (num_particles,))
    zero = jnp.zeros((), particles.dtype)
    state = _State(
        key,
        particles,
        penalty(particles),
        zero,
        jnp.zeros((), jnp.result_type(float)),
        zero + 0.5,
        jnp.asarray(num_particles),
        jnp.asarray(0),
    )
    state = jax.lax.while_loop(unfinished, advance, state)
    return Annealed(
        state.particles,
        state.log_normalizer,
        state.num_evaluations,
        state.temperature >= 1,
        state.num_temperatures,
    )


_NUM_RUNS = 8
_MARGIN = 4.0  # nats, as for importance sampling
_FEWEST_PARTICLES = 64


def tempered_smc(
    model: TwoStageModel,
    theta_1: Float[Array, "batch d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    """Average independent runs; their spread gives the error, and particles double until it is met.

    The mean of the runs' Z estimates is unbiased up to the adaptation of temperatures; the
    standard error is that of the mean, by the delta method.
    """
    theta_1 = jnp.asarray(theta_1)
    num_points, num_particles, spent = len(theta_1), _FEWEST_PARTICLES, 0
    while True:
        keys = jax.random.split(jax.random.fold_in(key, num_particles), (num_points, _NUM_RUNS))
        over_runs = jax.vmap(anneal, (0, None, None, None))
        runs = jax.vmap(over_runs, (0, None, 0, None))(keys, model, theta_1, num_particles)
        spent += int(runs.num_evaluations.sum())
        log_z = np.asarray(runs.log_normalizer, np.float64)
        value = np.logaddexp.reduce(log_z, axis=1) - np.log(_NUM_RUNS)
        relative = np.exp(log_z - value[:, None])
        error = relative.std(axis=1, ddof=1) / np.sqrt(_NUM_RUNS)
        # One step to temperature 1 is importance sampling, and equal weights may only mean that
        # no particle met the region where C is small.
        unseen = value < _MARGIN - np.log(num_particles * _NUM_RUNS)
        blind = unseen & (np.asarray(runs.num_temperatures) <= 1).any(axis=1)
        failed = ~np.asarray(runs.reached).all(axis=1) | blind | ~np.isfinite(value)
        error = np.where(failed, np.inf, error)
        # Four times the particles halve the error; stop before the budget would be passed.
        if np.all(error <= target_standard_error) or 5 * spent > max_evaluations:
            return Estimate(value, error, None, np.zeros(num_points), "tempered_smc", spent)
        num_particles *= 4
