"""All Langevin chains of a run at once: their start, their steps, and what is kept of them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from generative import TwoStageModel
from generative.parts import Parts
from inference.annealing.anneal import anneal
from inference.kernels.langevin.dynamics import Dynamics, LangevinState, LangevinTuning, Metric
from inference.kernels.langevin.steps import READ
from inference.kernels.langevin.tuning import fitted_metric, largest_steps, squared_gradients
from inference.moves.density import describe

# Beyond this, annealed starts would need more memory than the chains.
_LARGEST_ANNEALED, _NUM_ANNEALED = 30_000, 64
_SHOW_RUNAWAYS = ("lp", "squared_distance_1", "squared_distance_2")
# A chain this many times further away than its prior lets it be has left for good.
_FARTHEST = 1e6


class Chains(NamedTuple):
    """State of all chains.

    Attributes
    ----------
    chain : LangevinState
        Leading axis: chains.
    rng_key : PRNG keys, shape (chain,)
    step : int array, shape (chain,)
        Since the schedule began; negative before.
    scale : array, shape (chain,)
        Factor of the last step, by the schedule.
    tuning : LangevinTuning
        Shared.
    """

    chain: LangevinState
    rng_key: jax.Array
    step: Int[Array, " chain"]
    scale: Float[Array, " chain"]
    tuning: LangevinTuning


@partial(jax.jit, static_argnums=2)
def start(keys: jax.Array, kernel: Dynamics, num_negatives: int) -> LangevinState:
    """Draw the first states: annealed under theta_1 from p1, where that is affordable."""
    model = kernel.model

    def one(key: jax.Array) -> LangevinState:
        key_1, key_2 = jax.random.split(key)
        theta_1 = model.first_stage.around(model.space.origin).sample(key_1)
        if model.dimension > _LARGEST_ANNEALED:
            draws = model.second_stage.around(theta_1).sample(key_2, (num_negatives + 1,))
            return kernel.init(theta_1, draws[0], draws[1:])
        particles = anneal(key_2, model, theta_1, _NUM_ANNEALED).particles
        first = jnp.argmax(jnp.isfinite(jax.vmap(model.log_likelihood)(particles)))
        chosen = (first + 1 + np.arange(num_negatives)) % _NUM_ANNEALED
        return kernel.init(theta_1, particles[first], particles[chosen])

    return jax.vmap(one)(keys)


def step_all(kernel: Dynamics, schedule: Parts, state: Chains) -> Chains:
    """Make one step of every chain; the schedule, of the step's number, is in parts."""

    def one(key: jax.Array, chain: LangevinState, step: Array) -> Chains:
        key, key_step = jax.random.split(key)
        scale = jnp.where(step < 0, 1.0, schedule.whole(jnp.maximum(step, 0)))
        scale = scale.astype(chain.theta_1.dtype)
        moved, _ = kernel.step(key_step, chain, state.tuning, scale)
        return without_tuning(Chains(moved, key, step + 1, scale, state.tuning))

    moved = jax.vmap(one)(state.rng_key, state.chain, state.step)
    return moved._replace(tuning=state.tuning)


def step_in_turn(kernel: Dynamics, schedule: Parts, state: Chains) -> Chains:
    """Make one step of one chain after the other: less memory."""
    tuning = state.tuning

    def one(rest: Chains) -> Chains:
        alone = jax.tree.map(lambda x: x[None], rest)
        moved = step_all(kernel, schedule, alone._replace(tuning=tuning))
        return jax.tree.map(lambda x: x[0], without_tuning(moved))

    return jax.lax.map(one, without_tuning(state))._replace(tuning=tuning)


def without_tuning(state: Chains) -> Chains:
    """Leave out what chains share: all leaves then have their axis."""
    return state._replace(tuning=())  # type: ignore[arg-type]  # put back before it is used


def collect(kernel: Dynamics, state: Chains) -> dict[str, Array]:
    """Statistics of all chains, with their parameters."""
    return _collected(kernel, state, _parameters)


def collect_answers(kernel: Dynamics, state: Chains) -> dict[str, Array]:
    """Statistics of all chains, with both heads' answers in place of the parameters."""
    return _collected(kernel, state, lambda point: _answers(kernel.model, point))


def collect_warmup(kernel: Dynamics, state: Chains) -> dict[str, Array]:
    """What shows a runaway chain."""
    return _chosen(collect(kernel, state), _SHOW_RUNAWAYS)


def collect_draws(kernel: Dynamics, state: Chains) -> dict[str, Array]:
    """What shows a runaway chain, and draws to which a metric can be fitted."""
    return _chosen(collect(kernel, state), (*_SHOW_RUNAWAYS, "theta_2", "negative"))


