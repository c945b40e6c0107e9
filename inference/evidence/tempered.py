"""log p(data) by tempering the likelihood alone, along a schedule that a pilot fixed.

log p(data) = log E[exp L(theta_2)] under the two-stage prior, so the weights between powers of the
likelihood depend on L alone: Z(theta_1) belongs to the prior, and only the moves must deal with it.
A pilot population chooses powers, surrogates, step sizes and numbers of sweeps; exp of each
independent run's estimate along its plan is then unbiased for p(data), if the first population and
the moves are exact. Runs are averaged as lognormal variables. P. Del Moral, A. Doucet and A. Jasra,
J. R. Stat. Soc. B 68 (2006), doi:10.1111/j.1467-9868.2006.00553.x.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.resampling import systematic
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from inference import prng
from inference.annealing.certificate import check_exchangeable
from inference.averages import SIGMAS_OF_A_BRACKET, log_of_mean, mean_of_runs
from inference.checks import Check, check_no_shift
from inference.devices import shard
from inference.estimate import Estimate
from inference.evidence.pilot import PowerStage
from inference.evidence.population import Particles, Recipe, SweepInfo, renewed, sweep
from inference.evidence.prior import Effort, PriorSampler
from inference.kernels.exchange.state import Tuning
from inference.running.progress import SILENT, Monitor

LAG = "lag"
_ROUNDING = 1e-9
# Standard errors, and the powers between two looks.
_BEYOND_DOUBT, _LOOKS_EVERY = 15.0, 4


class Reweighting(NamedTuple):
    """What it did to each run's population.

    Attributes
    ----------
    log_increment : array, shape (run,)
        Of the evidence, nats.
    mean : array, shape (run,)
        Of L, nats, before the particles move.
    """

    log_increment: Float[Array | np.ndarray, " run"]
    mean: Float[Array | np.ndarray, " run"]


class TemperedRuns(NamedTuple):
    """What independent runs found.

    Attributes
    ----------
    log_evidence : array, shape (run,)
        Nats.
    powers : array, shape (power,)
        From 0.
    means, before : arrays, shape (run, power)
        Of L, nats: after the moves at each power, and before them, when reweighting is done.
    particles : Particles
        At the last power; leading axes (run, particle).
    acceptance_rate : array, shape (power - 1,)
        Of the exchange move.
    num_failed : int
        Negative samples not found.
    diverging : bool array, shape (run, particle)
        In the last move of theta_2.
    exchangeable : Check or None
        Of the first populations, where these were annealed.
    """

    log_evidence: Float[np.ndarray, " run"]
    powers: Float[np.ndarray, " power"]
    means: Float[np.ndarray, "run power"]
    before: Float[np.ndarray, "run power"]
    particles: Particles
    acceptance_rate: Float[np.ndarray, " stage"]
    num_failed: int
    diverging: np.ndarray
    exchangeable: Check | None

    @property
    def spread(self) -> float:
        """Standard deviation of the log evidence over runs, nats; infinite where a run has none."""
        is_whole = np.isfinite(self.log_evidence).all()
        return float(self.log_evidence.std(ddof=1)) if is_whole else np.inf

    @property
    def lag(self) -> Check:
        """Check that moves did not go on where reweighting ended.

        A population that has a power's law keeps the mean of L when it moves. One that lags behind
        approaches that law with every move, always from the same side, so that its runs agree on
        an evidence that is too small. What is summed over powers is what the approach is worth,
        and counts beside the error that the evidence has anyway: runs that differ are few, and need
        not lag. Particles that do not move approach nothing, and are not seen here.
        """
        if np.isinf(self.spread):
            return Check(LAG, True, "a run without evidence tells nothing of lag", "both")
        mean, error = self._approach
        return check_no_shift(
            LAG,
            {"mean of L": (mean, error, 1.0)},
            f"moves alone change L by {mean:.2g} nats along the path",
            len(self.means) - 1,
            about="both",
            unit="nats",
        )

    @property
    def lags_beyond_doubt(self) -> bool:
        """Whether the powers so far are enough to say so, however often that is asked."""
        if np.isinf(self.spread):
            return False
        mean, error = self._approach
        return abs(mean) > _BEYOND_DOUBT * error

    @property
    def _approach(self) -> tuple[float, float]:
        """What moves alone change of L along the path, nats, and its standard error."""
        approach = (self.means[:, 1:] - self.before[:, 1:]) @ np.diff(self.powers)
        spread = np.hypot(approach.std(ddof=1), self.spread)
        rounding = _ROUNDING * (1 + np.abs(self.means[:, 1:]).max())  # of a constant L
        error = np.hypot(spread / np.sqrt(len(approach)), rounding)
        return float(approach.mean()), float(error)

    @property
    def estimate(self) -> Estimate:
        """Log evidence; the standard error is infinite where runs differ too much to be averaged.

        `lower` and `upper` are the left and right sums of the mean of L, which increases with the
        power, where power 1 was reached. Particles that lag behind make that mean too small, which
        `lower` can bear; `upper` is raised by half the variance over runs, what lag costs where
        runs still meet all phases, and is no bound where they do not.
        """
        value, error = log_of_mean(self.log_evidence[None])
        steps = np.diff(self.powers)
        left = mean_of_runs((self.means[:, :-1] @ steps)[None])
        right = mean_of_runs((self.means[:, 1:] @ steps)[None])
        reached = self.powers[-1] >= 1
        lag = 0.5 * self.spread**2

        def bound(value: np.ndarray, otherwise: float) -> float:
            return float(value[0]) if reached and np.isfinite(value[0]) else otherwise

        return Estimate(
            float(value[0]),
            float(error[0]) if reached else np.inf,
            bound(left[0] - SIGMAS_OF_A_BRACKET * left[1], -np.inf),
            bound(right[0] + SIGMAS_OF_A_BRACKET * right[1] + lag, np.inf),
            "tempered_smc",
        )


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
    particles = settled(prior, key_start, stages[0], *size, effort, monitor)
    exchangeable = prior_check(prior, particles)
    if sharded:
        particles = shard(particles, num_runs, "num_runs")
    means, steps, infos = [np.asarray(particles.log_likelihood).mean(axis=1)], [], []
    section, zero = monitor.section("powers"), np.zeros(0)
    if section.count:
        moved = [zero] * section.count
        of_each = (Reweighting(zero, zero), SweepInfo(zero, zero, zero))
        template = (particles, [zero, *moved], *([x] * len(moved) for x in of_each))
        particles, means, steps, infos = section.restore(template)

    def found() -> TemperedRuns:
        return TemperedRuns(
            np.sum([np.asarray(step.log_increment) for step in steps], axis=0),
            np.array([stage.power for stage in stages[: len(means)]]),
            np.stack([np.asarray(x) for x in means], axis=1),
            np.stack([np.asarray(x) for x in (means[0], *(step.mean for step in steps))], axis=1),
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
            old, new = stages[index : index + 2]
            key_stage = prng.fold_in(key, index)
            settings = (np.asarray(effort.num_moves), np.asarray(new.num_sweeps))
            powers = (np.asarray(old.power), np.asarray(new.power))
            recipe = prior.with_negative(new.negative).recipe
            particles, step, info = advance(
                key_stage, recipe, particles, new.tuning, *powers, *settings
            )
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
) -> Particles:
    """Draw runs from the prior; annealed draws move until they forget how they were made."""
    section = monitor.section("prior")
    if section.count:
        return section.restore(Particles(*[jnp.zeros(0)] * len(Particles._fields)))
    key_draw, key_move, key_renew = prng.split(key, 3)
    particles = by_run(prior.draw(key_draw, num_runs * num_particles, effort), num_runs)
    if not prior.is_exact:
        power, moves = np.asarray(stage.power), np.asarray(effort.num_moves)
        settings = (stage.tuning, power, power, moves, np.asarray(stage.num_sweeps))
        particles, _, _ = advance(key_move, prior.recipe, particles, *settings)
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


@jax.jit
def advance(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    old: Float[Array, ""],
    new: Float[Array, ""],
    num_moves: Int[Array, ""],
    num_sweeps: Int[Array, ""],
) -> tuple[Particles, Reweighting, SweepInfo]:
    """Reweight and resample each run's population, and move all of them.

    Where the power stays as it is, resampling changes nothing.
    """
    num_runs, num_particles = particles.log_likelihood.shape

    def resample(key: jax.Array, particles: Particles) -> tuple[Particles, Array]:
        log_w = (new - old) * particles.log_likelihood
        log_w = jnp.where(new > old, log_w, 0)
        increment = logsumexp(log_w) - jnp.log(num_particles)
        chosen = systematic(key, jax.nn.softmax(log_w), num_particles)
        return jax.tree.map(lambda x: x[chosen], particles), increment

    key_resample, key_move = jax.random.split(key)
    particles, increment = jax.vmap(resample)(jax.random.split(key_resample, num_runs), particles)
    step = Reweighting(increment, particles.log_likelihood.mean(axis=1))
    # One axis of particles compiles to less than two.
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), particles)
    flat, info = sweep(key_move, recipe, flat, tuning, new, num_moves, num_sweeps)
    return by_run(flat, num_runs), step, info
