"""What a sampler hands over, before anything is made of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from inference.checks import Check
from inference.doubling import Doubling
from inference.estimate import Estimate
from inference.kernels.negative import NegativeSampler


@dataclass(frozen=True)
class Draws:
    """What a backend hands to :func:`inference.infer`.

    Attributes
    ----------
    values : dict
        `theta_1`, `theta_2`, shape (chain, draw, d), and statistics, shape (chain, draw).
    checks : tuple of Check
        The backend's own, beside those on chains.
    doubling : Doubling or None
    notes : tuple of str
    negative : NegativeSampler or None
        How negative samples were made, where there were any.
    unverified : tuple of str
        Checks that were not made, though the method is not exact without them, and why.
    other_target : str or None
        What the draws are of, where that is not the posterior.
    tuning : dict
        Every choice that warm-up made, for the configuration attribute.
    exhausted : bool
        Whether a budget ran out, so that the draws must not be used.
    seconds : float
        Wall time of the draws, warm-up and compilation not counted.
    log_evidence : Estimate or None
        log p(data), nats, where the draws come with it; see :meth:`Sampler.log_evidence`.
    weighted : dict or None
        `theta_1`, `theta_2`, shape (sample, d), and statistics, shape (sample,), among them
        `log_weight`, nats: the log of their mean is the log evidence.
    answers : dict or None
        As from :func:`inference.answers.answers`, of every draw, where only some draws'
        parameters are in `values`.
    """

    values: dict[str, np.ndarray]
    checks: tuple[Check, ...] = ()
    doubling: Doubling | None = None
    notes: tuple[str, ...] = ()
    negative: NegativeSampler | None = None
    unverified: tuple[str, ...] = ()
    other_target: str | None = None
    tuning: dict[str, Any] = field(default_factory=dict)
    exhausted: bool = False
    seconds: float = float("nan")
    log_evidence: Estimate | None = None
    weighted: dict[str, np.ndarray] | None = None
    answers: dict[str, np.ndarray] | None = None

    def also(
        self,
        checks: Iterable[Check] = (),
        notes: Iterable[str] = (),
        unverified: Iterable[str] = (),
    ) -> "Draws":
        """Return these draws with more checks and unverified ones at the end, notes in front."""
        return replace(
            self,
            checks=(*self.checks, *checks),
            notes=(*notes, *self.notes),
            unverified=(*self.unverified, *unverified),
        )
