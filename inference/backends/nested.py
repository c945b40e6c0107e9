"""Nested sampling: posterior and log evidence, without Z."""

import jax
import numpy as np
from pydantic import Field
from scipy.special import logsumexp

from inference import prng
from inference.backends.population import (
    PopulationBackend,
    negative_check,
    weighted,
)
from inference.checks import Check
from inference.evidence.nested import NestedRuns, run
from inference.evidence.population import described
from inference.evidence.prior import Effort, PriorSampler
from inference.evidence.weights import insertion_check, phase_transition, volumes
from inference.kernels.exchange.constrained import WORTHLESS
from inference.results.draws import Draws
from inference.running.progress import Monitor

_MARGIN, _FEWEST_LIVE = 1.5, 20
_NATS, _LEAST_PROGRESS = 5, 0.5


class NestedSampling(PopulationBackend):
    """Nested sampling of the two-stage prior, under a floor on L.

    Live points move by exchange and by trajectories that bounce off the floor, so the log evidence
    needs no value of Z(theta_1). It crosses the first-order transitions at which tempering fails,
    and says where they are. Its cost grows with the information in the data, in nats, and it is
    best below about 50 dimensions.

    Parameters
    ----------
    num_live : int
        Per run, at least.
    max_live : int
        Per run, at most. First runs of half of `num_live`, which are discarded, tell how many the
        target needs.
    num_sweeps : int
        Moves of a new point from the live point that it starts at. Too few, and points drift, which
        insertion ranks see, or hardly move, which the check `exchange` sees of theta_1.
    target_standard_error : float
        Of the log evidence, nats.
    max_nats : float
        Compression of the prior at which a run stops in any case.

    Notes
    -----
    The other parameters are those of
    :class:`~inference.backends.population.PopulationBackend`.
    """

    num_live: int = Field(100, ge=20)
    max_live: int = Field(1000, ge=20)
    num_sweeps: int = Field(12, ge=1)
    target_standard_error: float = Field(0.3, gt=0)
    max_nats: float = Field(500.0, gt=0)

    def _attempt(
        self,
        prior: PriorSampler,
        key: jax.Array,
        effort: Effort,
        size: int | None,
        monitor: Monitor,
    ) -> tuple[Draws, int]:
        key_size, key, key_fresh = prng.split(key, 3)
        if size is None:
            few = max(_FEWEST_LIVE, self.num_live // 2)
            size = self._size(self._runs(prior, key_size, effort, few, monitor))
        found = self._runs(prior, key, effort, size, monitor)
        runs = zip(found.log_likelihood, found.birth, strict=True)
        chains = [_equal_weight(*one) for one in runs]
        length = min(map(len, chains))
        index = np.stack([chain[:length] for chain in chains])
        rows = np.arange(len(chains))[:, None]
        model = prior.recipe.model
        values = described(model, found.theta_1[rows, index], found.theta_2[rows, index])
        checks, unverified = self._negatives(
            prior, key_fresh, found.live_theta_1, found.live_negative, found.exchangeable
        )
        draws = Draws(
            values
            | {
                # Trajectories that leave the floor are rejected; none can diverge unnoticed.
                "diverging": np.zeros(index.shape, bool),
                "acceptance_rate": np.full(index.shape, found.acceptance_rate.mean()),
                "step_size": np.full(index.shape, found.step_size),
            },
            (*self._checks(found), *checks),
            notes=tuple(_notes(found)),
            unverified=tuple(unverified),
            tuning={
                "num_live": found.num_live,
                "acceptance_rate": found.acceptance_rate.tolist(),
                "num_moves": effort.num_moves,
                "num_annealed": effort.num_annealed,
                "num_annealed_sweeps": effort.num_sweeps,
            },
            log_evidence=found.estimate,
            weighted=_weighted(found),
            exhausted=not found.finished.all(),
        )
        return draws, size

    def _size(self, found: NestedRuns) -> int:
        """Live points per run that the target needs, by the spread of a few runs."""
        needed = _MARGIN * (found.estimate.standard_error / self.target_standard_error) ** 2
        largest = max(self.max_live, self.num_live)
        if not np.isfinite(needed):
            return self.num_live
        return int(np.clip(np.ceil(needed * found.num_live), self.num_live, largest))

    def _runs(
        self, prior: PriorSampler, key: jax.Array, effort: Effort, num_live: int, monitor: Monitor
    ) -> NestedRuns:
        return run(
            prior,
            key,
            self.num_runs,
            num_live,
            self.num_sweeps,
            effort,
            self.max_nats,
            monitor,
            self.is_sharded,
        )

    def _checks(self, found: NestedRuns) -> list[Check]:
        return [
            Check(
                "finished",
                bool(found.finished.all()),
                f"{int(found.finished.sum())} of {len(found.finished)} runs left less than a "
                f"thousandth of the evidence within {self.max_nats:g} nats of compression",
                "both",
            ),
            insertion_check(found.log_likelihood, found.birth),
            _exchange(found.progress),
            negative_check(found.num_failed),
        ]


def _exchange(progress: np.ndarray) -> Check:
    """Check that new points leave the theta_1 of the point that they start at.

    Where they do not, a run integrates over the few theta_1 that it began with, and its evidence is
    too small. Steps adapt from nat to nat, so that single ones say little.
    """
    length = min(_NATS, len(progress))
    worst = float(np.convolve(progress, np.full(length, 1 / length), "valid").min())
    return Check(
        "exchange",
        worst >= _LEAST_PROGRESS,
        f"squared steps of theta_1 of a new point sum to {worst:.2f} times twice its variance in "
        f"the worst {length} nats, at least {_LEAST_PROGRESS}; else raise num_sweeps",
        "both",
    )


def _equal_weight(log_likelihood: np.ndarray, birth: np.ndarray) -> np.ndarray:
    """Indices of as many draws as the weights are worth (Kish), by systematic resampling."""
    found = volumes(log_likelihood, birth)
    weights = np.exp(found.log_weight - logsumexp(found.log_weight))
    number = max(4, int(1 / np.sum(weights**2)))
    grid = (np.arange(number) + 0.5) / number
    chosen = np.searchsorted(np.cumsum(weights), grid * np.sum(weights))
    # Draws in the order of L would look like a trend to diagnostics of chains.
    shuffled = np.random.default_rng(0).permutation(np.minimum(chosen, len(weights) - 1))
    return found.order[shuffled]


def _weighted(found: NestedRuns) -> dict[str, np.ndarray]:
    """All runs as one: points of independent runs merge into one run with all live points."""
    values, birth = found.log_likelihood.ravel(), found.birth.ravel()
    merged = volumes(values, birth)
    log_weight = np.empty_like(values)
    # The log of the mean of the weights is the log evidence, as for SMC.
    log_weight[merged.order] = merged.log_weight + np.log(len(values))
    run = np.repeat(np.arange(len(found.birth)), found.birth.shape[1])
    values = np.where(values <= -WORTHLESS, -np.inf, values)
    statistics = {"log_likelihood": values, "log_weight": log_weight, "birth": birth, "run": run}
    return weighted(found.theta_1, found.theta_2, statistics)


def _notes(found: NestedRuns) -> list[str]:
    merged = volumes(found.log_likelihood.ravel(), found.birth.ravel())
    values = found.log_likelihood.ravel()[merged.order]
    notes = [
        f"{len(found.birth)} runs of {found.num_live} live points, {found.birth.size} points in all"
    ]
    transition = phase_transition(values, merged.log_volume)
    if transition is not None:
        notes.append(
            f"a first-order phase transition at power {transition.power:.3g} of the likelihood: "
            f"{transition.barrier:.0f} nats lie between two phases, which tempering cannot cross"
        )
    return notes
