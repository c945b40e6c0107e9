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

from generative import InvalidInput
from inference.devices import shard
from inference.estimate import Estimate
from inference.evidence.population import (
    Particles,
    Recipe,
    SweepInfo,
    adapt_steps,
    refit,
    sweep,
)
from inference.evidence.prior import PriorSampler
from inference.kernels.exchange_state import Tuning
from inference.normalizer.annealing import ESS_FRACTION, largest_increment
from inference.normalizer.spread import SIGMAS_OF_A_BRACKET, log_of_mean, mean_of_runs
from inference.progress import progress_bar

MAX_POWERS = 1000
# Larger pilots where L is -infinity at all draws of the smaller.
_PILOT_SIZES = (64, 1024, 16_384)
_ADAPTING_SWEEPS = 4
# Whether curved metrics earn their place is judged at every so many powers.
_JUDGED_EVERY = 4
# Sweeps at each power continue until functionals keep this correlation with where they began.
_CORRELATION_LEFT, _MAX_SWEEPS = 0.3, 20


class Stage(NamedTuple):
    """One power of the likelihood, and how particles move at it.

    Attributes
    ----------
    power : float
    tuning : Tuning
    num_sweeps : int
    """

    power: float
    tuning: Tuning
    num_sweeps: int


class TemperedRuns(NamedTuple):
    """What independent runs found.

    Attributes
    ----------
    log_evidence : array, shape (run,)
        Nats.
    powers : array, shape (power,)
        From 0.
    means : array, shape (run, power)
        Of L, nats.
    particles : Particles
        At the last power; leading axes (run, particle).
    acceptance_rate : array, shape (power - 1,)
        Of the exchange move.
    num_failed : int
        Negative samples not found.
    diverging : bool array, shape (run, particle)
        In the last move of theta_2.
    """

    log_evidence: Float[np.ndarray, " run"]
    powers: Float[np.ndarray, " power"]
    means: Float[np.ndarray, "run power"]
    particles: Particles
    acceptance_rate: Float[np.ndarray, " stage"]
    num_failed: int
    diverging: np.ndarray

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
        lag = 0.5 * self.log_evidence.var(ddof=1)

        def bound(value: np.ndarray, otherwise: float) -> float:
            return float(value[0]) if reached and np.isfinite(value[0]) else otherwise

        return Estimate(
            float(value[0]),
            float(error[0]) if reached else np.inf,
            bound(left[0] - SIGMAS_OF_A_BRACKET * left[1], -np.inf),
            bound(right[0] + SIGMAS_OF_A_BRACKET * right[1] + lag, np.inf),
            "tempered_smc",
        )


def plan(
    prior: PriorSampler, key: jax.Array, num_moves: int, num_annealed: int, progress: bool = False
) -> list[Stage]:
    """Carry a pilot population to power 1, choosing everything on the way.

    Parameters
    ----------
    prior : PriorSampler
    key : PRNG key
    num_moves : int
        HMC moves per persistent negative sample.
    num_annealed : int
        See :meth:`~inference.evidence.prior.PriorSampler.draw`.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    list of Stage
        With the prior, power 0, first. The last has power 1, unless 1000 were not enough.
    """
    key, key_start = jax.random.split(key)
    particles, flat, stage = _start(prior, key_start, num_moves, num_annealed)
    stages = [stage]
    with progress_bar(1.0, "pilot", progress, unit="power") as bar:
        while stages[-1].power < 1 and len(stages) <= MAX_POWERS:
            key, key_resample, key_move = jax.random.split(key, 3)
            power, particles = _reweighted(key_resample, particles, stages[-1].power)
            previous = stages[-1].tuning
            tune = _refitted if len(stages) % _JUDGED_EVERY else _judged
            particles, stage = tune(key_move, prior, particles, flat, previous, power, num_moves)
            bar.update(power - stages[-1].power)
            stages.append(stage)
    return stages


def start_stage(prior: PriorSampler, key: jax.Array, num_moves: int, num_annealed: int) -> Stage:
    """Plan the first stage alone: the prior, power 0."""
    return _start(prior, key, num_moves, num_annealed)[2]


