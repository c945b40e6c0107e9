"""Draws of q(. | theta_1) from chains that start all over the second stage.

They cost far less than annealing, and reach every basin that the second stage covers; but how many
end in which basin says little about its mass. So they serve to check and to correct a proposal
that covers q, never to find masses.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from inference.annealing.path import Path

_MAX_DESCENTS = 60
_WORTH_DESCENDING = 1.0  # nats
_SHRINK, _GROW = 0.25, 2.0
# Chains move in bouts until no more of them climb than fall and none lags far behind (in robust
# standard deviations of the log density), and then some more.
_MOVES_A_BOUT, _MAX_BOUTS, _LAST_BOUTS = 5, 20, 3
_STILL_CLIMBING, _LAGGING = 2.0, 10.0
_FIRST_STEP_SIZE, _TARGET_ACCEPTANCE = 0.5, 0.8


class Dispersed(NamedTuple):
    """Ends of the chains.

    Attributes
    ----------
    draws : array, shape (n, d)
    settled : bool array
        Whether the chains had reached a common level before the last bouts.
    num_evaluations : int array
        Of C and its gradient.
    """

    draws: Float[Array, "n d"]
    settled: Bool[Array, ""]
    num_evaluations: Int[Array, ""]


def dispersed_chains(key: jax.Array, path: Path, num_chains: int) -> Dispersed:
    """Draw from the second stage, descend to where f lives, then move by Hamiltonian trajectories.

    Parameters
    ----------
    key : PRNG key
    path : Path
        Its base is the metric of descents and moves.
    num_chains : int
    """
    key, key_start = jax.random.split(key)
    starts = path.model.second_stage.around(path.theta_1).sample(key_start, (num_chains,))
    starts, cost = _descend(path, starts)
    log_f = jax.vmap(lambda theta: path.log_density(jnp.ones(()), theta))

    def step(state: tuple, key: jax.Array) -> tuple[tuple, Array]:
        theta, step_size = state
        keys = jax.random.split(key, num_chains)
        theta, info = jax.vmap(path.move, (0, 0, None, None))(keys, theta, 1.0, step_size)
        factor = jnp.exp(info.acceptance_rate.mean() - _TARGET_ACCEPTANCE)
        step_size = jnp.clip(step_size * factor, 1e-4, jnp.pi / 2).astype(step_size.dtype)
        return (theta, step_size), jnp.sum(info.num_steps + 1)

    def bout(carry: tuple) -> tuple:
        state, before, _, count, cost = carry
        keys = jax.random.split(jax.random.fold_in(key, count), _MOVES_A_BOUT)
        state, spent = jax.lax.scan(step, state, keys)
        now = log_f(state[0])
        climbing = jnp.sign(now - before).mean() > _STILL_CLIMBING / jnp.sqrt(num_chains)
        cost += spent.sum() + num_chains
        return state, now, climbing | _is_lagging(now), count + 1, cost

    def unsettled(carry: tuple) -> Array:
        _, _, is_unsettled, count, _ = carry
        return is_unsettled & (count < _MAX_BOUTS)

    state = (starts, jnp.asarray(_FIRST_STEP_SIZE))
    carry = (state, log_f(starts), jnp.asarray(True), jnp.asarray(0), cost)
    carry = jax.lax.while_loop(unsettled, bout, carry)
    (draws, _), now, _, _, cost = jax.lax.fori_loop(0, _LAST_BOUTS, lambda _, c: bout(c), carry)
    return Dispersed(draws, ~carry[2] & ~_is_lagging(now), cost)


def _is_lagging(log_f: Float[Array, " n"]) -> Bool[Array, ""]:
    low, middle, high = jnp.quantile(log_f, jnp.array([0.25, 0.5, 0.75], log_f.dtype))
    return ~(log_f.min() >= middle - _LAGGING * (high - low + 1))


def _descend(path: Path, theta: Float[Array, "n d"]) -> tuple[Float[Array, "n d"], Int[Array, ""]]:
    """Climb log f by preconditioned gradient steps whose lengths each chain adapts.

    From far out Hamiltonian moves alone lose energy only by half a move.
    """
    value_and_grad = jax.vmap(
        jax.value_and_grad(lambda theta: path.log_density(jnp.ones(()), theta))
    )
    precondition = jax.vmap(path.base.covariance)

    def step(carry: tuple) -> tuple:
        theta, value, gradient, length, _, count = carry
        proposed = theta + length[:, None] * precondition(gradient)
        new_value, new_gradient = value_and_grad(proposed)
        better = new_value > value
        gain = jnp.max(jnp.where(better, new_value - value, 0.0))
        # A step that failed may succeed when shorter.
        gain = jnp.where(jnp.all(better), gain, jnp.inf)
        return (
            jnp.where(better[:, None], proposed, theta),
            jnp.where(better, new_value, value),
            jnp.where(better[:, None], new_gradient, gradient),
            jnp.where(better, jnp.minimum(_GROW * length, 1.0), _SHRINK * length),
            gain,
            count + 1,
        )

    def gaining(carry: tuple) -> Array:
        return (carry[4] > _WORTH_DESCENDING) & (carry[5] < _MAX_DESCENTS)

    value, gradient = value_and_grad(theta)
    length = jnp.ones(len(theta), theta.dtype)
    start = (theta, value, gradient, length, jnp.full((), jnp.inf, value.dtype), jnp.asarray(0))
    theta, _, _, _, _, count = jax.lax.while_loop(gaining, step, start)
    return theta, (count + 1) * len(theta)
