"""What independent tempered runs found: their evidence, and whether they lagged behind it.

Runs are averaged as lognormal variables; see :mod:`inference.evidence.tempered`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from inference.averages import SIGMAS_OF_A_BRACKET, log_of_mean, mean_of_runs
from inference.checks import Check, check_no_shift
from inference.estimate import Estimate
from inference.evidence.population import Particles

LAG = "lag"
_ROUNDING = 1e-9
# Moves that leave more of a deviation than this are taken to leave so much.
_MOST_MEMORY = 0.99
# Standard errors.
_BEYOND_DOUBT = 15.0


class Transition(NamedTuple):
    """What reweighting to a power, and moves at it, did to each run's population.

    Attributes
    ----------
    log_increment : array, shape (run,)
        Of the evidence, nats.
    mean : array, shape (run,)
        Of L, nats, before the particles move.
    memory : array, shape (run,)
        Share of a deviation of L that the moves leave: its regression over particles.
    """

    log_increment: Float[Array | np.ndarray, " run"]
    mean: Float[Array | np.ndarray, " run"]
    memory: Float[Array | np.ndarray, " run"]


class TemperedRuns(NamedTuple):
    """What independent runs found.

    Attributes
    ----------
    log_evidence : array, shape (run,)
        Nats.
    powers : array, shape (power,)
        From 0.
    means, before : arrays, shape (run, power)
        Of L, nats: after the moves at each power, and before them, when reweighting is done.
    memory : array, shape (run, power - 1)
        See :class:`Transition`.
    particles : Particles
        At the last power; leading axes (run, particle).
    acceptance_rate : array, shape (power - 1,)
        Of the exchange move.
    num_failed : int
        Negative samples not found.
    diverging : bool array, shape (run, particle)
        In the last move of theta_2.
    exchangeable : Check or None
        Of the first populations, where these were annealed.
    """

    log_evidence: Float[np.ndarray, " run"]
    powers: Float[np.ndarray, " power"]
    means: Float[np.ndarray, "run power"]
    before: Float[np.ndarray, "run power"]
    memory: Float[np.ndarray, "run stage"]
    particles: Particles
    acceptance_rate: Float[np.ndarray, " stage"]
    num_failed: int
    diverging: np.ndarray
    exchangeable: Check | None

    @property
    def spread(self) -> float:
        """Standard deviation of the log evidence over runs, nats; infinite where a run has none."""
        is_whole = np.isfinite(self.log_evidence).all()
        return float(self.log_evidence.std(ddof=1)) if is_whole else np.inf

    @property
    def lag(self) -> Check:
        """Check that moves did not go on where reweighting ended.

        A population that has a power's law keeps the mean of L when it moves. One that lags behind
        approaches that law with every move, always from the same side, so that its runs agree on
        an evidence that is too small. Moves that leave a share r of a deviation approach by 1 - r
        of it, so that r / (1 - r) times the approach is what they leave. The larger of both is
        summed over powers, and counts beside the error that the evidence has anyway: runs that
        differ are few, and need not lag. Particles that hardly move approach nothing that is seen.
        """
        if np.isinf(self.spread):
            return Check(LAG, True, "a run without evidence tells nothing of lag", "both")
        mean, error = self._approach
        return check_no_shift(
            LAG,
            {"mean of L": (mean, error, 1.0)},
            f"populations are {mean:.2g} nats behind along the path, by what moves change of L",
            len(self.means) - 1,
            about="both",
            unit="nats",
        )

    @property
    def lags_beyond_doubt(self) -> bool:
        """Whether the powers so far are enough to say so, however often that is asked."""
        if np.isinf(self.spread):
            return False
        mean, error = self._approach
        return abs(mean) > _BEYOND_DOUBT * error

    @property
    def _approach(self) -> tuple[float, float]:
        """What moves approach, or leave, along the path, nats, and its standard error."""
        left = np.clip(np.nan_to_num(self.memory.mean(axis=0)), 0, _MOST_MEMORY)
        worth = np.diff(self.powers) * np.maximum(1, left / (1 - left))
        approach = (self.means[:, 1:] - self.before[:, 1:]) @ worth
        spread = np.hypot(approach.std(ddof=1), self.spread)
        rounding = _ROUNDING * (1 + np.abs(self.means[:, 1:]).max())  # of a constant L
        error = np.hypot(spread / np.sqrt(len(approach)), rounding)
        return float(approach.mean()), float(error)

    @property
    def estimate(self) -> Estimate:
        """Log evidence; the standard error is infinite where runs differ too much to be averaged.

        `lower` and `upper` are the left and right sums of the mean of L, which increases with the
        power, where power 1 was reached. Particles that lag behind make that mean too small, which
        `lower` can bear; `upper` is raised by half the variance over runs, what lag costs where
        runs still meet all phases, and is no bound where they do not.
        """
        value, error = log_of_mean(self.log_evidence[None])
        steps = np.diff(self.powers)
        left = mean_of_runs((self.means[:, :-1] @ steps)[None])
        right = mean_of_runs((self.means[:, 1:] @ steps)[None])
        reached = self.powers[-1] >= 1
        lag = 0.5 * self.spread**2

        def bound(value: np.ndarray, otherwise: float) -> float:
            return float(value[0]) if reached and np.isfinite(value[0]) else otherwise

        return Estimate(
            float(value[0]),
            float(error[0]) if reached else np.inf,
            bound(left[0] - SIGMAS_OF_A_BRACKET * left[1], -np.inf),
            bound(right[0] + SIGMAS_OF_A_BRACKET * right[1] + lag, np.inf),
            "tempered_smc",
        )