def _start(
    prior: PriorSampler, key: jax.Array, num_moves: int, num_annealed: int
) -> tuple[Particles, Tuning, Stage]:
    """Draw a pilot population and tune its moves at power 0; with them, the flat tuning."""
    key_start, key_tune, key_move = jax.random.split(key, 3)
    for number in _PILOT_SIZES:
        particles = prior.draw(key_start, number, num_annealed)
        if np.any(np.isfinite(particles.log_likelihood)):
            break
    else:
        found = f"-infinity at all of {number} draws of the two-stage prior"
        raise InvalidInput("log_likelihood", found, "finite at some draws")
    flat = prior.recipe.kernel(0.0).untuned(key_tune, particles.negative)
    flat = prior.pin(flat)
    particles, stage = _judged(key_move, prior, particles, flat, flat, 0.0, num_moves)
    return particles, flat, stage


def _reweighted(key: jax.Array, particles: Particles, power: float) -> tuple[float, Particles]:
    delta, particles = _resample_next(key, particles, jnp.asarray(1 - power))
    return min(1.0, power + float(delta)), particles


@jax.jit
def _resample_next(key: jax.Array, particles: Particles, left: Array) -> tuple[Array, Particles]:
    delta = largest_increment(-particles.log_likelihood, left, ESS_FRACTION)
    weights = jax.nn.softmax(delta * particles.log_likelihood)
    chosen = systematic(key, weights, len(weights))
    return delta, jax.tree.map(lambda x: x[chosen], particles)


def _judged(
    key: jax.Array,
    prior: PriorSampler,
    particles: Particles,
    flat: Tuning,
    previous: Tuning,
    power: float,
    num_moves: int,
) -> tuple[Particles, Stage]:
    """Adapt with flat metrics, with curved ones, and then with the better of the two."""
    key_flat, key_fit, key_curved, key_choose, key_stage = jax.random.split(key, 5)
    recipe, settings = prior.recipe, (jnp.asarray(power), jnp.asarray(num_moves))

    def adapt(key: jax.Array, particles: Particles, tuning: Tuning) -> tuple[Particles, Tuning]:
        return adapt_steps(key, recipe, particles, tuning, *settings, _ADAPTING_SWEEPS)

    def fit(key: jax.Array, tuning: Tuning, other: Tuning, judge: bool) -> Tuning:
        power, verdict = settings[0], jnp.asarray(judge)
        return prior.pin(refit(key, recipe, particles, tuning, other, power, verdict))

    metrics = {"metric_2": flat.metric_2, "metric_negative": flat.metric_negative}
    particles, with_flat = adapt(key_flat, particles, previous._replace(**metrics))
    particles, curved = adapt(key_curved, particles, fit(key_fit, with_flat, with_flat, False))
    chosen = fit(key_choose, curved, with_flat, True)
    return _adapted(key_stage, recipe, particles, chosen, power, num_moves)


def _refitted(
    key: jax.Array,
    prior: PriorSampler,
    particles: Particles,
    flat: Tuning,
    previous: Tuning,
    power: float,
    num_moves: int,
) -> tuple[Particles, Stage]:
    """Adapt with metrics of the kind that the previous power had."""
    key_fit, key_stage = jax.random.split(key)
    recipe, no = prior.recipe, jnp.asarray(False)
    fitted = refit(key_fit, recipe, particles, previous, previous, jnp.asarray(power), no)
    kept = {
        name: getattr(flat, name)
        for name in ("metric_2", "metric_negative")
        if not np.any(getattr(previous, name).A)
    }
    fitted = prior.pin(fitted._replace(**kept))
    return _adapted(key_stage, recipe, particles, fitted, power, num_moves)


def _adapted(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    power: float,
    num_moves: int,
) -> tuple[Particles, Stage]:
    settings = (jnp.asarray(power), jnp.asarray(num_moves), _ADAPTING_SWEEPS)
    moved, tuning = adapt_steps(key, recipe, particles, tuning, *settings)
    correlation = float(_correlation(recipe, particles, moved))
    return moved, Stage(power, tuning, _sweeps_for(correlation))


def _sweeps_for(correlation: float) -> int:
    """Sweeps that leave little memory, if each keeps the same share of it."""
    kept = np.log(np.clip(correlation, 0.01, 0.99)) / _ADAPTING_SWEEPS
    return int(np.clip(np.ceil(np.log(_CORRELATION_LEFT) / kept), 1, _MAX_SWEEPS))