def _chosen(values: dict[str, Array], names: tuple[str, ...]) -> dict[str, Array]:
    return {name: values[name] for name in names}


def _collected(
    kernel: Dynamics, state: Chains, kept: Callable[[LangevinState], dict[str, Array]]
) -> dict[str, Array]:
    def one(key: jax.Array, chain: LangevinState, scale: Array) -> dict[str, Array]:
        tuning = _at(state.tuning, scale)
        point = read(kernel, key, chain, tuning)
        costs = jax.vmap(kernel.model.agreement.disagreement)(point.negative)
        return kept(point) | {
            **describe(kernel.model, point.theta_1, point.theta_2),
            **_distances(kernel.model, point),
            "disagreement_negative": costs.mean(),
            "step_size": tuning.step_size,
            "acceptance_rate": jnp.ones(()),  # nothing is rejected,
            "diverging": jnp.zeros((), bool),  # and what diverges stops the run
        }

    return jax.vmap(one)(state.rng_key, state.chain, state.scale)


def _at(tuning: LangevinTuning, scale: Array) -> LangevinTuning:
    """Return the tuning of a step; what a chain shows has the law of the points of its last one."""
    return tuning._replace(step_size=scale * tuning.step_size)


def _parameters(point: LangevinState) -> dict[str, Array]:
    return {
        "theta_1": point.theta_1,
        "theta_2": point.theta_2,
        "negative": point.negative[0],
    }


def _answers(model: TwoStageModel, point: LangevinState) -> dict[str, Array]:
    return {
        f"answers_{name}": model.answers(point.theta_2, inputs)
        for name, inputs in model.questions.items()
    }


@jax.jit
def read_all(kernel: Dynamics, state: Chains) -> LangevinState:
    """Draw the states that :func:`collect` describes."""

    def one(key: jax.Array, chain: LangevinState, scale: Array) -> LangevinState:
        return read(kernel, key, chain, _at(state.tuning, scale))

    return jax.vmap(one)(state.rng_key, state.chain, state.scale)


def read(
    kernel: Dynamics, key: jax.Array, chain: LangevinState, tuning: LangevinTuning
) -> LangevinState:
    """Draw the state that one chain shows, with the chain's own key left as it is."""
    return kernel.read(jax.random.fold_in(key, READ), chain, tuning)


def _distances(model: TwoStageModel, point: LangevinState) -> dict[str, Array]:
    """Squared distances by block, summed in 64 bits."""

    def by_block(shift: Array) -> Array:
        wide = jnp.result_type(float)
        blocks = model.space.blocks.values()
        return jnp.stack([jnp.sum(shift[block] ** 2, dtype=wide) for block in blocks])

    return {
        "squared_distance_1": by_block(point.theta_1 - model.space.origin),
        "squared_distance_2": by_block(point.theta_2 - point.theta_1),
    }


def runaway(model: TwoStageModel, values: dict[str, np.ndarray]) -> tuple[int, int, str] | None:
    """Find the first draw, chain and block that are not finite, or absurdly far away.

    Parameters
    ----------
    model : TwoStageModel
    values : dict
        Of :func:`collect`, shape (draw, chain, ...).
    """
    for name, stage in (
        ("squared_distance_1", model.first_stage),
        ("squared_distance_2", model.second_stage),
    ):
        expected = np.array([stage.variance[b].sum() for b in model.space.blocks.values()])
        with np.errstate(invalid="ignore"):
            near = values[name] <= _FARTHEST * expected + (expected == 0)
        bad = ~(near & np.isfinite(values[name]))  # a variance may be infinite
        if bad.any():
            draw, chain, block = np.argwhere(bad)[0]
            return int(draw), int(chain), list(model.space.blocks)[block]
    return None


fitted = jax.jit(fitted_metric, static_argnums=4)


@jax.jit
def mean_squares(
    key: jax.Array, kernel: Dynamics, chain: LangevinState
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Squared gradients by theta_2 and by negative samples, averaged over chains."""
    keys = jax.random.split(key, len(chain.theta_1))
    squares = jax.vmap(lambda k, s: squared_gradients(k, kernel, s))(keys, chain)
    return jax.tree.map(lambda x: x.mean(axis=0), squares)


@jax.jit
def typical_steps(
    key: jax.Array, kernel: Dynamics, metric: Metric, chain: LangevinState
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Steps for the curvature where the chains are, on average."""
    keys = jax.random.split(key, len(chain.theta_1))
    found = jax.vmap(lambda k, s: largest_steps(k, kernel, metric, s))(keys, chain)
    return jax.tree.map(lambda x: 1 / jnp.mean(1 / x), found)
