"""What the backends that estimate the evidence by populations have in common."""

from abc import abstractmethod
from typing import Any, Literal

import jax
import numpy as np
from pydantic import Field

from generative import TwoStageModel
from inference.backends.base import Draws, Sampler
from inference.checks import Check
from inference.doubling import Doubling, compare
from inference.evidence.population import Recipe
from inference.evidence.prior import PriorSampler, RejectionCapped, annealed_prior, prior_sampler
from inference.functionals import functionals
from inference.kernels.negative import (
    NegativeChoice,
    NegativeSampler,
    PersistentNegative,
    RejectionNegative,
    choose,
)
from inference.progress import SILENT, Monitor

NEGATIVES = "negative_samples"


class PopulationBackend(Sampler):
    """Abstract: settings of populations that start in the two-stage prior.

    Parameters
    ----------
    num_runs : int
        Independent runs; their spread gives the error of the log evidence.
    negative : {"auto", "rejection", "persistent"}
        `auto` takes the closed form or rejection where they serve.
    num_moves : int
        HMC moves per persistent negative sample.
    num_annealed : int
        Where draws of the prior must be annealed: particles at each theta_1. Too few, and minor
        modes of theta_2 are drawn too often.
    rejection_cap : int
        Proposals per negative sample, at most.
    max_num_steps : int
        Leapfrog steps per trajectory, at most.
    max_doublings : int
        Where negative samples are not exact, all is repeated with twice their moves and twice the
        annealed particles, so many times at most, until that changes nothing. 0 skips this check.
    chain_method : {"vectorized", "sharded"}
        `sharded` spreads the runs over all devices.
    """

    num_runs: int = Field(8, ge=2)
    negative: NegativeChoice = "auto"
    num_moves: int = Field(8, ge=1)
    num_annealed: int = Field(32, ge=2)
    rejection_cap: int = Field(20_000, ge=1)
    max_num_steps: int = Field(32, ge=1)
    max_doublings: int = Field(2, ge=0, le=8)
    chain_method: Literal["vectorized", "sharded"] = "vectorized"

    @property
    def is_sharded(self) -> bool:
        """Whether runs are spread over all devices."""
        return self.chain_method == "sharded"

    def draw(self, model: TwoStageModel, key: jax.Array, monitor: Monitor = SILENT) -> Draws:
        """Draw from the posterior; see :func:`inference.infer`."""
        sampler, note = choose(model, self.negative, self.rejection_cap, self.max_num_steps)
        try:
            draws = self._doubled(model, sampler, key, monitor)
            failed = not all(check.passed for check in draws.checks if check.name == NEGATIVES)
        except RejectionCapped:
            if self.negative != "auto":
                raise
            failed = True
        if failed and self.negative == "auto" and isinstance(sampler, RejectionNegative):
            # The pilot has not seen the smallest Z of the prior, or the posterior prefers less.
            note = "rejection hit its cap; negative samples are persistent instead"
            sampler = PersistentNegative(self.max_num_steps)
            draws = self._doubled(model, sampler, key, monitor)
        draws.notes.insert(0, note)
        return draws

    def _doubled(
        self, model: TwoStageModel, sampler: NegativeSampler, key: jax.Array, monitor: Monitor
    ) -> Draws:
        """Draw, and draw with twice the effort until that changes nothing."""
        key, key_prior, key_doubling = jax.random.split(key, 3)
        recipe = Recipe(model, sampler, self.max_num_steps)
        prior = prior_sampler(recipe, key_prior)
        draws = self._attempt(prior, key, 1, monitor)
        if not prior.holds_at(draws.values["theta_2"]):
            prior = annealed_prior(recipe)
            draws = self._attempt(prior, key, 1, monitor)
        for doubling in range(0 if prior.is_exact else self.max_doublings):
            key_again = jax.random.fold_in(key_doubling, doubling)
            doubled = self._attempt(prior, key_again, 2 ** (doubling + 1), monitor)
            doubled.doubling = _compared(model, draws, doubled, self.num_moves * 2**doubling)
            draws = doubled
            if draws.doubling.check.passed:
                break
        if draws.doubling is not None:
            draws.checks.append(draws.doubling.check)
        draws.notes.insert(0, prior.note)
        return draws

    @abstractmethod
    def _attempt(self, prior: PriorSampler, key: jax.Array, effort: int, monitor: Monitor) -> Draws:
        """Make all runs, with a multiple of the moves and annealed particles."""


def negative_check(num_failed: int) -> Check:
    """Check that every negative sample was found."""
    return Check(
        NEGATIVES,
        num_failed == 0,
        f"{num_failed} rejection caps hit; raise rejection_cap or use negative=persistent",
    )


def _compared(model: TwoStageModel, draws: Draws, doubled: Draws, num_moves: int) -> Doubling:
    """Compare functionals, and the log evidence as one more."""
    found = compare(
        functionals(model, draws.values),
        functionals(model, doubled.values),
        num_moves,
        degrees=2 * (len(draws.values["lp"]) - 1),
    )
    first, second = draws.log_evidence, doubled.log_evidence
    error = np.hypot(first.standard_error, second.standard_error)
    difference = second.value - first.value
    # Exact and equal evidences (null data) differ by nothing, in units of nothing.
    z = 0.0 if difference == 0 else np.nan_to_num(difference / error, nan=np.inf)
    return found.appended("log_evidence", first.value, second.value, z)


def weighted(
    theta_1: np.ndarray, theta_2: np.ndarray, statistics: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Weighted draws, with the leading axes of runs and particles made one."""
    dimension = theta_1.shape[-1]
    return {
        "theta_1": theta_1.reshape(-1, dimension),
        "theta_2": theta_2.reshape(-1, dimension),
        **{name: x.reshape(-1) for name, x in statistics.items()},
    }
