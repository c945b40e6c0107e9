"""log p(data) by tempering the likelihood alone, along a schedule that a pilot fixed.

log p(data) = log E[exp L(theta_2)] under the two-stage prior, so the weights between powers of the
likelihood depend on L alone: Z(theta_1) belongs to the prior, and only the moves must deal with it.
A pilot population chooses powers, surrogates, step sizes and numbers of sweeps; exp of each
independent run's estimate along its plan is then unbiased for p(data), if the first population and
the moves are exact. P. Del Moral, A. Doucet and A. Jasra, J. R. Stat. Soc. B 68 (2006),
doi:10.1111/j.1467-9868.2006.00553.x.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.resampling import systematic
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, PyTree

from inference import prng
from inference.annealing.certificate import check_exchangeable
from inference.batches import in_threads, num_parts
from inference.checks import Check
from inference.devices import shard
from inference.evidence.pilot import PowerStage
from inference.evidence.population import Particles, Recipe, SweepInfo, renewed, sweep
from inference.evidence.prior import NUM_EACH, Effort, PriorSampler
from inference.evidence.tempered_runs import TemperedRuns, Transition
from inference.kernels.exchange.state import Tuning
from inference.running.progress import SILENT, Monitor

# Powers between two looks at whether the populations lag.
_LOOKS_EVERY = 4


def run(
    prior: PriorSampler,
    key: jax.Array,
    stages: list[PowerStage],
    num_runs: int,
    num_particles: int,
    effort: Effort,
    monitor: Monitor = SILENT,
    sharded: bool = False,
    gives_up: bool = False,
) -> TemperedRuns:
    """Carry independent populations along a plan.

    Parameters
    ----------
    prior : PriorSampler
    key : PRNG key
        Independent of the plan's.
    stages : list of PowerStage
        From :func:`plan`.
    num_runs, num_particles : int
    effort : Effort
    monitor : Monitor
    sharded : bool
        Whether to spread the runs over all devices.
    gives_up : bool
        Whether to stop short of power 1 where the populations lag beyond doubt.
    """
    key, key_start = prng.split(key)
    size = (num_runs, num_particles)
    particles = settled(prior, key_start, stages[0], *size, effort, monitor, NUM_EACH)
    exchangeable = prior_check(prior, particles)
    if sharded:
        particles = shard(particles, num_runs, "num_runs")
    means, steps, infos = [np.asarray(particles.log_likelihood).mean(axis=1)], [], []
    section, zero = monitor.section("powers"), np.zeros(0)
    if section.count:
        moved = [zero] * section.count
        of_each = (Transition(zero, zero, zero), SweepInfo(zero, zero, zero))
        template = (particles, [zero, *moved], *([x] * len(moved) for x in of_each))
        particles, means, steps, infos = section.restore(template)

    def found() -> TemperedRuns:
        return TemperedRuns(
            np.sum([np.asarray(step.log_increment) for step in steps], axis=0),
            np.array([stage.power for stage in stages[: len(means)]]),
            np.stack([np.asarray(x) for x in means], axis=1),
            np.stack([np.asarray(x) for x in (means[0], *(step.mean for step in steps))], axis=1),
            np.stack([np.asarray(step.memory) for step in steps], axis=1),
            particles,
            np.array([float(info.acceptance_rate) for info in infos]),
            int(sum(int(info.num_failed) for info in infos)),
            np.asarray(infos[-1].diverging).reshape(num_runs, -1),
            exchangeable,
        )

    with monitor.bar(len(stages) - 1, "powers", initial=len(infos)) as bar:
        for index in range(len(infos), len(stages) - 1):
            is_looked_at = gives_up and index > 0 and index % _LOOKS_EVERY == 0
            if is_looked_at and found().lags_beyond_doubt:
                break
            key_stage, (old, new) = prng.fold_in(key, index), stages[index : index + 2]
            particles, step, info = carry(prior, key_stage, particles, old, new, effort)
            steps.append(step)
            means.append(np.asarray(particles.log_likelihood).mean(axis=1))
            infos.append(info)
            bar.update(1)
            if index == len(stages) - 2 or section.is_due:
                section.save((particles, means, steps, infos), index + 1)
    return found()


def settled(
    prior: PriorSampler,
    key: jax.Array,
    stage: PowerStage,
    num_runs: int,
    num_particles: int,
    effort: Effort,
    monitor: Monitor = SILENT,
    num_each: int = 1,
) -> Particles:
    """Draw runs from the prior; annealed draws move until they forget how they were made.

    Parameters
    ----------
    prior, key, num_runs, num_particles, effort, monitor
        See :func:`run`.
    stage : PowerStage
        How particles move at power 0.
    num_each : int
        Particles of a run that may begin at one theta_1, where they are annealed.
    """
    section = monitor.section("prior")
    if section.count:
        return section.restore(Particles(*[jnp.zeros(0)] * len(Particles._fields)))
    key_draw, key_move, key_renew = prng.split(key, 3)
    num_each = math.gcd(num_each, num_particles)  # runs share nothing
    particles = by_run(prior.draw(key_draw, num_runs * num_particles, effort, num_each), num_runs)
    if not prior.is_exact:
        particles, _, _ = carry(prior, key_move, particles, stage, stage, effort)
        moves = np.asarray(effort.num_moves)
        particles = renewed(key_renew, prior.recipe, particles, stage.tuning, moves)
    section.save(particles, 1)
    return particles


def prior_check(prior: PriorSampler, particles: Particles) -> Check | None:
    """Check that theta_2 and w of the two-stage prior are exchangeable, where not drawn exactly."""
    if prior.is_exact:
        return None
    parts = (particles.theta_1, particles.theta_2, particles.negative)
    return check_exchangeable(prior.recipe.model, *map(np.asarray, parts))


@partial(jax.jit, static_argnums=1)
def by_run(flat: Particles, num_runs: int) -> Particles:
    """Divide a population into runs."""
    return jax.tree.map(lambda x: x.reshape(num_runs, -1, *x.shape[1:]), flat)


def carry(
    prior: PriorSampler,
    key: jax.Array,
    particles: Particles,
    old: PowerStage,
    new: PowerStage,
    effort: Effort,
) -> tuple[Particles, Transition, SweepInfo]:
    """Take runs from one stage of a plan to another, up or down in power; see :func:`advance`."""
    recipe = prior.with_negative(new.negative).recipe
    powers = (np.asarray(old.power), np.asarray(new.power))
    numbers = (np.asarray(effort.num_moves), np.asarray(new.num_sweeps))
    return advance(key, recipe, particles, new.tuning, *powers, *numbers)


def advance(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    old: Float[np.ndarray, ""],
    new: Float[np.ndarray, ""],
    num_moves: Int[np.ndarray, ""],
    num_sweeps: Int[np.ndarray, ""],
) -> tuple[Particles, Transition, SweepInfo]:
    """Reweight and resample each run's population, and move all of them.

    Where the power stays as it is, resampling changes nothing. Leading axes of the particles:
    (run, particle).
    """
    settings = (tuning, old, new, num_moves, num_sweeps)
    number = num_parts(len(particles.log_likelihood))
    if number == 1:
        return _advance(key, recipe, particles, *settings)
    parts = zip(*(np.split(np.asarray(x), number) for x in particles), strict=True)
    keys = prng.split(key, number)
    batches = [(k, recipe, Particles(*x), *settings) for k, x in zip(keys, parts, strict=True)]
    moved = in_threads(_advance, batches)
    rates, num_failed, diverging = zip(*(info for _, _, info in moved), strict=True)
    info = SweepInfo(np.mean(rates), np.sum(num_failed), np.concatenate(diverging))
    return _joined(x for x, _, _ in moved), _joined(x for _, x, _ in moved), info


def _joined(parts: Iterable[PyTree]) -> Any:
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


@jax.jit
def _advance(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    old: Float[Array, ""],
    new: Float[Array, ""],
    num_moves: Int[Array, ""],
    num_sweeps: Int[Array, ""],
) -> tuple[Particles, Transition, SweepInfo]:
    num_runs, num_particles = particles.log_likelihood.shape

    def resample(key: jax.Array, particles: Particles) -> tuple[Particles, Array]:
        log_w = (new - old) * particles.log_likelihood
        log_w = jnp.where(new == old, 0, log_w)
        increment = logsumexp(log_w) - jnp.log(num_particles)
        chosen = systematic(key, jax.nn.softmax(log_w), num_particles)
        return jax.tree.map(lambda x: x[chosen], particles), increment

    key_resample, key_move = jax.random.split(key)
    particles, increment = jax.vmap(resample)(jax.random.split(key_resample, num_runs), particles)
    before = particles.log_likelihood
    # One axis of particles compiles to less than two.
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), particles)
    flat, info = sweep(key_move, recipe, flat, tuning, new, num_moves, num_sweeps)
    moved = by_run(flat, num_runs)
    memory = jax.vmap(_slope)(before, moved.log_likelihood)
    return moved, Transition(increment, before.mean(axis=1), memory), info


def _slope(x: Float[Array, " n"], y: Float[Array, " n"]) -> Float[Array, ""]:
    """Of the regression of y on x; NaN where x is constant or infinite."""
    centred = x - x.mean()
    return jnp.sum(centred * y) / jnp.sum(centred**2)
