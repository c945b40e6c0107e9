"""log p(data) by nested sampling of the two-stage prior, under a floor on L.

Live points start in the two-stage prior and move by exchange, so no Z(theta_1) is ever needed.
BlackJAX keeps the books (:mod:`blackjax.ns`); the moves are those of
:class:`~inference.kernels.exchange.constrained.ConstrainedHMC`. A coordinate that breaks ties lets
plateaus of L lose volume at the right rate (A. Fowlie, W. Handley and L. Su, MNRAS 503 (2021),
doi:10.1093/mnras/stab590). J. Skilling, Bayesian Analysis 1 (2006), doi:10.1214/06-BA127.
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.ns import adaptive, from_mcmc
from blackjax.ns.base import StateWithLogLikelihood
from jaxtyping import Array, Float, Int

from generative import TwoStageModel
from inference import prng
from inference.averages import mean_of_runs
from inference.checks import Check
from inference.devices import shard
from inference.estimate import Estimate
from inference.evidence.pilot import start_stage
from inference.evidence.population import Particles, Recipe
from inference.evidence.prior import Effort, PriorSampler
from inference.evidence.tempered import prior_check, settled
from inference.gaussians import surrogate as surrogates
from inference.kernels.exchange.constrained import (
    WORTHLESS,
    ConstrainedHMC,
    ConstrainedInfo,
    ranked,
    redraw_tie,
)
from inference.kernels.exchange.state import Tuning
from inference.moves.step_size import LARGEST_ANGLE, SMALLEST_ANGLE, StepSize
from inference.running.progress import SILENT, Monitor

_CHUNK = 10
_SHARE_DELETED = 0.1
# Share of the evidence that may be left among the live points.
_LOG_SHARE_LEFT = float(np.log(1e-3))
_TARGET_ACCEPTANCE = 0.75
# Where noise grows like the length of a step, steps that are accepted so often go furthest.
_TARGET_EXCHANGE = 0.25
_NUM_CURVATURE_POINTS = 8
_LARGEST_POWER = 100.0


class NestedRuns(NamedTuple):
    """What runs found: independent but for the tuning, which all live points share.

    Attributes
    ----------
    log_evidence : array, shape (run,)
        Nats.
    theta_1, theta_2 : arrays, shape (run, point, d)
        Dead points in the order of their death, then the last live ones.
    log_likelihood, birth : arrays, shape (run, point)
        L with its ties broken (:func:`~inference.kernels.exchange.constrained.ranked`), and the
        floor that each point was born above, -infinity at first; nats.
    num_live : int
    finished : bool array, shape (run,)
        Whether the live points hold less than a thousandth of the evidence.
    acceptance_rate : float array, shape (chunk,)
        Of the exchange move, a mean over all runs for about every nat of compression.
    progress : float array, shape (chunk,)
        Squared steps of the sweeps of one new point, in units of twice the variance of their
        reference, if none bounces: the sum in the run that makes least.
    step_size : float
        Last angle of leapfrog steps of theta_2, radians.
    num_failed : int
        Negative samples not found.
    live_theta_1, live_negative : arrays, shape (run, live, d)
        Of the last live points.
    exchangeable : Check or None
        Of the first live points, where these were annealed.
    """

    log_evidence: Float[np.ndarray, " run"]
    theta_1: Float[np.ndarray, "run point d"]
    theta_2: Float[np.ndarray, "run point d"]
    log_likelihood: Float[np.ndarray, "run point"]
    birth: Float[np.ndarray, "run point"]
    num_live: int
    finished: np.ndarray
    acceptance_rate: Float[np.ndarray, " chunk"]
    progress: Float[np.ndarray, " chunk"]
    step_size: float
    num_failed: int
    live_theta_1: Float[np.ndarray, "run live d"]
    live_negative: Float[np.ndarray, "run live d"]
    exchangeable: Check | None

    @property
    def estimate(self) -> Estimate:
        """Mean over runs, with the error that their spread gives."""
        value, error = mean_of_runs(self.log_evidence[None])
        finished = bool(self.finished.all())
        return Estimate(
            float(value[0]), float(error[0]) if finished else np.inf, method="nested_sampling"
        )


class _Settings(eqx.Module):
    recipe: Recipe
    num_live: int = eqx.field(static=True)
    num_sweeps: int = eqx.field(static=True)

    @property
    def num_delete(self) -> int:
        return max(1, int(_SHARE_DELETED * self.num_live))


def run(
    prior: PriorSampler,
    key: jax.Array,
    num_runs: int,
    num_live: int,
    num_sweeps: int,
    effort: Effort,
    max_nats: float,
    monitor: Monitor = SILENT,
    sharded: bool = False,
) -> NestedRuns:
    """Make independent runs at once.

    Parameters
    ----------
    prior : PriorSampler
    key : PRNG key
    num_runs, num_live : int
    num_sweeps : int
        Moves of a new point from the live point that it starts at.
    effort : Effort
    max_nats : float
        Compression of the prior at which a run stops in any case.
    monitor : Monitor
    sharded : bool
        Whether to spread the runs over all devices.
    """
    key, key_stage, key_start, key_tie = prng.split(key, 4)
    stage = start_stage(prior, key_stage, effort)
    settings = _Settings(prior.recipe, num_live, num_sweeps)
    particles = settled(prior, key_start, stage, num_runs, num_live, effort, monitor)
    exchangeable = prior_check(prior, particles)
    if sharded:
        particles = shard(particles, num_runs, "num_runs")
    state = _init(key_tie, settings, particles)
    tuning = stage.tuning
    max_chunks = int(np.ceil(max_nats * num_live / settings.num_delete / _CHUNK))
    section, zero = monitor.section("nested sampling"), np.zeros(0)
    dead = [(zero,) * 4] * section.count
    infos = [ConstrainedInfo(*(zero,) * len(ConstrainedInfo._fields))] * section.count
    state, tuning, dead, infos = section.restore((state, tuning, dead, infos))
    nats = _CHUNK * settings.num_delete / num_live
    with monitor.bar(None, "nested sampling", "nat", nats * len(dead)) as bar:
        while len(dead) < max_chunks and not _is_finished(state).all():
            key_fit, key_runs = prng.split(prng.fold_in(key, len(dead)))
            tuning = _refitted(key_fit, settings.recipe, state, tuning)
            state, (points, info) = _advance(
                key_runs, settings, state, tuning, np.asarray(effort.num_moves)
            )
            tuning = _adapted(tuning, info)
            dead.append(jax.tree.map(np.asarray, points))
            infos.append(jax.tree.map(np.asarray, info))
            bar.update(nats)
            bar.set_postfix_str(f"log evidence {np.asarray(state.integrator.logZ).mean():.2f}")
            if section.is_due:
                section.save((state, tuning, dead, infos), len(dead))
    section.save((state, tuning, dead, infos), len(dead))
    step_size = float(tuning.step_2.value)
    return _gathered(settings, state, dead, infos, step_size, exchangeable)


def _is_finished(state: adaptive.AdaptiveNSState) -> np.ndarray:
    return np.asarray(state.integrator.logZ_live - state.integrator.logZ) < _LOG_SHARE_LEFT


def _gathered(
    settings: _Settings,
    state: adaptive.AdaptiveNSState,
    dead: list[tuple],
    infos: list[ConstrainedInfo],
    step_size: float,
    exchangeable: Check | None,
) -> NestedRuns:
    live = state.particles
    order = np.argsort(np.asarray(live.loglikelihood), axis=1)
    last = (
        live.position["theta_1"],
        live.position["theta_2"],
        live.loglikelihood,
        live.loglikelihood_birth,
    )

    def joined(name: int, x: Array) -> np.ndarray:
        rows = np.arange(len(order))[:, None]
        return np.concatenate(
            [*(chunk[name] for chunk in dead), np.asarray(x)[rows, order]], axis=1
        )

    theta_1, theta_2, value, birth = (joined(i, x) for i, x in enumerate(last))
    return NestedRuns(
        np.asarray(jnp.logaddexp(state.integrator.logZ, state.integrator.logZ_live)),
        theta_1,
        theta_2,
        value,
        np.nan_to_num(birth, nan=-np.inf),
        settings.num_live,
        _is_finished(state),
        np.array([info.rate_exchange.mean() for info in infos]),
        np.array([settings.num_sweeps * info.progress.mean(axis=1).min() for info in infos]),
        step_size,
        int(sum(info.num_failed.sum() for info in infos)),
        np.asarray(live.position["theta_1"]),
        np.asarray(live.position["negative"]),
        exchangeable,
    )


@jax.jit
def _init(key: jax.Array, settings: _Settings, particles: Particles) -> adaptive.AdaptiveNSState:
    def one(key: jax.Array, particles: Particles) -> adaptive.AdaptiveNSState:
        ties = jax.random.uniform(key, particles.log_likelihood.shape)
        position = {
            "theta_1": particles.theta_1,
            "theta_2": particles.theta_2,
            "negative": particles.negative,
            "tie": ties.astype(jnp.result_type(float)),
        }
        init_one = partial(_point, settings.recipe.model, birth=jnp.asarray(jnp.nan))
        return adaptive.init(position, jax.vmap(init_one))

    return jax.vmap(one)(jax.random.split(key, len(particles.theta_1)), particles)


@jax.jit
def _advance(
    key: jax.Array,
    settings: _Settings,
    state: adaptive.AdaptiveNSState,
    tuning: Tuning,
    num_moves: Int[Array, ""],
) -> tuple[adaptive.AdaptiveNSState, tuple[tuple, ConstrainedInfo]]:
    """Make some steps of every run; with the state, the points that died, in order of death.

    All runs share one tuning, so that products with the surrogates are matrix products.
    """
    kernel = from_mcmc.build_kernel(
        partial(_constrained_step, settings.recipe, tuning, num_moves),
        settings.num_sweeps,
        lambda key, state, info, params: params,
        settings.num_delete,
    )

    def step(state: adaptive.AdaptiveNSState, key: jax.Array) -> tuple[Any, tuple[Any, Any]]:
        state, info = kernel(key, state)
        points, position = info.particles, info.particles.position
        died = (
            position["theta_1"],
            position["theta_2"],
            points.loglikelihood,
            points.loglikelihood_birth,
        )
        moved = info.update_info
        rates = jax.tree.map(jnp.mean, moved)._replace(num_failed=moved.num_failed.sum())
        return state, (died, rates)

    def one(key: jax.Array, state: adaptive.AdaptiveNSState) -> tuple:
        state, (steps, info) = jax.lax.scan(step, state, jax.random.split(key, _CHUNK))
        return state, (jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), steps), info)

    return jax.vmap(one)(jax.random.split(key, len(state.particles.loglikelihood)), state)


def _constrained_step(
    recipe: Recipe,
    tuning: Tuning,
    num_moves: Int[Array, ""],
    rng_key: jax.Array,
    point: StateWithLogLikelihood,
    loglikelihood_0: Float[Array, ""],
) -> tuple[StateWithLogLikelihood, ConstrainedInfo]:
    key_move, key_tie = jax.random.split(rng_key)
    position = point.position
    kernel = ConstrainedHMC(
        recipe.model, recipe.negative, recipe.max_num_steps, loglikelihood_0, position["tie"]
    )
    state = kernel.start(
        key_move, position["theta_1"], position["theta_2"], position["negative"], tuning
    )
    state, info = kernel.move(state._replace(num_moves=num_moves))
    value = _float64(recipe.model.log_likelihood(state.z["theta_2"]))
    tie = redraw_tie(key_tie, value, loglikelihood_0)
    moved = state.z | {"negative": state.negative, "tie": tie}
    proposed = _point(recipe.model, moved, birth=point.loglikelihood_birth)
    is_above = proposed.loglikelihood > loglikelihood_0
    return jax.tree.map(lambda new, old: jnp.where(is_above, new, old), proposed, point), info


def _point(
    model: TwoStageModel, position: dict[str, Array], birth: Array
) -> StateWithLogLikelihood:
    value = ranked(_float64(model.log_likelihood(position["theta_2"])), position["tie"])
    zero = jnp.zeros_like(value)
    return StateWithLogLikelihood(position, zero, value, birth + zero)


@jax.jit
def _refitted(
    key: jax.Array, recipe: Recipe, state: adaptive.AdaptiveNSState, tuning: Tuning
) -> Tuning:
    """Fit the reference to the live points, at the power whose typical L is theirs.

    Volume above a floor falls as exp(-beta L) where tempered draws live at that floor, so that
    1 / beta is the mean height of the live points above the lowest.
    """
    values = state.particles.loglikelihood
    is_worth = values > -WORTHLESS
    lowest = jnp.min(jnp.where(is_worth, values, jnp.inf), axis=1, keepdims=True)
    height = jnp.sum(jnp.where(is_worth, values - lowest, 0)) / jnp.maximum(is_worth.sum(), 1)
    theta_2 = state.particles.position["theta_2"]
    theta_2 = theta_2.reshape(-1, theta_2.shape[-1])
    power = jnp.clip(1 / height, 0, _LARGEST_POWER).astype(theta_2.dtype)
    tempered = recipe.model.temper(power)
    key_2, key_likelihood = jax.random.split(key)
    metric_2, likelihood = (
        surrogates.fit(key, tempered, potential, theta_2, _NUM_CURVATURE_POINTS)
        for key, potential in (
            (key_2, surrogates.posterior_potential(tempered)),
            (key_likelihood, surrogates.likelihood_potential(tempered)),
        )
    )
    return tuning._replace(metric_2=metric_2, likelihood=likelihood)


@jax.jit
def _adapted(tuning: Tuning, info: ConstrainedInfo) -> Tuning:
    def adapt(
        step: StepSize, rate: Array | np.ndarray, target: float = _TARGET_ACCEPTANCE
    ) -> StepSize:
        value = step.value * jnp.exp(rate.mean() - target)
        return step._replace(value=jnp.clip(value, SMALLEST_ANGLE, LARGEST_ANGLE))

    return tuning._replace(
        step_1=adapt(tuning.step_1, info.rate_exchange, _TARGET_EXCHANGE),
        step_2=adapt(tuning.step_2, info.rate_second),
        step_joint=adapt(tuning.step_joint, info.rate_both),
    )


def _float64(value: Array) -> Array:
    return value.astype(jnp.result_type(float))
