"""How many steps the ratio of normalisers is estimated in, and the force that goes with them.

A single exchange ratio is as noisy as its two ends are far apart: its variance grows with the
square of their distance, and falls as one over the number of steps between them. Where warm-up
with one step had to shorten the trajectory to a share s of a quarter turn, 1 / s^2 steps allow a
whole one; a force that is right for such lengths is then learned, too. Both are kept if they buy
more than they cost.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from inference.kernels.exchange.kernel import ExchangeKernel
from inference.kernels.exchange.learned import learn
from inference.kernels.exchange.pairs import pairs
from inference.kernels.exchange.state import ExchangeState
from inference.moves import step_size as step_sizes
from inference.moves.step_size import LARGEST_ANGLE, StepSize

NUM_BRIDGES = 32
# Trajectories of this share of a quarter turn are long enough.
_LONG_ENOUGH = 0.9
_NUM_POINTS = 256  # per chain
# By what factor trajectories must grow, for sweeps that cost about half as much again.
_WORTHWHILE = 1.2


def worth_bridging(kernel: ExchangeKernel, step_1: StepSize) -> bool:
    """Whether the exchange ratio keeps trajectories short, and bridges are moves that are cheap."""
    return not kernel.negative.is_exact and _share(step_1) < _LONG_ENOUGH


def bridged(
    kernel: ExchangeKernel,
    state: ExchangeState,
    draws: dict[str, Float[np.ndarray, "chain n d"]],
    step_1: StepSize,
    key: jax.Array,
) -> ExchangeState:
    """Learn a surrogate of log Z from draws of all chains, and bridge the exchange ratio.

    Parameters
    ----------
    kernel : ExchangeKernel
    state : ExchangeState
        Of a batch of chains.
    draws : dict
        Of theta_1 and of the negative samples.
    step_1 : StepSize
        As one step of the ratio allows.
    key : PRNG key
    """
    chosen = np.linspace(0, draws["theta_1"].shape[1] - 1, _NUM_POINTS).astype(int)
    at = (draws[name][:, chosen] for name in ("theta_1", "negative"))
    normalizer, explained = _learned(key, kernel, state, *at)
    tuning = state.tuning._replace(normalizer=normalizer, explained=explained)
    return _with_bridges(state._replace(tuning=tuning), NUM_BRIDGES)


def judged(state: ExchangeState, plain: StepSize) -> ExchangeState:
    """Keep bridges that lengthen trajectories by more than they cost; give up others.

    Parameters
    ----------
    state : ExchangeState
        At the end of a phase with bridges.
    plain : StepSize
        As one step of the ratio allowed.
    """
    if _share(state.tuning.step_1) > _WORTHWHILE * _share(plain):
        return state
    return _with_bridges(state, 1)


def _share(step_1: StepSize) -> float:
    """Mean length of trajectories in quarter turns."""
    return float(np.mean(np.asarray(step_1.value))) / float(LARGEST_ANGLE)


def _with_bridges(state: ExchangeState, number: int) -> ExchangeState:
    """Change the number of steps, and begin to adapt the length of trajectories anew."""
    return _restarted(state, np.asarray(number))


@jax.jit
def _restarted(state: ExchangeState, number: Int[Array, ""]) -> ExchangeState:
    def again(step: StepSize) -> StepSize:
        return jax.vmap(lambda value: step_sizes.initial(value, value.dtype))(step.value)

    tuning = state.tuning
    tuning = tuning._replace(step_1=again(tuning.step_1), step_joint=again(tuning.step_joint))
    num_bridges = jnp.broadcast_to(number, state.num_bridges.shape)
    return state._replace(num_bridges=num_bridges, tuning=tuning)


@jax.jit
def _learned(
    key: jax.Array,
    kernel: ExchangeKernel,
    state: ExchangeState,
    theta_1: Float[Array, "chain n d"],
    negative: Float[Array, "chain n d"],
) -> tuple:
    key_pairs, key_learn = jax.random.split(key)
    found = pairs(key_pairs, kernel.model, kernel.negative, state.tuning, theta_1, negative)
    quadratic = jax.tree.map(lambda x: x[0], state.tuning.normalizer.quadratic)
    learned = learn(key_learn, kernel.model, quadratic, found)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (len(theta_1), *x.shape)), learned)
