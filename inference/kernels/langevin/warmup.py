"""Warm-up of Langevin chains: a metric, and steps for it, chosen again after every round."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from generative.linear import GaussianConditional
from inference.kernels.langevin.chains import Chains, fitted, mean_squares, typical_steps
from inference.kernels.langevin.dynamics import Dynamics, Metric
from inference.kernels.langevin.tuning import diagonal_metric
from inference.running.loop import Loop

NUM_ROUNDS = 8
_FITTED_AFTER = (1, 3, 5)
WORTHWHILE = 1.5

Retune = Callable[[Dynamics, jax.Array, Chains, Metric], Chains]


def warm_up(
    kernel: Dynamics,
    loop: Loop,
    key: jax.Array,
    state: Chains,
    num_iterations: int,
    kind: Literal["curved", "diagonal", "flat"],
    retune: Retune,
    worthwhile: float = WORTHWHILE,
) -> tuple[Chains, dict[str, np.ndarray]]:
    """Move the chains in eight rounds, with another metric after each; the last keeps its own.

    Returns the chains, and what was collected on the way.

    Parameters
    ----------
    kernel : Dynamics
    loop : Loop
        Collects `theta_2` and `negative` where a curved metric is to be fitted.
    key : PRNG key
    state : Chains
        With the flat metric, whose rank fitted ones will have.
    num_iterations : int
        Of the loop, per round.
    kind : {"curved", "diagonal", "flat"}
    retune : callable
        (kernel, key, state, metric) -> state with that metric and steps that suit it.
    worthwhile : float
        A fitted metric must allow so many times larger steps than the flat one.
    """
    flat = state.tuning.metric
    rounds, squares = [], []
    state = retune(kernel, key, state, flat)
    for index in range(NUM_ROUNDS - 1):
        state, values = loop.run(state, num_iterations, f"warm-up {index + 1}/{NUM_ROUNDS}")
        rounds.append(values)
        key_metric, key_steps = jax.random.split(jax.random.fold_in(key, index))
        if kind == "curved" and index in _FITTED_AFTER:
            second, negative = (
                jnp.asarray(values[name].reshape(-1, kernel.model.dimension))
                for name in ("theta_2", "negative")
            )
            assert isinstance(flat.negative, GaussianConditional)
            curved = fitted(key_metric, kernel.model, second, negative, len(flat.negative.c))
            state = _better(kernel, key_steps, state, curved, flat, retune, worthwhile)
            continue
        metric = state.tuning.metric
        if kind == "diagonal":
            squares.append(mean_squares(key_metric, kernel, state.chain))
            recent = squares[len(squares) // 2 :]  # the chains were still on their way before
            second, negative = (sum(x) / len(x) for x in zip(*recent, strict=True))
            number = len(recent) * len(state.chain.theta_1)
            numbers = (number, number * state.chain.negative.shape[1])
            metric = diagonal_metric(kernel.model, second, negative, numbers)
        state = retune(kernel, key_steps, state, metric)
    state, values = loop.run(state, num_iterations, f"warm-up {NUM_ROUNDS}/{NUM_ROUNDS}")
    rounds.append(values)
    return state, {n: np.concatenate([r[n] for r in rounds], axis=1) for n in values}


def _better(
    kernel: Dynamics,
    key: jax.Array,
    state: Chains,
    curved: Metric,
    flat: Metric,
    retune: Retune,
    worthwhile: float,
) -> Chains:
    """Take the curved metric where the curvature then allows much larger steps."""
    bent, plain = (
        float(typical_steps(key, kernel, metric, state.chain)[0]) for metric in (curved, flat)
    )
    return retune(kernel, key, state, curved if bent >= worthwhile * plain else flat)
