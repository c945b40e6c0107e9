"""How many steps the ratio of normalisers is estimated in, and the force that goes with them.

A single exchange ratio is as noisy as its two ends are far apart: its variance grows with the
square of their distance, and falls as one over the number of steps between them. Where warm-up
with one step makes little progress, since trajectories are short or seldom accepted, the ratio is
bridged, and a force that is right for long ones is learned. Chains keep both if progress grows,
populations if they forget at less cost (:mod:`inference.evidence.pilot`).
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import LinearGaussianAgreement, TwoStageModel
from inference import prng
from inference.kernels.exchange.hmc import ExchangeHMC
from inference.kernels.exchange.kernel import ExchangeKernel
from inference.kernels.exchange.learned import NormalizerSurrogate, learn
from inference.kernels.exchange.pairs import pairs
from inference.kernels.exchange.state import ExchangeState, Tuning
from inference.kernels.negative import PersistentNegative, RejectionNegative, made_for_chains
from inference.moves import step_size as step_sizes
from inference.moves.step_size import StepSize

NUM_BRIDGES = 32
_NUM_POINTS = 256  # per chain
# Progress that is not worth the compilation of anything better.
_GOOD_ENOUGH = 0.67
# The factor by which bridges must raise it where draws by rejection, of another cost, go with them.
_WORTHWHILE = 1.2
# What trajectories of theta_2 and of both cost in a sweep, in moves of negative samples.
_OTHER_COST = 16


def progress(
    kernel: ExchangeKernel, state: ExchangeState, acceptance_rate: Float[np.ndarray, "chain n"]
) -> float:
    """Mean squared distance that a sweep goes, at most 1, in units of twice the variance.

    An accepted trajectory of angle t through a Gaussian goes 1 - cos t of it. Neither the angle nor
    the rate says as much alone: a quarter turn that one in four sweeps accepts is not progress.

    Parameters
    ----------
    kernel : ExchangeKernel
        Whose steps of a trajectory are limited, so that small ones cut it.
    state : ExchangeState
        Of a batch of chains, after a phase of warm-up.
    acceptance_rate : array, shape (chain, n)
        Of exchange moves in the phase.
    """
    longest = kernel.max_num_steps * np.asarray(state.tuning.step_joint.value)
    angle = np.minimum(np.asarray(state.tuning.step_1.value), longest)
    return float(np.mean(acceptance_rate.mean(axis=1) * (1 - np.cos(angle))))


def worth_bridging(kernel: ExchangeKernel, alone: float) -> bool:
    """Whether to try bridges: progress is poor, and samples can be moved between bridges.

    The trajectories must be of a kernel that follows the learned force.

    Parameters
    ----------
    kernel : ExchangeKernel
    alone : float
        Progress with one step of the ratio.
    """
    is_cheap = isinstance(kernel.negative, PersistentNegative | RejectionNegative)
    return is_cheap and isinstance(kernel, ExchangeHMC) and alone < _GOOD_ENOUGH


def bridged(
    kernel: ExchangeKernel,
    state: ExchangeState,
    draws: dict[str, Float[np.ndarray, "chain n d"]],
    key: jax.Array,
) -> tuple[ExchangeKernel, ExchangeState]:
    """Learn a surrogate of log Z from draws of all chains, and bridge the exchange ratio.

    Parameters
    ----------
    kernel : ExchangeKernel
        Where it draws by rejection, the kernel that is returned moves draws between bridges.
    state : ExchangeState
        Of a batch of chains.
    draws : dict
        Of theta_1 and of the negative samples.
    key : PRNG key
    """
    if isinstance(kernel.negative, RejectionNegative):
        key, key_mover = prng.split(key)
        plain = PersistentNegative(kernel.max_num_steps)
        mover = made_for_chains(plain, key_mover, kernel.model, draws)
        kernel = replace(kernel, mover=mover)
        # Nothing has adapted it; steps of theta_2 are as long as those of draws of q may be.
        state = state._replace(tuning=state.tuning._replace(step_negative=state.tuning.step_2))
    chosen = np.linspace(0, draws["theta_1"].shape[1] - 1, _NUM_POINTS).astype(int)
    at = (draws[name][:, chosen] for name in ("theta_1", "negative"))
    return kernel, state._replace(tuning=with_bridges(key, kernel, state.tuning, *at))


def worthwhile(together: float, alone: float, num_moves: int | None) -> bool:
    """Whether bridges add more to progress than to the cost of a sweep.

    Parameters
    ----------
    together, alone : float
        Progress with bridges, and with one step of the ratio.
    num_moves : int or None
        Per negative sample; a step of the ratio takes about as long as one of them. None for exact
        draws, whose cost is not told in moves.
    """
    if num_moves is None:
        return together > _WORTHWHILE * alone
    cost = num_moves + _OTHER_COST
    return together * cost > alone * (cost + NUM_BRIDGES)


@jax.jit
def unbridged(model: TwoStageModel, state: ExchangeState) -> ExchangeState:
    """Return to one step of the ratio, and to the quadratic surrogate of log Z."""
    tuning = state.tuning
    quadratics = jax.vmap(lambda one: NormalizerSurrogate.uncorrected(model, one))(tuning.transport)
    single = tuning._replace(normalizer=quadratics, num_bridges=jnp.ones_like(tuning.num_bridges))
    return state._replace(tuning=restarted(single))


@jax.jit
def restarted(tuning: Tuning) -> Tuning:
    """Begin to adapt trajectories anew, from the lengths that they have.

    Parameters
    ----------
    tuning : Tuning
        Leading axis: chains.
    """

    def again(step: StepSize) -> StepSize:
        return jax.vmap(lambda value: step_sizes.initial(value, value.dtype))(step.value)

    return tuning._replace(step_1=again(tuning.step_1), step_joint=again(tuning.step_joint))


@jax.jit
def with_bridges(
    key: jax.Array,
    kernel: ExchangeKernel,
    tuning: Tuning,
    theta_1: Float[Array, "chain n d"],
    negative: Float[Array, "chain n d"],
) -> Tuning:
    """Bridge, with one learned surrogate of log Z, or each chain's quadratic where that is better.

    Parameters
    ----------
    key : PRNG key
    kernel : ExchangeKernel
    tuning : Tuning
        Leading axis: chains.
    theta_1, negative : arrays, shape (chain, n, d)
        Draws, among which the surrogate is to be right.
    """
    model, mover = kernel.model, kernel.mover or kernel.negative
    key_pairs, key_learn = jax.random.split(key)
    found = pairs(key_pairs, model, mover, tuning, theta_1, negative)
    quadratic = jax.tree.map(lambda x: x[0], tuning.transport)
    learned, explained = learn(key_learn, model, quadratic, found)
    drawn = (x.reshape(-1, model.dimension) for x in (theta_1, negative))
    learned = learned.followed(model, *drawn, NUM_BRIDGES)

    def chosen(own: LinearGaussianAgreement) -> NormalizerSurrogate:
        plain = NormalizerSurrogate.uncorrected(model, own)
        return jax.tree.map(lambda x, y: jnp.where(learned.is_learned, x, y), learned, plain)

    return restarted(
        tuning._replace(
            normalizer=jax.vmap(chosen)(tuning.transport),
            explained=jnp.broadcast_to(explained.astype(theta_1.dtype), len(theta_1)),
            num_bridges=jnp.full_like(tuning.num_bridges, NUM_BRIDGES),
        )
    )
