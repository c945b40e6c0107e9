"""A pilot population that chooses powers, surrogates, step sizes and numbers of sweeps.

Independent runs follow its plan: what a run chose from its own particles would bias its evidence.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.resampling import systematic
from jaxtyping import Array, Bool, Float

from generative import InvalidInput
from inference import prng
from inference.annealing.anneal import ESS_FRACTION, largest_increment
from inference.evidence.population import (
    Particles,
    Recipe,
    adapt_steps,
)
from inference.evidence.prior import NUM_EACH, Effort, PriorSampler
from inference.kernels.exchange.bridges import NUM_BRIDGES, with_bridges
from inference.kernels.exchange.lag import moves_needed
from inference.kernels.exchange.state import Tuning
from inference.kernels.exchange.warmup import refitted, untuned
from inference.kernels.negative import NegativeSampler, PersistentNegative
from inference.running.progress import SILENT, Monitor

MAX_POWERS = 1000
# Larger pilots where L is -infinity at all draws of the smaller.
_PILOT_SIZES = (64, 1024, 16_384)
_ADAPTING_SWEEPS = 4
# Whether curved metrics and bridges earn their place is judged at every so many powers, and last.
_JUDGED_EVERY = 4
# Bridges must cost so much less; once made they stay, so that noise must not decide.
_WORTHWHILE = 1.5
# Sweeps at each power continue until functionals keep this correlation with where they began.
_CORRELATION_LEFT, _MAX_SWEEPS = 0.3, 20
# Values of theta_1, repeated if need be, from which the normaliser is learned.
_NUM_LEARNED_FROM = 1024
# Draws of the prior at which the memory of negative samples is measured.
_NUM_LAG_POINTS = 1024


class PowerStage(NamedTuple):
    """One power of the likelihood, and how particles move at it.

    Attributes
    ----------
    power : float
    tuning : Tuning
    num_needed : float
        Sweeps that leave little memory.
    negative : NegativeSampler
        Made for theta_1 at this power.
    """

    power: float
    tuning: Tuning
    num_needed: float
    negative: NegativeSampler

    @property
    def num_sweeps(self) -> int:
        """Sweeps that are made: those needed, within limits."""
        return int(np.clip(np.ceil(self.num_needed), 1, _MAX_SWEEPS))


def plan(
    prior: PriorSampler,
    key: jax.Array,
    effort: Effort,
    monitor: Monitor = SILENT,
) -> list[PowerStage]:
    """Carry a pilot population to power 1, choosing everything on the way.

    Parameters
    ----------
    prior : PriorSampler
    key : PRNG key
    effort : Effort
    monitor : Monitor

    Returns
    -------
    list of PowerStage
        With the prior, power 0, first. The last has power 1, unless 1000 were not enough.
    """
    key, key_start, key_first = prng.split(key, 3)
    section = monitor.section("pilot")
    particles, flat, stage = _start(prior, key_start, effort)
    if not section.count:
        particles, stage = _bridged_if_cheaper(key_first, prior, particles, stage, effort.num_moves)
    stages = [stage] * max(1, section.count)
    key, particles, stages = section.restore((key, particles, stages))
    prior = prior.with_negative(stages[-1].negative)
    with monitor.bar(1.0, "pilot", "power", stages[-1].power) as bar:
        while stages[-1].power < 1 and len(stages) <= MAX_POWERS:
            key, key_resample, key_move, key_negative, key_bridge = prng.split(key, 5)
            power, particles = _reweighted(key_resample, particles, stages[-1].power)
            prior = prior.made_for(key_negative, particles, power)
            previous = stages[-1].tuning
            is_judged = len(stages) % _JUDGED_EVERY == 0 or power >= 1
            tune = _judged if is_judged else _refitted
            settings = (flat, previous, power, effort.num_moves)
            particles, stage = tune(key_move, prior, particles, *settings)
            if is_judged:
                bridging = (prior, particles, stage, effort.num_moves)
                particles, stage = _bridged_if_cheaper(key_bridge, *bridging)
            bar.update(power - stages[-1].power)
            stages.append(stage)
            if stage.power >= 1 or section.is_due:
                section.save((key, particles, stages), len(stages))
    return stages


def start_stage(prior: PriorSampler, key: jax.Array, effort: Effort) -> PowerStage:
    """Plan the first stage alone: the prior, power 0."""
    return _start(prior, key, effort)[2]


def num_moves_needed(prior: PriorSampler, key: jax.Array, effort: Effort) -> int:
    """Moves in which negative samples forget, on draws of the two-stage prior."""
    key_stage, key_draw, key_lag = prng.split(key, 3)
    tuning = jax.tree.map(lambda x: x[None], start_stage(prior, key_stage, effort).tuning)
    drawn = prior.draw(key_draw, _NUM_LAG_POINTS, effort, NUM_EACH)
    pairs = (drawn.theta_1[None], drawn.negative[None])
    return moves_needed(key_lag, prior.recipe.kernel(0.0), tuning, *pairs)


def _start(
    prior: PriorSampler, key: jax.Array, effort: Effort
) -> tuple[Particles, Tuning, PowerStage]:
    """Draw a pilot population and tune its moves at power 0; with them, the flat tuning."""
    key_start, key_tune, key_move = prng.split(key, 3)
    for number in _PILOT_SIZES:
        particles = prior.draw(key_start, number, effort)
        if np.isfinite(np.asarray(particles.log_likelihood)).any():
            break
    else:
        found = f"-infinity at all of {number} draws of the two-stage prior"
        raise InvalidInput("log_likelihood", found, "finite at some draws")
    flat = prior.pin(untuned(key_tune, prior.recipe.model, particles.negative))
    particles, stage = _judged(key_move, prior, particles, flat, flat, 0.0, effort.num_moves)
    return particles, flat, stage


def _reweighted(key: jax.Array, particles: Particles, power: float) -> tuple[float, Particles]:
    delta, particles = _resample_next(key, particles, np.asarray(1 - power))
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
) -> tuple[Particles, PowerStage]:
    """Adapt with flat metrics, with curved ones, and then with the better of the two."""
    key_flat, key_fit, key_curved, key_choose, key_stage = prng.split(key, 5)
    recipe, settings = prior.recipe, (np.asarray(power), np.asarray(num_moves))

    def adapt(key: jax.Array, particles: Particles, tuning: Tuning) -> tuple[Particles, Tuning]:
        return adapt_steps(key, recipe, particles, tuning, *settings, _ADAPTING_SWEEPS)

    def fit(key: jax.Array, tuning: Tuning, other: Tuning, judge: bool) -> Tuning:
        return prior.pin(_refit(key, recipe, particles, tuning, other, power, judge))

    start = previous._replace(metric_2=flat.metric_2, metric_negative=flat.metric_negative)
    particles, with_flat = adapt(key_flat, particles, start)
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
) -> tuple[Particles, PowerStage]:
    """Adapt with metrics of the kind that the previous power had."""
    key_fit, key_stage = prng.split(key)
    recipe = prior.recipe
    fitted = _refit(key_fit, recipe, particles, previous, previous, power, False)
    kept = {
        name: getattr(flat, name)
        for name in ("metric_2", "metric_negative")
        if not np.asarray(getattr(previous, name).A).any()
    }
    fitted = prior.pin(fitted._replace(**kept))
    return _adapted(key_stage, recipe, particles, fitted, power, num_moves)


def _bridged_if_cheaper(
    key: jax.Array, prior: PriorSampler, particles: Particles, stage: PowerStage, num_moves: int
) -> tuple[Particles, PowerStage]:
    """Learn log Z where the population is, and bridge the exchange ratio, if that costs less.

    The cost is counted in moves of negative samples: of all sweeps until particles forget. Where
    there are bridges already, what is learned anew must cost less than what was learned before.
    """

    def cost(stage: PowerStage) -> float:
        return max(stage.num_needed, 1.0) * (num_moves + int(stage.tuning.num_bridges))

    is_bridged = int(stage.tuning.num_bridges) > 1
    is_cheap = isinstance(stage.negative, PersistentNegative)
    margin = 1.0 if is_bridged else _WORTHWHILE
    cheapest = margin * (num_moves + NUM_BRIDGES)  # one sweep
    if not is_cheap or (not is_bridged and cost(stage) <= cheapest):
        return particles, stage
    key_learn, key_adapt, key_stage = prng.split(key, 3)
    recipe, settings = prior.recipe, (np.asarray(stage.power), np.asarray(num_moves))
    tuning = _with_bridges(key_learn, recipe, particles, stage.tuning, stage.power)
    particles, tuning = adapt_steps(
        key_adapt, recipe, particles, tuning, *settings, _ADAPTING_SWEEPS
    )
    particles, new = _adapted(key_stage, recipe, particles, tuning, stage.power, num_moves)
    return particles, new if margin * cost(new) < cost(stage) else stage


@jax.jit
def _with_bridges(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    power: Float[Array, ""] | float,
) -> Tuning:
    key_order, key_learn = jax.random.split(key)
    # Neighbours of a resampled population are copies of one particle.
    order = jax.random.permutation(key_order, _NUM_LEARNED_FROM) % len(particles.theta_1)
    at = (x[order][None] for x in (particles.theta_1, particles.negative))
    of_one_chain = jax.tree.map(lambda x: x[None], tuning)
    found = with_bridges(key_learn, recipe.kernel(power), of_one_chain, *at)
    return jax.tree.map(lambda x: x[0], found)


@jax.jit
def _refit(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    previous: Tuning,
    power: Float[Array, ""] | float,
    judge: Bool[Array, ""] | bool,
) -> Tuning:
    """Fit the surrogates to a population, or (to judge) keep those that bought larger steps."""
    draws = {"theta_2": particles.theta_2, "negative": particles.negative}
    return refitted(key, recipe.kernel(power).model, draws, tuning, previous, judge)


def _adapted(
    key: jax.Array,
    recipe: Recipe,
    particles: Particles,
    tuning: Tuning,
    power: float,
    num_moves: int,
) -> tuple[Particles, PowerStage]:
    settings = (np.asarray(power), np.asarray(num_moves), _ADAPTING_SWEEPS)
    moved, tuning = adapt_steps(key, recipe, particles, tuning, *settings)
    # Each sweep is taken to keep the same share of memory.
    correlation = np.clip(float(_correlation(recipe, particles, moved)), 0.01, 0.999)
    num_needed = _ADAPTING_SWEEPS * np.log(_CORRELATION_LEFT) / np.log(correlation)
    return moved, PowerStage(power, tuning, float(num_needed), recipe.negative)


@jax.jit
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