@partial(jax.jit, static_argnums=(0,))
def _correlation(recipe: Recipe, before: Particles, after: Particles) -> Array:
    """Largest correlation over particles of L, C and distances, before and after."""
    model = recipe.model

    def functionals(particles: Particles) -> Float[Array, "f n"]:
        cost = jax.vmap(model.agreement.disagreement)(particles.theta_2)
        first = jnp.sum((particles.theta_1 - model.space.origin) ** 2, axis=-1)
        second = jnp.sum((particles.theta_2 - particles.theta_1) ** 2, axis=-1)
        return jnp.stack([particles.log_likelihood, cost, first, second])

    def one(x: Array, y: Array) -> Array:
        x, y = x - x.mean(), y - y.mean()
        norm = jnp.sqrt(jnp.sum(x**2) * jnp.sum(y**2))
        return jnp.where(norm > 0, jnp.sum(x * y) / norm, 0)

    correlations = jax.vmap(one)(functionals(before), functionals(after))
    return jnp.max(jnp.nan_to_num(correlations))


def run(
    prior: PriorSampler,
    key: jax.Array,
    stages: list[Stage],
    num_runs: int,
    num_particles: int,
    num_moves: int,
    num_annealed: int,
    progress: bool = False,
    sharded: bool = False,
) -> TemperedRuns:
    """Carry independent populations along a plan.

    Parameters
    ----------
    prior : PriorSampler
    key : PRNG key
        Independent of the plan's.
    stages : list of Stage
        From :func:`plan`.
    num_runs, num_particles : int
    num_moves, num_annealed : int
        As for :func:`plan`.
    progress : bool
    sharded : bool
        Whether to spread the runs over all devices.
    """
    key, key_start, key_settle = jax.random.split(key, 3)
    flat = prior.draw(key_start, num_runs * num_particles, num_annealed)
    particles = by_run(flat, num_runs)
    if sharded:
        particles = shard(particles, num_runs, "num_runs")
    if not prior.is_exact:  # annealed draws first forget how they were made
        still = (jnp.asarray(0.0), jnp.asarray(0.0))
        settings = (jnp.asarray(num_moves), jnp.asarray(stages[0].num_sweeps))
        particles, _, _ = advance(
            key_settle, prior.recipe, particles, stages[0].tuning, *still, *settings
        )
    means, increments, infos = [particles.log_likelihood.mean(axis=1)], [], []
    with progress_bar(len(stages) - 1, "powers", progress) as bar:
        for index, (old, new) in enumerate(zip(stages, stages[1:], strict=False)):
            key_stage = jax.random.fold_in(key, index)
            settings = (jnp.asarray(num_moves), jnp.asarray(new.num_sweeps))
            powers = (jnp.asarray(old.power), jnp.asarray(new.power))
            particles, increment, info = advance(
                key_stage, prior.recipe, particles, new.tuning, *powers, *settings
            )
            increments.append(increment)
            means.append(particles.log_likelihood.mean(axis=1))
            infos.append(info)
            bar.update(1)
    return TemperedRuns(
        np.sum([np.asarray(x) for x in increments], axis=0),
        np.array([stage.power for stage in stages]),
        np.stack([np.asarray(x) for x in means], axis=1),
        particles,
        np.array([float(info.acceptance_rate) for info in infos]),
        int(sum(int(info.num_failed) for info in infos)),
        np.asarray(infos[-1].diverging).reshape(num_runs, -1),
    )


def by_run(flat: Particles, num_runs: int) -> Particles:
    """Divide a population into runs."""
    return jax.tree.map(lambda x: x.reshape(num_runs, -1, *x.shape[1:]), flat)


@partial(jax.jit, static_argnums=(1,))
def advance(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    old: Float[Array, ""],
    new: Float[Array, ""],
    num_moves: Int[Array, ""],
    num_sweeps: Int[Array, ""],
) -> tuple[Particles, Float[Array, " run"], SweepInfo]:
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
    # One axis of particles compiles to less than two.
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), particles)
    flat, info = sweep(key_move, recipe, flat, tuning, new, num_moves, num_sweeps)
    return by_run(flat, num_runs), increment, info
