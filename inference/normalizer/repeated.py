"""Independent annealed runs along one schedule per point, until their mean is known well enough."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import TwoStageModel
from inference.batches import in_flight
from inference.normalizer.annealing import (
    ESS_FRACTION,
    Annealed,
    Schedule,
    anneal,
    anneal_along,
)

NUM_RUNS = 16
_FEWEST_PARTICLES = 64
# Runs that differ by more (nats) get more particles; others are averaged over more runs.
_SPREAD_WORTH_AVERAGING = 0.8
_GROWTH = 4

Summary = tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]


class Runs(NamedTuple):
    """What independent runs found, as NumPy arrays.

    Attributes
    ----------
    log_normalizer : array, shape (point, run)
    means, variances : arrays, shape (point, run, 1001)
        Of lambda C (nats, nats^2) at temperature 0 and then along the schedule.
    temperatures : array, shape (point, 1001)
        With the leading 0; 1 beyond the schedule's end.
    lengths : array, shape (point,)
    reached : bool array, shape (point,)
    num_particles : int
    num_evaluations : int
        Of C, in all.
    """

    log_normalizer: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    temperatures: np.ndarray
    lengths: np.ndarray
    reached: np.ndarray
    num_particles: int
    num_evaluations: int

    @property
    def spread(self) -> Float[np.ndarray, " point"]:
        """Standard deviation over runs of log Z-hat, nats; NaN where it is infinite."""
        with np.errstate(invalid="ignore"):
            return self.log_normalizer.std(axis=1, ddof=1)


def repeat(
    model: TwoStageModel,
    theta_1: Float[Array, "point d"],
    key: jax.Array,
    summarize: Callable[[Runs], Summary],
    target_standard_error: float,
    max_evaluations: int,
    ess_fraction: float = ESS_FRACTION,
    max_increment: float = 1.0,
    particles_per_temperature: float = 1.5,
) -> tuple[Runs, Summary]:
    """Plan a schedule per point, then run 16 at a time until all errors are small enough.

    Runs that disagree widely are dropped, and begun again with four times the particles.

    Parameters
    ----------
    model : TwoStageModel
    theta_1 : array, shape (point, d)
    key : PRNG key
    summarize : callable
        All runs so far -> value and standard error per point, nats.
    target_standard_error : float
        Nats.
    max_evaluations : int
        Of C, for all points together; the first 16 runs are made in any case.
    ess_fraction, max_increment : float
        How finely the pilot divides the path; see :func:`anneal`.
    particles_per_temperature : float
        So many as the budget allows: populations that shrink to few ancestors on a long path make
        log Z-hat skewed.
    """
    key, key_pilot = jax.random.split(key)
    keys = jax.random.split(key_pilot, len(theta_1))
    pilot = _pilots(keys, model, theta_1, ess_fraction, max_increment)
    spent = int(pilot.num_evaluations.sum())
    num_particles = _FEWEST_PARTICLES
    longest = int(pilot.schedule.length.max())
    cost_of_round = NUM_RUNS * spent
    while (
        num_particles < particles_per_temperature * longest
        and _GROWTH * cost_of_round <= max_evaluations
    ):
        num_particles, cost_of_round = _GROWTH * num_particles, _GROWTH * cost_of_round
    rounds: list[Annealed] = []
    attempt = 0
    while True:
        key_round = jax.random.fold_in(key, attempt)
        rounds.append(_round(key_round, model, theta_1, pilot.schedule, num_particles, NUM_RUNS))
        cost = int(rounds[-1].num_evaluations.sum())
        spent += cost
        runs = _gathered(rounds, pilot, num_particles, spent)
        summary = summarize(runs)
        if np.all(summary[1] <= target_standard_error) or spent + cost > max_evaluations:
            return runs, summary
        attempt += 1
        affordable = spent + _GROWTH * cost <= max_evaluations
        if np.nanmax(runs.spread, initial=0.0) > _SPREAD_WORTH_AVERAGING and affordable:
            num_particles, rounds = _GROWTH * num_particles, []


def few_runs(
    model: TwoStageModel, theta_1: Float[Array, "point d"], key: jax.Array, num_runs: int
) -> Runs:
    """Plan a schedule per point, and make a fixed number of runs with 64 particles.

    For averages over many points, to which each may bring more noise than an estimate of its own.
    """
    key_pilot, key_runs = jax.random.split(key)
    pilot = _pilots(jax.random.split(key_pilot, len(theta_1)), model, theta_1, ESS_FRACTION, 1.0)
    found = _round(key_runs, model, theta_1, pilot.schedule, _FEWEST_PARTICLES, num_runs)
    spent = int(pilot.num_evaluations.sum()) + int(found.num_evaluations.sum())
    return _gathered([found], pilot, _FEWEST_PARTICLES, spent)


def _round(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array, "point d"],
    schedules: Schedule,
    num_particles: int,
    num_runs: int,
) -> Annealed:
    """Make some runs per point, as many at a time as memory allows; NumPy arrays."""
    num_points, dimension = theta_1.shape
    batch_size = in_flight(num_points * num_runs, num_particles * dimension)
    keys = jax.random.split(key, (num_points, num_runs))
    found = _runs(keys, model, theta_1, schedules, num_particles, batch_size)
    return jax.tree.map(np.asarray, found)


@partial(jax.jit, static_argnums=(1,))
def _pilots(
    keys: jax.Array,
    model: TwoStageModel,
    theta_1: Array,
    ess_fraction: float,
    max_increment: float,
) -> Annealed:
    def one(x: tuple[jax.Array, Array]) -> Annealed:
        run = anneal(x[0], model, x[1], _FEWEST_PARTICLES, ess_fraction, max_increment)
        return _without_particles(run)

    size = in_flight(len(theta_1), _FEWEST_PARTICLES * theta_1.shape[1])
    return jax.lax.map(one, (keys, theta_1), batch_size=size)


@partial(jax.jit, static_argnums=(1, 4, 5))
def _runs(
    keys: jax.Array,
    model: TwoStageModel,
    theta_1: Array,
    schedules: Schedule,
    num_particles: int,
    batch_size: int,
) -> Annealed:
    point = jnp.repeat(jnp.arange(keys.shape[0]), keys.shape[1])

    def one(x: tuple[jax.Array, Array]) -> Annealed:
        key, index = x
        schedule = jax.tree.map(lambda leaf: leaf[index], schedules)
        run = anneal_along(key, model, theta_1[index], num_particles, schedule)
        return _without_particles(run)._replace(schedule=jnp.zeros(()))

    found = jax.lax.map(one, (keys.ravel(), point), batch_size=batch_size)
    return jax.tree.map(lambda leaf: leaf.reshape(keys.shape + leaf.shape[1:]), found)


def _without_particles(run: Annealed) -> Annealed:
    return run._replace(particles=jnp.zeros(()))


def _gathered(rounds: list[Annealed], pilot: Annealed, num_particles: int, spent: int) -> Runs:
    log_normalizer, means, variances, reached = (
        np.concatenate([getattr(r, name) for r in rounds], axis=1)
        for name in ("log_normalizer", "means", "variances", "reached")
    )
    temperatures = np.asarray(pilot.schedule.temperatures)
    temperatures = np.concatenate([np.zeros((len(temperatures), 1)), temperatures], axis=1)
    return Runs(
        log_normalizer,
        means,
        variances,
        temperatures,
        np.asarray(pilot.schedule.length),
        reached.all(axis=1) & np.asarray(pilot.reached),
        num_particles,
        spent,
    )
