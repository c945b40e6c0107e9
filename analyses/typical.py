"""Is a maximum like the posterior? Where it lies among draws, functional by functional."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analyses.functionals import answers_of, scalar_functionals

# Questions that a summary names, at most.
_NUM_NAMED = 3


@dataclass(frozen=True)
class Placed:
    """One functional of a maximum beside its posterior.

    Attributes
    ----------
    name : str
    value : float
        At the maximum.
    mean, deviation : float
        Of the draws.
    tail : float
        Two-sided posterior probability of lying at least as far out, by ranks.
    """

    name: str
    value: float
    mean: float
    deviation: float
    tail: float

    @property
    def z_score(self) -> float:
        """Distance from the mean in standard deviations of the posterior (not of the mean)."""
        if self.deviation == 0:
            beside = self.value - self.mean
            return 0.0 if beside == 0 else float(np.copysign(np.inf, beside))
        return (self.value - self.mean) / self.deviation


def place(name: str, value: float, draws: np.ndarray) -> Placed:
    """Place a value among draws.

    Parameters
    ----------
    name : str
    value : float
    draws : array
        Of any shape.
    """
    flat = np.asarray(draws, float).ravel()
    below, above = np.mean(flat <= value), np.mean(flat >= value)
    tail = min(1.0, 2 * float(min(below, above)))
    if np.ptp(flat) == 0:  # whose mean and deviation would be off by rounding
        return Placed(name, float(value), float(flat[0]), 0.0, tail)
    return Placed(name, float(value), float(flat.mean()), float(flat.std()), tail)


def place_all(maximum: xr.DataTree, sampled: xr.DataTree) -> list[Placed]:
    """Place every functional that both trees have."""
    draws = scalar_functionals(sampled)
    return [
        place(name, float(value), draws[name].values)
        for name, value in scalar_functionals(maximum).items()
        if name in draws
    ]


@dataclass(frozen=True)
class AnswersPlaced:
    """A maximum's answers to one set of questions beside the posterior's.

    Attributes
    ----------
    name : str
        Of the set.
    head : str
    tail : float
        Posterior probability that a draw's answers lie at least as far from the mean answers.
    worst : list of int
        Questions with the largest distance in posterior standard deviations, largest first.
    z_scores : array, shape (question,)
    """

    name: str
    head: str
    tail: float
    worst: list[int]
    z_scores: np.ndarray


def place_answers(maximum: xr.DataTree, sampled: xr.DataTree) -> list[AnswersPlaced]:
    """Ask of every set and head whether the maximum answers like a draw.

    The distance is the sum of squares over questions, each in units of its own posterior standard
    deviation; questions that all draws answer alike are left out.
    """
    draws = answers_of(sampled)
    found = []
    for name, answers in answers_of(maximum).items():
        if name not in draws:
            continue
        for head in ("first", "second"):
            question = [d for d in draws[name].dims if d not in ("chain", "draw", "head")]
            at_draws = draws[name].sel(head=head).transpose("chain", "draw", *question).values
            num_draws, num_questions = math.prod(at_draws.shape[:2]), at_draws.shape[2]
            flat = at_draws.reshape(num_draws, num_questions, -1)
            value = answers.sel(head=head).transpose(*question).values.reshape(num_questions, -1)
            found.append(_place_answers(name, head, value, flat))
    return found


def _place_answers(name: str, head: str, value: np.ndarray, draws: np.ndarray) -> AnswersPlaced:
    mean, deviation = draws.mean(axis=0), draws.std(axis=0)
    used = np.ptp(draws, axis=0) > 0
    scale = np.where(used, deviation, 1)
    z_scores = np.where(used, (value - mean) / scale, 0)
    distances = np.sum(np.where(used, (draws - mean) / scale, 0) ** 2, axis=(1, 2))
    tail = float(np.mean(distances >= np.sum(z_scores**2)))
    # Of an answer in several numbers, the farthest one.
    farthest = np.abs(z_scores).argmax(axis=1)
    z_scores = z_scores[np.arange(len(z_scores)), farthest]
    worst = np.argsort(-np.abs(z_scores))[:_NUM_NAMED]
    return AnswersPlaced(name, head, tail, [int(i) for i in worst], z_scores)
