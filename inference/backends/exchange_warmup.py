"""What chains with an exchange ratio learn before their draws count, phase by phase."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import TwoStageModel
from inference import prng
from inference.gaussians.joint import matched_variance
from inference.kernels.exchange.bridges import (
    bridged,
    progress,
    restarted,
    unbridged,
    worth_bridging,
    worthwhile,
)
from inference.kernels.exchange.kernel import ExchangeKernel
from inference.kernels.exchange.lag import moves_needed
from inference.kernels.exchange.state import ExchangeState, Tuning
from inference.kernels.exchange.warmup import refitted
from inference.kernels.negative import made_for_chains
from inference.running.loop import Loop

_NUM_PHASES = 4
# Iterations from which there is something to learn.
_SHORTEST_PHASE = 8
# Draws per chain at which the memory of negative samples is measured.
_LAG_POINTS = 64


def warm_up(
    kernel: ExchangeKernel,
    loop_of: Callable[[ExchangeKernel], Loop],
    state: ExchangeState,
    key: jax.Array,
    num_sweeps: int,
    choose_moves: bool,
) -> tuple[ExchangeKernel, Loop, ExchangeState]:
    """Adapt in four phases: flat metrics, curved ones, bridges, and whatever of them is kept.

    Between them libraries are made again, and references take the width of theta_1.

    Parameters
    ----------
    kernel : ExchangeKernel
    loop_of : callable
        The loop of a kernel's sweeps.
    state : ExchangeState
        Of a batch of chains.
    key : PRNG key
    num_sweeps : int
        Of warm-up, about.
    choose_moves : bool
        Whether to measure, in the end, how many moves a negative sample takes.

    Returns
    -------
    kernel : ExchangeKernel
        The one given, with negative samples made for where the chains are, and maybe bridges.
    loop : Loop
        Of its sweeps.
    state : ExchangeState
    """
    quarter = num_sweeps // _NUM_PHASES
    lengths = [quarter] * (_NUM_PHASES - 1) + [num_sweeps - (_NUM_PHASES - 1) * quarter]
    key_learn, key_moves, key_negative = prng.split(key, 3)
    flat, alone = state.tuning, None
    for phase, length in enumerate(lengths):
        loop = loop_of(kernel)
        iterations = -(-length // loop.thinning)
        state = state._replace(num_warmup=state.i + iterations * loop.thinning)
        state, values = loop.run(state, iterations, f"warm-up {phase + 1}/{_NUM_PHASES}")
        if phase == _NUM_PHASES - 1 or iterations < _SHORTEST_PHASE:
            continue
        late = {name: x[:, iterations // 2 :] for name, x in values.items()}
        reached = progress(kernel, state, late["acceptance_rate"])
        key_phase = prng.fold_in(key_negative, phase)
        negative = made_for_chains(kernel.negative, key_phase, kernel.model, late)
        kernel = replace(kernel, negative=negative)
        if phase == 2:
            if alone is not None:
                number = _num_moves(kernel, state, values, key_moves, choose_moves)
                if not worthwhile(reached, alone, number):
                    kernel, state = replace(kernel, mover=None), unbridged(kernel.model, state)
            # Only now do chains move well enough to show how wide theta_1 is.
            state = _matched(kernel.model, state, late["theta_1"])
            continue
        flat = state.tuning if phase == 0 else flat
        drawn = {name: late[name] for name in ("theta_2", "negative")}
        state = _refitted(kernel.model, state, drawn, flat, np.asarray(phase > 0))
        if phase == 1 and worth_bridging(kernel, reached):
            drawn = {name: late[name] for name in ("theta_1", "negative")}
            kernel, state = bridged(kernel, state, drawn, key_learn)
            alone = reached
    number = _num_moves(kernel, state, values, key_moves, choose_moves) if values else None
    if number is not None:
        state = state._replace(num_moves=jnp.full_like(state.num_moves, number))
    return kernel, loop, state


@jax.jit
def _refitted(
    model: TwoStageModel,
    state: ExchangeState,
    draws: dict[str, jax.Array],
    flat: Tuning,
    judge: jax.Array,
) -> ExchangeState:
    """Refit every chain's surrogates to its own draws."""

    def one(state: ExchangeState, draws: dict[str, jax.Array], flat: Tuning) -> ExchangeState:
        rng_key, key_fit = jax.random.split(state.rng_key)
        tuning = refitted(key_fit, model, draws, state.tuning, flat, judge)
        return state._replace(rng_key=rng_key, tuning=tuning)

    return jax.vmap(one)(state, draws, flat)


@jax.jit
def _matched(
    model: TwoStageModel, state: ExchangeState, theta_1: Float[Array, "chain n d"]
) -> ExchangeState:
    """Make references of joint moves as wide as theta_1 is over all chains; try lengths anew."""
    drawn = theta_1.reshape(-1, model.dimension)

    def one(tuning: Tuning) -> Array:
        return matched_variance(model, tuning.transport, tuning.likelihood, drawn)

    tuning = state.tuning._replace(variance_1=jax.vmap(one)(state.tuning))
    return state._replace(tuning=restarted(tuning))


def _num_moves(
    kernel: ExchangeKernel,
    state: ExchangeState,
    values: dict[str, np.ndarray],
    key: jax.Array,
    is_chosen: bool,
) -> int | None:
    """Moves per negative sample that its memory in a phase of warm-up asks for, or that are given.

    None where samples are exact.
    """
    if kernel.negative.is_exact:
        return None
    if not is_chosen:
        return int(np.max(np.asarray(state.num_moves)))
    late = values["theta_1"].shape[1] // 2
    chosen = np.linspace(late, values["theta_1"].shape[1] - 1, _LAG_POINTS).astype(int)
    pair = (values[name][:, chosen] for name in ("theta_1", "negative"))
    return moves_needed(key, kernel, state.tuning, *pair)
