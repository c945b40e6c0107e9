"""What the backends that estimate the evidence by populations have in common."""

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from pydantic import Field

from generative import TwoStageModel
from inference import prng
from inference.annealing.certificate import NUM_FRESH_PARTICLES, check_fresh
from inference.backends.base import Sampler
from inference.checks import Check, check_no_shift
from inference.doubling import Doubling, compare
from inference.evidence.pilot import num_moves_needed
from inference.evidence.population import Recipe
from inference.evidence.prior import (
    MOVES_TO_FORGET,
    NUM_SWEEPS,
    Effort,
    PriorSampler,
    RejectionCapped,
    annealed_prior,
    prior_sampler,
)
from inference.evidence.tempered_runs import LAG
from inference.functionals import functionals
from inference.kernels.exchange.lag import MOST
from inference.kernels.negative import NegativeSampler, RejectionNegative
from inference.kernels.negative_choice import NegativeChoice, choose, without_rejection
from inference.results.draws import Draws
from inference.running.progress import SILENT, Monitor

NEGATIVES = "negative_samples"
_MOST_SWEEPS = 4  # conditional sweeps per sample, unless doubling finds that they are too few


class PopulationBackend(Sampler):
    """Abstract: settings of populations that start in the two-stage prior.

    Parameters
    ----------
    num_runs : int
        Independent runs; their spread gives the error of the log evidence.
    negative : {"auto", "rejection", "persistent", "library", "annealed"}
        `auto` takes the closed form or rejection where they serve, then persistent samples where
        these cross basins, then those that a library of draws takes from basin to basin
        (`library`, in few dimensions), and else conditional SMC, at about ten times their cost.
    num_moves : int, optional
        HMC moves per persistent negative sample; eight count for one conditional sweep. By default
        doubling ends with as many as leave a hundredth of the correlation with where the sample
        was, measured on draws of the prior, or more; at least eight.
    num_annealed : int
        Where draws of the prior must be annealed: particles at each theta_1. Too few, and minor
        modes of theta_2 are drawn too often.
    rejection_cap : int
        Proposals per negative sample, at most.
    max_num_steps : int
        Leapfrog steps per trajectory, at most.
    max_doublings : int
        Where negative samples are not exact, all is repeated with twice their moves and twice the
        conditional sweeps of annealed draws, so many times at most, until that changes nothing.
        0 skips this check, and the run ends as `unverified`. Populations that lag behind their
        powers are not repeated, since more moves of negative samples would not mend them.
    num_fresh : int
        Where negative samples are not exact, so many of them are compared with freshly annealed
        ones. 0 skips this check, and the run ends as `unverified`.
    chain_method : {"vectorized", "sharded"}
        `sharded` spreads the runs over all devices.
    """

    evidence_stands_alone: ClassVar[bool] = True

    num_runs: int = Field(8, ge=2)
    negative: NegativeChoice = "auto"
    num_moves: int | None = Field(None, ge=1)
    num_annealed: int = Field(NUM_FRESH_PARTICLES, ge=2)
    rejection_cap: int = Field(20_000, ge=1)
    max_num_steps: int = Field(32, ge=1)
    max_doublings: int = Field(2, ge=0, le=8)
    num_fresh: int = Field(128, ge=0)
    chain_method: Literal["vectorized", "sharded"] = "vectorized"

    @property
    def is_sharded(self) -> bool:
        """Whether runs are spread over all devices."""
        return self.chain_method == "sharded"

    def draw(self, model: TwoStageModel, key: jax.Array, monitor: Monitor = SILENT) -> Draws:
        """Draw from the posterior; see :func:`inference.infer`."""
        moves = self.num_moves or MOVES_TO_FORGET
        settings = (self.negative, self.rejection_cap, self.max_num_steps, moves)
        sampler, note = choose(model, *settings)
        is_provisional = self.negative == "auto" and isinstance(sampler, RejectionNegative)
        try:
            draws = self._doubled(model, sampler, key, monitor)
            failed = not all(check.passed for check in draws.checks if check.name == NEGATIVES)
        except RejectionCapped:
            if not is_provisional:
                raise
            failed = True
        if failed and is_provisional:
            # The pilot has not seen the smallest Z of the prior, or the posterior prefers less.
            why = "rejection hit its cap"
            sampler, note = without_rejection(model, self.max_num_steps, moves, why)
            draws = self._doubled(model, sampler, key, monitor)
        return draws.also(notes=[note])

    def _doubled(
        self, model: TwoStageModel, sampler: NegativeSampler, key: jax.Array, monitor: Monitor
    ) -> Draws:
        """Draw, and draw with twice the effort until that changes nothing."""
        key, key_prior, key_doubling, key_moves = prng.split(key, 4)
        recipe = Recipe(model, sampler, self.max_num_steps)
        prior = prior_sampler(recipe, key_prior)
        effort = self._effort(prior, key_moves)
        draws, size = self._attempt(prior, key, effort, None, monitor)
        if not prior.holds_at(draws.values["theta_2"]):
            prior = annealed_prior(recipe)
            effort = self._effort(prior, key_moves)
            draws, size = self._attempt(prior, key, effort, None, monitor)
        checks: list[Check] = []
        for doubling in range(0 if prior.is_exact else self.max_doublings):
            if _lag(draws):  # which more moves of negative samples would not mend, at a price
                break
            key_again = prng.fold_in(key_doubling, doubling)
            num_moves, effort = effort.num_moves, effort.times(2)
            doubled, _ = self._attempt(prior, key_again, effort, size, monitor)
            found, checks = _compared(model, draws, doubled, num_moves)
            draws = replace(doubled, doubling=found)
            if all(check.passed for check in checks):
                break
        is_unchecked = not prior.is_exact and draws.doubling is None
        why = "populations lag" if self.max_doublings else "max_doublings = 0"
        unverified = [f"doubling ({why})"] if is_unchecked else []
        return draws.also(checks, [prior.note], unverified)

    def _effort(self, prior: PriorSampler, key: jax.Array) -> Effort:
        """Return what the first attempt makes: where moves are not given, as many as are needed.

        Where doubling follows it is half of that.
        """
        sampler = prior.recipe.negative
        moves = sampler.whole(self.num_moves or MOVES_TO_FORGET)
        effort = Effort(moves, self.num_annealed, NUM_SWEEPS)
        if self.num_moves is not None or prior.is_exact:
            return effort
        most = _MOST_SWEEPS * sampler.moves_each if sampler.moves_each > 1 else MOST
        needed = min(num_moves_needed(prior, key, effort), most)
        # Doubling gets there, and what half as many leave is what it has to see.
        moves = sampler.whole(max(moves, needed // 2 if self.max_doublings else needed))
        return effort._replace(num_moves=moves)

    @abstractmethod
    def _attempt(
        self,
        prior: PriorSampler,
        key: jax.Array,
        effort: Effort,
        size: int | None,
        monitor: Monitor,
    ) -> tuple[Draws, int]:
        """Make all runs, of one effort.

        Without a size, runs of their own choose one; the runs that count follow it whatever they
        find, since an error that also decided when to stop would be too small.

        Returns
        -------
        Draws
        int
            The size.
        """

    def _negatives(
        self,
        prior: PriorSampler,
        key: jax.Array,
        theta_1: np.ndarray,
        negative: np.ndarray,
        exchangeable: Check | None,
    ) -> tuple[list[Check], list[str]]:
        """Check negative samples that are not exact; with the checks, those switched off."""
        checks = [] if exchangeable is None else [exchangeable]
        if prior.is_exact:
            return checks, []
        if self.num_fresh == 0:
            return checks, ["fresh negatives (num_fresh = 0)"]
        model = prior.recipe.model
        return [*checks, check_fresh(model, key, theta_1, negative, self.num_fresh)], []


def _lag(draws: Draws) -> bool:
    return any(check.name == LAG and not check.passed for check in draws.checks)


def negative_check(num_failed: int) -> Check:
    """Check that every negative sample was found."""
    return Check(
        NEGATIVES,
        num_failed == 0,
        f"{num_failed} rejection caps hit; raise rejection_cap or use negative=persistent",
        "both",
    )


def _compared(
    model: TwoStageModel, draws: Draws, doubled: Draws, num_moves: int
) -> tuple[Doubling, list[Check]]:
    """Compare functionals, and the log evidence apart from them."""
    degrees = 2 * (len(draws.values["lp"]) - 1)
    before, after = (functionals(model, x.values) for x in (draws, doubled))
    found = compare(before, after, num_moves, degrees)
    first, second = draws.log_evidence, doubled.log_evidence
    assert first is not None
    assert second is not None
    error = float(np.hypot(first.standard_error, second.standard_error))
    difference = float(second.value - first.value)
    what = f"{num_moves} to {2 * num_moves} {found.of_what}"
    of_evidence = check_no_shift(
        "doubling_evidence",
        {"log evidence": (difference, error, 1.0)},
        what,
        degrees,
        about="evidence",
        unit="nats",
    )
    return found, [found.check, of_evidence]


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
