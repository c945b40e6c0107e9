"""Draws of q(. | theta_1) by conditional sequential Monte Carlo along a fixed schedule.

One particle of an annealed population has the law of q(. | theta_1) only up to O(1 / N). A sweep
of conditional SMC leaves q invariant for *any* number of particles and any schedule, and forgets
where it started at a rate 1 - O(1 / N) that does not depend on how far apart the modes of q are:
what one sweep leaves of an error of the population is of order 1 / N of it. C. Andrieu, A. Doucet
and R. Holenstein, J. R. Stat. Soc. B 72 (2010), doi:10.1111/j.1467-9868.2009.00736.x; C. Andrieu,
A. Lee and M. Vihola, Bernoulli 24 (2018), doi:10.3150/15-BEJ785.

The moves along the path are reversible, so that the path which leads to a given draw is drawn by
the same moves, backwards.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from generative import TwoStageModel
from inference import prng
from inference.annealing.anneal import MAX_TEMPERATURES, Schedule, anneal
from inference.annealing.path import Path
from inference.batches import in_flight, in_threads
from inference.gaussians.surrogate import flat

_SHORTEST = 32
# Points of one program; more are done block by block.
_BLOCK = 64


def annealed_draws(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "point d"],
    num_particles: int,
    num_sweeps: int = 1,
    num_each: int = 1,
) -> Float[np.ndarray, "draw d"]:
    """Draw from q(. | theta_1) at each of many theta_1, independently of the other points.

    Parameters
    ----------
    key, model, theta_1, num_particles, num_sweeps
        See :func:`annealed_populations`, all of whose particles are not held at once here.
    num_each : int
        Draws at each point, of one population: `num_particles` at most. Those of the first point
        come first.
    """
    drawn, _ = _annealed(key, model, theta_1, num_particles, num_sweeps, None, num_each)
    return drawn.reshape(-1, model.dimension)


def annealed_populations(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "point d"],
    num_particles: int,
    num_sweeps: int = 1,
    start: Float[Array | np.ndarray, "point d"] | None = None,
) -> tuple[Float[np.ndarray, "point particle d"], float]:
    """Draw populations from q(. | theta_1), each particle of which has its law.

    At each point a pilot population chooses a schedule; the draw starts at one of the pilot's
    particles, or where it is told to, and makes conditional sweeps along that schedule. All
    particles of the last sweep have the law of the one that it chooses, so that means over them
    are means under q, and less noisy.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    theta_1 : array, shape (point, d)
    num_particles : int
        Of the pilot and of every sweep. Too few, and minor modes keep some of the pilot's error.
    num_sweeps : int
        Each leaves about 1 / num_particles of that error.
    start : array, shape (point, d), optional
        Draws of q, of which those that come back are then draws exactly, whatever the pilot found.

    Returns
    -------
    populations : array, shape (point, particle, d)
        In random order.
    step_size : float
        Mean step size of moves that leave q itself invariant, radians.
    """
    settings = (num_particles, num_sweeps, start, num_particles)
    return _annealed(key, model, theta_1, *settings)


def _annealed(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "point d"],
    num_particles: int,
    num_sweeps: int,
    start: Float[Array | np.ndarray, "point d"] | None,
    num_kept: int,
) -> tuple[Float[np.ndarray, "point kept d"], float]:
    """So many particles of each population, and the mean last step size."""
    points = list(_blocks(np.asarray(theta_1)))
    keys = [prng.split(prng.fold_in(key, index)) for index in range(len(points))]

    def pilot(key: jax.Array, block: np.ndarray) -> tuple[Array, Schedule]:
        return pilots(key, model, block, num_particles)

    found = in_threads(pilot, [(pair[0], x) for pair, x in zip(keys, points, strict=True)])
    starts = [x for x, _ in found] if start is None else list(_blocks(np.asarray(start)))
    schedules = [x for _, x in found]
    num_rungs = max(map(rungs, schedules))

    def refreshed(key: jax.Array, *settings: Any) -> Array:
        sizes = (np.asarray(num_sweeps), num_particles, num_rungs)
        return _refreshed(key, model, *settings, *sizes)

    batches = zip((pair[1] for pair in keys), points, schedules, starts, strict=True)
    last_steps = [x.step_sizes[np.arange(_BLOCK), x.length - 1] for x in schedules]
    drawn = in_threads(refreshed, list(batches), lambda x: np.array(x[:, :num_kept]))
    return np.concatenate(drawn)[: len(theta_1)], float(np.mean(last_steps))


def _blocks(points: Float[np.ndarray, "point d"]) -> Iterator[Float[np.ndarray, "block d"]]:
    """Blocks of one size, so that one program serves any number; the last point fills the last."""
    for start in range(0, len(points), _BLOCK):
        yield points[np.minimum(np.arange(start, start + _BLOCK), len(points) - 1)]


@partial(jax.jit, static_argnums=3)
def pilots(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "block d"],
    num_particles: int,
) -> tuple[Float[Array, "block d"], Schedule]:
    """Anneal a population at each point; return one of its particles, and its schedule."""

    def one(x: tuple[jax.Array, Array]) -> tuple[Array, Schedule]:
        found = anneal(x[0], model, x[1], num_particles)
        return found.particles[0], found.schedule

    keys = jax.random.split(key, len(theta_1))
    size = in_flight(len(theta_1), num_particles * theta_1.shape[1])
    return jax.lax.map(one, (keys, theta_1), batch_size=size)


@partial(jax.jit, static_argnums=(6, 7))
def _refreshed(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "block d"],
    schedules: Schedule,
    starts: Float[Array | np.ndarray, "block d"],
    num_sweeps: Int[Array, ""],
    num_particles: int,
    num_rungs: int,
) -> Float[Array, "block particle d"]:
    def one(x: tuple) -> Array:
        key, theta_1, schedule, start = x
        path = Path(model, theta_1, flat(model))
        settings = (num_particles, num_rungs)

        def sweep(index: Array, particles: Array) -> Array:
            key_sweep = jax.random.fold_in(key, index)
            return conditional_population(key_sweep, path, schedule, particles[0], *settings)[0]

        starts = jnp.broadcast_to(start, (num_particles, len(start)))
        return jax.lax.fori_loop(0, num_sweeps, sweep, starts)

    keys = jax.random.split(key, len(theta_1))
    size = in_flight(len(theta_1), (num_particles + num_rungs) * theta_1.shape[1])
    return jax.lax.map(one, (keys, theta_1, schedules, starts), batch_size=size)


def conditional_sweep(
    key: jax.Array,
    path: Path,
    schedule: Schedule,
    draw: Float[Array, " d"],
    num_particles: int,
    num_rungs: int = MAX_TEMPERATURES,
) -> tuple[Float[Array, " d"], Int[Array, ""]]:
    """Make one move that leaves q(. | theta_1) invariant, wherever its modes are.

    Parameters
    ----------
    key, path, schedule, draw, num_particles, num_rungs
        See :func:`conditional_population`.

    Returns
    -------
    draw : array, shape (d,)
    num_evaluations : int array
        Of C and its gradient.
    """
    settings = (num_particles, num_rungs)
    particles, cost = conditional_population(key, path, schedule, draw, *settings)
    return particles[0], cost


def conditional_population(
    key: jax.Array,
    path: Path,
    schedule: Schedule,
    draw: Float[Array, " d"],
    num_particles: int,
    num_rungs: int = MAX_TEMPERATURES,
) -> tuple[Float[Array, "n d"], Int[Array, ""]]:
    """Carry a population along the path, one of whose particles ends at a draw of q(. | theta_1).

    A particle chosen at random then has the law of q, whatever the population.

    Parameters
    ----------
    key : PRNG key
    path : Path
    schedule : Schedule
        Chosen independently of `draw`.
    draw : array, shape (d,)
    num_particles : int
        Two at least; the rate at which the start is forgotten is 1 - O(1 / num_particles).
    num_rungs : int
        At least the length of the schedule; memory is held for so many points.

    Returns
    -------
    particles : array, shape (n, d)
        In random order.
    num_evaluations : int array
        Of C and its gradient.
    """
    key_back, key_start, key_on, key_order = jax.random.split(key, 4)
    step_sizes, length = schedule.step_sizes, schedule.length
    # A pilot that ran out of temperatures stops short of q; the last rung is q in any case.
    temperatures = schedule.temperatures.at[length - 1].set(1.0)
    temperatures = jnp.concatenate([jnp.zeros(1), temperatures])

    def move(key: jax.Array, theta: Array, rung: Array) -> tuple[Array, Array]:
        theta, info = path.move(key, theta, temperatures[rung], step_sizes[rung - 1])
        return theta, info.num_steps + 2

    def back(i: Int[Array, ""], carry: tuple[Array, ...]) -> tuple[Array, ...]:
        theta, retained, cost = carry
        rung = length - i
        theta, spent = move(jax.random.fold_in(key_back, i), theta, rung)
        return theta, retained.at[rung - 1].set(theta), cost + spent

    retained = jnp.zeros((num_rungs + 1, len(draw)), draw.dtype).at[length].set(draw)
    carry = (draw, retained, jnp.asarray(num_particles))
    _, retained, cost = jax.lax.fori_loop(0, length, back, carry)

    def on(rung: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        particles, cost = carry
        key_resample, key_move = jax.random.split(jax.random.fold_in(key_on, rung))
        excess = jax.vmap(path.excess)(particles)
        weights = jax.nn.softmax(-(temperatures[rung] - temperatures[rung - 1]) * excess)
        chosen = conditional_systematic(key_resample, weights)
        keys = jax.random.split(key_move, num_particles)
        moved, spent = jax.vmap(move, (0, 0, None))(keys, particles[chosen], rung)
        return moved.at[0].set(retained[rung]), cost + spent.sum()

    particles = path.sample(key_start, num_particles).at[0].set(retained[0])
    particles, cost = jax.lax.fori_loop(1, length + 1, on, (particles, cost))
    return particles[jax.random.permutation(key_order, num_particles)], cost


def conditional_systematic(key: jax.Array, weights: Float[Array, " n"]) -> Int[Array, " n"]:
    """Systematic resampling, given that particle 0 descends from particle 0.

    Slot k has the ancestor of the point v + k / n (modulo 1) on the scale of cumulative weights.
    With v uniform on [0, 1) every slot has each ancestor with probability its weight; given that
    of slot 0 is particle 0, v is uniform below that particle's weight. N. Chopin and S. S. Singh,
    Bernoulli 21 (2015), doi:10.3150/14-BEJ629.

    Parameters
    ----------
    key : PRNG key
    weights : array, shape (n,)
        Normalised.
    """
    number = len(weights)
    first = jax.random.uniform(key, (), weights.dtype) * weights[0]
    points = (first + jnp.arange(number) / number) % 1
    chosen = jnp.searchsorted(jnp.cumsum(weights), points, side="right")
    return jnp.minimum(chosen, number - 1).at[0].set(0)


def rungs(schedules: Schedule) -> int:
    """Power of two that holds the longest schedule, so that few sizes are ever compiled."""
    longest = int(np.max(np.asarray(schedules.length)))
    return max(_SHORTEST, 1 << max(longest - 1, 0).bit_length())
