"""Independent annealed runs along one schedule per point, as many as their spread asks for.

The first sixteen runs fix how many there will be. Their own spread gives the error of the mean of
all of them, which makes its coverage exact for Gaussian runs; an error that is computed anew after
every round, and stops them once it is small, is too small. C. Stein, Ann. Math. Stat. 16 (1945),
doi:10.1214/aoms/1177731088.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from generative import TwoStageModel
from inference import prng
from inference.annealing.anneal import (
    ESS_FRACTION,
    Annealed,
    Schedule,
    anneal,
    anneal_along,
)
from inference.batches import in_flight

NUM_RUNS = 16
_FEWEST_PARTICLES = 64
# Runs that differ by more (nats) get more particles; others are averaged over more runs.
_SPREAD_WORTH_AVERAGING = 0.8
_GROWTH = 4
_ROUNDING = 1e-9

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
    def stands_out(self) -> Bool[np.ndarray, " point"]:
        """Whether most runs met one value of C alone, and a few another.

        Of what those few met all runs may have missed the most.
        """
        one_value = np.sqrt(self.variances) <= _ROUNDING * (1 + np.abs(self.means))
        is_blind = one_value.all(axis=-1)
        return (is_blind.mean(axis=1) > 0.5) & ~is_blind.all(axis=1)

    @property
    def spread(self) -> Float[np.ndarray, " point"]:
        """Standard deviation over runs of log Z-hat, nats; NaN where it is infinite."""
        with np.errstate(invalid="ignore"):
            return self.log_normalizer.std(axis=1, ddof=1)


def repeat(
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "point d"],
    key: jax.Array,
    summarize: Callable[[Runs], Summary],
    target_standard_error: float,
    max_evaluations: int,
    ess_fraction: float = ESS_FRACTION,
    max_increment: float = 1.0,
    particles_per_temperature: float = 1.5,
) -> tuple[Runs, Summary]:
    """Plan a schedule per point, run 16, and then as many more as the largest error needs.

    Runs that disagree widely are dropped, and begun again with four times the particles. Where a
    few stand out of runs that met one value of C, the error is infinite.

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

    def judged(runs: Runs) -> Summary:
        value, error = summarize(runs)
        return value, np.where(runs.stands_out, np.inf, error)

    key, key_pilot = prng.split(key)
    pilot = _pilots(key_pilot, model, theta_1, ess_fraction, max_increment)
    spent = int(np.asarray(pilot.num_evaluations).sum())
    num_particles = _FEWEST_PARTICLES
    longest = int(np.asarray(pilot.schedule.length).max())
    cost_of_round = NUM_RUNS * spent
    while (
        num_particles < particles_per_temperature * longest
        and _GROWTH * cost_of_round <= max_evaluations
    ):
        num_particles, cost_of_round = _GROWTH * num_particles, _GROWTH * cost_of_round
    while True:
        key, key_round = prng.split(key)
        first = _round(key_round, model, theta_1, pilot.schedule, num_particles, NUM_RUNS)
        cost = int(first.num_evaluations.sum())
        spent += cost
        runs = _gathered([first], pilot, num_particles, spent)
        affordable = spent + _GROWTH * cost <= max_evaluations
        if not (np.nanmax(runs.spread, initial=0.0) > _SPREAD_WORTH_AVERAGING and affordable):
            break
        num_particles *= _GROWTH
    value, error = judged(runs)
    number = _rounds_needed(error, target_standard_error, (max_evaluations - spent) // cost)
    if number == 1:
        return runs, (value, error)
    rounds = [first]
    for key_round in jax.random.split(key, number - 1):
        rounds.append(_round(key_round, model, theta_1, pilot.schedule, num_particles, NUM_RUNS))
        spent += int(rounds[-1].num_evaluations.sum())
    runs = _gathered(rounds, pilot, num_particles, spent)
    value, pooled = judged(runs)
    planned = np.where(np.isfinite(error), error / np.sqrt(number), 0.0)
    return runs, (value, np.maximum(pooled, planned))


def _rounds_needed(
    error: Float[np.ndarray, " point"], target_standard_error: float, affordable: int
) -> int:
    """Rounds that bring the error of the first below the target, as many as can be afforded."""
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.nan_to_num((np.max(error) / target_standard_error) ** 2, nan=np.inf)
    return int(np.clip(np.ceil(wanted), 1, max(affordable + 1, 1)))


def few_runs(
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "point d"],
    key: jax.Array,
    num_runs: int,
) -> Runs:
    """Plan a schedule per point, and make a fixed number of runs with 64 particles.

    For averages over many points, to which each may bring more noise than an estimate of its own.
    """
    key_pilot, key_runs = prng.split(key)
    pilot = _pilots(key_pilot, model, theta_1, ESS_FRACTION, 1.0)
    found = _round(key_runs, model, theta_1, pilot.schedule, _FEWEST_PARTICLES, num_runs)
    spent = int(np.asarray(pilot.num_evaluations).sum()) + int(found.num_evaluations.sum())
    return _gathered([found], pilot, _FEWEST_PARTICLES, spent)


def _round(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "point d"],
    schedules: Schedule,
    num_particles: int,
    num_runs: int,
) -> Annealed:
    """Make some runs per point, as many at a time as memory allows; NumPy arrays."""
    num_points, dimension = theta_1.shape
    batch_size = in_flight(num_points * num_runs, num_particles * dimension)
    settings = (num_particles, num_runs, batch_size)
    found = _runs(key, model, theta_1, schedules, *settings)
    return jax.tree.map(np.asarray, found)


@jax.jit
def _pilots(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Array,
    ess_fraction: float | Array,
    max_increment: float | Array,
) -> Annealed:
    def one(x: tuple[jax.Array, Array]) -> Annealed:
        run = anneal(x[0], model, x[1], _FEWEST_PARTICLES, ess_fraction, max_increment)
        return _without_particles(run)

    keys = jax.random.split(key, len(theta_1))
    size = in_flight(len(theta_1), _FEWEST_PARTICLES * theta_1.shape[1])
    return jax.lax.map(one, (keys, theta_1), batch_size=size)


@partial(jax.jit, static_argnums=(4, 5, 6))
def _runs(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Array,
    schedules: Schedule,
    num_particles: int,
    num_runs: int,
    batch_size: int,
) -> Annealed:
    keys = jax.random.split(key, (len(theta_1), num_runs))
    point = jnp.repeat(jnp.arange(keys.shape[0]), keys.shape[1])

    def one(x: tuple[jax.Array, Array]) -> Annealed:
        key, index = x
        schedule = jax.tree.map(lambda leaf: leaf[index], schedules)
        run = anneal_along(key, model, theta_1[index], num_particles, schedule)
        left_out = jax.tree.map(lambda _: jnp.zeros(()), run.schedule)
        return _without_particles(run)._replace(schedule=left_out)

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
