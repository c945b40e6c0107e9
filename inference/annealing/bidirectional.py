"""log Z from work done along a path in both directions.

Forward work starts from the base, reverse work from draws of q(. | theta_1). Bennett's acceptance
ratio joins both into the estimate of least variance, which knows when the two do not overlap
(C. H. Bennett, J. Comput. Phys. 22 (1976), doi:10.1016/0021-9991(76)90078-4; M. R. Shirts et al.,
Phys. Rev. Lett. 91 (2003), doi:10.1103/PhysRevLett.91.140601). With no temperatures between the
ends this is warp bridge sampling (X.-L. Meng and S. Schilling, J. Comput. Graph. Stat. 11 (2002),
doi:10.1198/106186002457). Work is a log weight here: f over base along the way, nats.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import expit, logsumexp

from inference.annealing.anneal import Schedule
from inference.annealing.path import Path
from inference.averages import student_factor

_BISECTIONS = 80
# Below this many draws in the region where both ends live, the ratio is not known.
_SMALLEST_OVERLAP = 5.0
_SIGMAS_OF_A_CONTRADICTION = 5.0


class Work(NamedTuple):
    """Log weights of chains between the base and f, and their cost.

    Attributes
    ----------
    log_weights : array, shape (n,)
        Unbiased for Z after exp forward, for 1 / Z after exp of minus reverse; nats.
    num_evaluations : int array
    """

    log_weights: Float[Array, " n"]
    num_evaluations: Int[Array, ""]


def forward_work(key: jax.Array, path: Path, schedule: Schedule, num_chains: int) -> Work:
    """Carry draws of the base to f, by annealed importance sampling.

    R. M. Neal, Stat. Comput. 11 (2001), doi:10.1023/A:1008923215028.
    """
    key, key_start = jax.random.split(key)
    return _carry(key, path, schedule, path.sample(key_start, num_chains), forward=True)


def reverse_work(
    key: jax.Array, path: Path, schedule: Schedule, draws: Float[Array, "n d"]
) -> Work:
    """Carry draws of q(. | theta_1) back to the base."""
    return _carry(key, path, schedule, draws, forward=False)


def _carry(key: jax.Array, path: Path, schedule: Schedule, theta: Array, forward: bool) -> Work:
    # Rungs: 0 is the base, `length` is f. Forward, a chain is weighed at rung k, moved at rung
    # k + 1 and weighed there. Reverse is the same backwards: weighed at k, moved at k, weighed at
    # k - 1. Neither moves before its first weight, whose draws are what they should be.
    temperatures = jnp.concatenate([jnp.zeros(1), schedule.temperatures])
    step_sizes = jnp.concatenate([jnp.ones(1), schedule.step_sizes])
    excess = jax.vmap(path.excess)

    def weigh(rung: Array, theta: Array) -> Array:
        return -(temperatures[rung + 1] - temperatures[rung]) * excess(theta)

    def advance(i: Array, carry: tuple) -> tuple:
        theta, log_weights, cost = carry
        moved_at = i if forward else schedule.length - i
        weighed_at = moved_at if forward else moved_at - 1
        keys = jax.random.split(jax.random.fold_in(key, i), len(theta))
        theta, info = jax.vmap(path.move, (0, 0, None, None))(
            keys, theta, temperatures[moved_at], step_sizes[moved_at]
        )
        cost += jnp.sum(info.num_steps + 2)
        return theta, log_weights + weigh(weighed_at, theta), cost

    first = jnp.asarray(0) if forward else schedule.length - 1
    start = (theta, weigh(first, theta), jnp.asarray(len(theta)))
    _, log_weights, cost = jax.lax.fori_loop(1, schedule.length, advance, start)
    return Work(log_weights + path.log_base_normalizer, cost)


def acceptance_ratio(
    forward: Float[np.ndarray, "block n"], reverse: Float[np.ndarray, "block k"]
) -> tuple[float, float]:
    """Bennett's estimate of log Z, and its standard error by leaving out one block at a time.

    Parameters
    ----------
    forward, reverse : arrays, shapes (block, n) and (block, k)
        Log weights, nats; blocks are independent of each other.

    Returns
    -------
    value, standard_error : float
        Nats; the error is infinite where the two directions hardly overlap.
    """
    value, error = _jackknife(_solve, forward, reverse)
    shift = np.log(forward.size / reverse.size)
    is_reverse = expit(np.concatenate([forward.ravel(), reverse.ravel()]) - value - shift)
    overlap = np.sum(is_reverse * (1 - is_reverse))
    if not np.isfinite(value) or not overlap >= _SMALLEST_OVERLAP:
        return value, np.inf
    return value, error


def missed_region(forward: Float[np.ndarray, "block n"], value: float, error: float) -> bool:
    """Whether forward weights say that Z is larger than a joint estimate does.

    They are unbiased for Z whatever the schedule, and err on the low side where they are few.
    Where they are significantly *above*, the reverse draws all miss a region of q(. | theta_1), as
    they may on a plateau that the pilot never met.
    """
    alone, its_error = _jackknife(lambda x: logsumexp(x) - np.log(x.size), forward)
    return bool(alone - value > _SIGMAS_OF_A_CONTRADICTION * np.hypot(error, its_error))


def _jackknife(estimator: Callable[..., float], *blocks: np.ndarray) -> tuple[float, float]:
    """Value, and its standard error by leaving out one block at a time."""
    number = len(blocks[0])
    rest = (tuple(np.delete(x, i, axis=0) for x in blocks) for i in range(number))
    left_out = np.array([estimator(*x) for x in rest])
    error = np.sqrt((number - 1) * np.mean((left_out - np.mean(left_out)) ** 2))
    return float(estimator(*blocks)), float(student_factor(number) * error)


def _solve(forward: np.ndarray, reverse: np.ndarray) -> float:
    forward, reverse = forward.ravel(), reverse.ravel()
    shift = np.log(forward.size / reverse.size)
    finite = np.concatenate([forward, reverse])
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return np.nan
    # Even if one draw of all has a finite weight, the solution lies within this.
    margin = abs(shift) + np.log(forward.size + reverse.size) + 1
    low, high = finite.min() - margin, finite.max() + margin

    def too_low(value: float) -> bool:
        taken_for_reverse = np.sum(expit(forward - value - shift))
        return bool(taken_for_reverse > np.sum(expit(-(reverse - value - shift))))

    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if too_low(middle) else (low, middle)
    return 0.5 * (low + high)
