"""Many particles (theta_1, theta_2, w) moved at once by one kernel with one tuning.

At power beta the target is p1(theta_1) q(theta_2 | theta_1) exp(beta L(theta_2)), and w is a draw
of q(. | theta_1) beside it. No density of the target contains an unknown Z that the exchange ratio
does not cancel, and weights between powers depend on L(theta_2) alone.
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from generative import TwoStageModel
from generative.parts import Data
from inference.batches import over_points
from inference.kernels.exchange.hmc import ExchangeHMC
from inference.kernels.exchange.state import Tuning
from inference.kernels.negative import NegativeSampler
from inference.moves.density import describe_pair
from inference.moves.step_size import StepSize, averaged, initial, pooled

# Dual averaging is restarted at every power, and never reaches its last iteration.
_ADAPTING = 1_000_000
_BATCH = 256
_TARGET_ACCEPTANCE = 0.5  # of the exchange move
_STEPS = ("step_1", "step_2", "step_negative", "step_joint")


class Particles(NamedTuple):
    """A population.

    Attributes
    ----------
    theta_1, theta_2, negative : arrays, shape (..., n, d)
    log_likelihood : array, shape (..., n)
        L(theta_2), nats, in 64 bits and at power 1.
    """

    theta_1: Float[Array, "n d"]
    theta_2: Float[Array, "n d"]
    negative: Float[Array, "n d"]
    log_likelihood: Float[Array, " n"]


class Recipe(Data):
    """What stays the same in all moves of a population.

    Attributes
    ----------
    model : TwoStageModel
    negative : NegativeSampler
    max_num_steps : int
    """

    model: TwoStageModel
    negative: NegativeSampler
    max_num_steps: int = eqx.field(static=True)

    def kernel(self, power: Float[Array, ""] | float) -> ExchangeHMC:
        """Kernel whose target is tempered to a power of the likelihood."""
        return ExchangeHMC(
            self.model.temper(power),
            self.negative,
            max_num_steps=self.max_num_steps,
            target_acceptance=_TARGET_ACCEPTANCE,
        )


@jax.jit
def populate(
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "n d"],
    theta_2: Float[Array | np.ndarray, "n d"],
    negative: Float[Array | np.ndarray, "n d"],
) -> Particles:
    """Evaluate L and gather a population."""
    values = jax.vmap(model.log_likelihood)(theta_2)
    theta_1, theta_2, negative = map(jnp.asarray, (theta_1, theta_2, negative))
    return Particles(theta_1, theta_2, negative, values.astype(jnp.result_type(float)))


class SweepInfo(NamedTuple):
    """What a sweep of a population did.

    Attributes
    ----------
    acceptance_rate : float array
        Mean over particles, of the exchange move.
    num_failed : int array
        Negative samples that were not found.
    diverging : bool array, shape (n,)
        Whether the last move of theta_2 diverged.
    """

    acceptance_rate: Float[Array | np.ndarray, ""]
    num_failed: Int[Array | np.ndarray, ""]
    diverging: Bool[Array | np.ndarray, " n"]


@jax.jit
def sweep(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    power: Float[Array, ""],
    num_moves: Int[Array, ""],
    num_sweeps: Int[Array, ""],
) -> tuple[Particles, SweepInfo]:
    """Move every particle by some sweeps that keep the target at a power.

    Parameters
    ----------
    key : PRNG key
    recipe : Recipe
    particles : Particles
    tuning : Tuning
        Of all particles; held once, so that products with the surrogates are matrix products.
    power : float array
    num_moves : int array
        HMC moves per persistent negative sample.
    num_sweeps : int array
    """

    def body(index: Array, carry: tuple[Particles, SweepInfo]) -> tuple[Particles, SweepInfo]:
        particles, total = carry
        moved = _swept(
            jax.random.fold_in(key, index), recipe, particles, tuning, power, num_moves, 0
        )
        info = SweepInfo(
            total.acceptance_rate + moved.acceptance_rate.mean() / num_sweeps,
            total.num_failed + moved.num_failed.sum(),
            moved.diverging,
        )
        return _gather(recipe.model, moved), info

    zero = jnp.zeros((), particles.theta_1.dtype)
    calm = jnp.zeros(len(particles.theta_1), bool)
    start = (particles, SweepInfo(zero, jnp.zeros((), int), calm))
    return jax.lax.fori_loop(0, num_sweeps, body, start)


@jax.jit
def renewed(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    num_moves: Int[Array, ""],
) -> Particles:
    """Move every negative sample under its theta_1, so that it forgets what accepted it.

    Leading axes of the particles: (run, particle).
    """
    size = tuning.step_negative.value
    keys = jax.random.split(key, particles.log_likelihood.shape)

    def one(key: jax.Array, theta_1: Array, w: Array) -> Array:
        settings = (tuning.metric_negative, size, num_moves)
        return recipe.negative(key, recipe.model, theta_1, w, *settings)[0]

    negative = jax.vmap(jax.vmap(one))(keys, particles.theta_1, particles.negative)
    return particles._replace(negative=negative)


@partial(jax.jit, static_argnums=6)
def adapt_steps(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    power: Float[Array, ""],
    num_moves: Int[Array, ""],
    num_sweeps: int,
) -> tuple[Particles, Tuning]:
    """Move a population while its step sizes adapt to the mean acceptance over particles."""

    def body(index: Array, carry: tuple[Particles, Tuning]) -> tuple[Particles, Tuning]:
        particles, tuning = carry
        key_sweep = jax.random.fold_in(key, index)
        moved = _swept(key_sweep, recipe, particles, tuning, power, num_moves, _ADAPTING)
        steps: dict[str, Any] = {
            name: pooled(getattr(tuning, name), step) for name, step in moved.steps.items()
        }
        return _gather(recipe.model, moved), tuning._replace(**steps)

    moved, tuning = jax.lax.fori_loop(0, num_sweeps, body, (particles, _restarted(tuning)))
    # One iterate of a few is noisy, and is used for whole runs.
    steps: dict[str, Any] = {name: averaged(getattr(tuning, name)) for name in _STEPS}
    return moved, tuning._replace(**steps)


class _Moved(NamedTuple):
    """What one sweep leaves of each particle; not the surrogates, which are the same for all."""

    theta_1: Array
    theta_2: Array
    negative: Array
    acceptance_rate: Array
    num_failed: Array
    diverging: Array
    steps: dict[str, StepSize]


def _swept(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    power: Float[Array, ""],
    num_moves: Int[Array, ""],
    num_warmup: int,
) -> _Moved:
    kernel = recipe.kernel(power)

    def one(key: jax.Array, theta_1: Array, theta_2: Array, negative: Array) -> _Moved:
        state = kernel.start(key, theta_1, theta_2, negative, tuning, num_warmup)
        state = kernel.sample(state._replace(num_moves=num_moves))
        steps = {name: getattr(state.tuning, name) for name in _STEPS}
        return _Moved(
            state.z["theta_1"],
            state.z["theta_2"],
            state.negative,
            state.acceptance_rate,
            state.num_failed,
            state.diverging,
            steps,
        )

    keys = jax.random.split(key, len(particles.theta_1))
    return jax.vmap(one)(keys, particles.theta_1, particles.theta_2, particles.negative)


def _gather(model: TwoStageModel, moved: _Moved) -> Particles:
    return populate(model, moved.theta_1, moved.theta_2, moved.negative)


def _restarted(tuning: Tuning) -> Tuning:
    dtype = tuning.step_1.value.dtype
    steps: dict[str, Any] = {name: initial(getattr(tuning, name).value, dtype) for name in _STEPS}
    return tuning._replace(**steps)


def described(
    model: TwoStageModel,
    theta_1: Float[np.ndarray, "chain draw d"],
    theta_2: Float[np.ndarray, "chain draw d"],
) -> dict[str, np.ndarray]:
    """Parameters with the statistics of every draw."""
    shape = theta_1.shape[:2]
    pair = tuple(x.reshape(-1, x.shape[-1]) for x in (theta_1, theta_2))
    statistics = over_points(Partial(describe_pair, model), pair, _BATCH)
    named = {name: x.reshape(shape) for name, x in statistics.items()}
    return {"theta_1": theta_1, "theta_2": theta_2, **named}
