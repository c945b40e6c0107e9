"""Weights of dead points, and what the order of their likelihoods tells.

Volumes shrink by 1 / n in the mean at the death of one of n live points; BlackJAX counts how many
were alive when points are deleted in batches (:func:`blackjax.ns.utils.compute_num_live`).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from blackjax.ns.base import NSInfo, StateWithLogLikelihood
from blackjax.ns.utils import compute_num_live
from jaxtyping import Float
from scipy import stats

from inference.checks import FALSE_ALARM_RATE, Check

# Nats between two phases that a tempered population of a thousand cannot be trusted to cross.
_BARRIER = float(np.log(1000.0))


class Volumes(NamedTuple):
    """Volumes and weights of one run's points, in increasing order of likelihood.

    Attributes
    ----------
    order : int array, shape (point,)
        Indices that sort the points.
    log_volume : array, shape (point,)
        Log X after each death, nats.
    log_weight : array, shape (point,)
        Log of L times the volume lost, nats; the log of their sum is the log evidence.
    """

    order: np.ndarray
    log_volume: Float[np.ndarray, " point"]
    log_weight: Float[np.ndarray, " point"]


def volumes(
    log_likelihood: Float[np.ndarray, " point"], birth: Float[np.ndarray, " point"]
) -> Volumes:
    """Mean log volumes of the points of one run, the last live ones included.

    Parameters
    ----------
    log_likelihood, birth : arrays, shape (point,)
        As in :class:`~inference.evidence.nested.NestedRuns`.
    """
    order = np.argsort(log_likelihood)
    value, born = log_likelihood[order], birth[order]
    zero = jnp.zeros_like(value)
    points = StateWithLogLikelihood(zero, zero, jnp.asarray(value), jnp.asarray(born))
    num_live = np.asarray(compute_num_live(NSInfo(points, ())))
    log_volume = -np.cumsum(1.0 / num_live)
    before = np.concatenate([[0.0], log_volume[:-1]])
    # The last point takes all the volume that is left.
    shell = before + np.log(-np.expm1(log_volume - before))
    shell[-1] = before[-1]
    return Volumes(order, log_volume, value + shell)


def insertion_check(
    log_likelihood: Float[np.ndarray, "run point"],
    birth: Float[np.ndarray, "run point"],
) -> Check:
    """Check that new points enter at uniform ranks among the live ones, over all runs.

    A new point that stays too near the one it started from, or misses a region, enters at ranks
    that are not uniform. A. Fowlie, W. Handley and L. Su, MNRAS 497 (2020),
    doi:10.1093/mnras/staa2345.
    """
    ranks = np.concatenate([_ranks(*run) for run in zip(log_likelihood, birth, strict=True)])
    if len(ranks) == 0:
        return Check("insertion_rank", False, "no new point was made", "both")
    p_value = float(stats.kstest(ranks, "uniform").pvalue)
    return Check(
        "insertion_rank",
        p_value > FALSE_ALARM_RATE,
        f"p = {p_value:.2g} that {len(ranks)} new points entered at uniform ranks, above "
        f"{FALSE_ALARM_RATE}; else raise num_sweeps",
        "both",
    )


def _ranks(
    log_likelihood: Float[np.ndarray, " point"], birth: Float[np.ndarray, " point"]
) -> Float[np.ndarray, " new"]:
    rng = np.random.default_rng(0)  # ranks are whole numbers: an offset makes them continuous
    ranks = []
    for floor in np.unique(birth[np.isfinite(birth)]):
        alive = np.sort(log_likelihood[(birth <= floor) & (log_likelihood > floor)])
        new = log_likelihood[birth == floor]
        ranks.append((np.searchsorted(alive, new) + rng.uniform(size=len(new))) / len(alive))
    return np.concatenate(ranks) if ranks else np.empty(0)


class Transition(NamedTuple):
    """Two phases between which tempering must jump.

    Attributes
    ----------
    power : float
        At which both hold as much of the tempered posterior.
    barrier : float
        Nats by which points between them hold less.
    """

    power: float
    barrier: float


def phase_transition(
    log_likelihood: Float[np.ndarray, " point"], log_volume: Float[np.ndarray, " point"]
) -> Transition | None:
    """Find the largest first-order transition of the posteriors at powers up to 1, if any.

    At power beta a shell at log volume x holds exp(x + beta L(x)). Where L is a concave function
    of -x that has one peak for every beta; where L lies below its concave hull by h, the ends of
    that piece of the hull are two phases at beta, the inverse of its slope, and points between
    them hold exp(-beta h) less. J. Skilling, Bayesian Analysis 1 (2006), section 4.

    Parameters
    ----------
    log_likelihood, log_volume : arrays, shape (point,)
        In increasing order of likelihood; nats.
    """
    depth, value = -log_volume, log_likelihood
    finite = np.isfinite(value) & np.isfinite(depth)
    depth, value = depth[finite], value[finite]
    hull = _concave_hull(depth, value)
    found = None
    for start, end in zip(hull, hull[1:], strict=False):
        slope = (value[end] - value[start]) / (depth[end] - depth[start])
        if end - start < 2 or not slope >= 1:  # a power above 1 is never tempered to
            continue
        between = slice(start, end + 1)
        gap = value[start] + slope * (depth[between] - depth[start]) - value[between]
        barrier = float(gap.max() / slope)
        if barrier > _BARRIER and (found is None or barrier > found.barrier):
            found = Transition(float(1 / slope), barrier)
    return found


def _concave_hull(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Indices of the upper hull of points with increasing x (Andrew's monotone chain)."""
    hull: list[int] = []
    for i in range(len(x)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[i] - x[b]) > (y[i] - y[b]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    return hull
