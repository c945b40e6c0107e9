"""Tempered sequential Monte Carlo: posterior and log evidence, without Z."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array
from pydantic import Field

from inference import prng
from inference.averages import LARGEST_SPREAD
from inference.backends.population import (
    PopulationBackend,
    negative_check,
    weighted,
)
from inference.checks import Check, check_divergences
from inference.evidence.pilot import PowerStage, plan
from inference.evidence.population import Particles, described
from inference.evidence.prior import Effort, PriorSampler
from inference.evidence.tempered import carry, run
from inference.evidence.tempered_runs import TemperedRuns
from inference.functionals import functionals
from inference.results.draws import Draws
from inference.running.progress import Monitor

_MARGIN = 1.2
# Variance between the means of independent runs, over all variance: R-hat is 1 plus half of it.
_SHARE_ALLOWED, _SHARE_AIMED_AT = 0.02, 0.01
_FEWEST_ACCEPTED = 0.05


class TemperedSMC(PopulationBackend):
    """Populations carried from the two-stage prior to the posterior by powers of the likelihood.

    A pilot chooses powers, surrogates, step sizes and numbers of sweeps; independent runs follow
    its plan. Weights depend on L alone, so the log evidence needs no value of Z(theta_1). Above
    about 50 dimensions this is the backend for evidence; where L has a first-order transition
    (a spike on a slab) it cannot find the other phase, and nested sampling can.

    Parameters
    ----------
    num_particles : int
        Per run, at least.
    max_particles : int
        Per run, at most: first runs, which then count no more, tell how many the target needs.
    target_standard_error : float
        Of the log evidence, nats.
    num_draws : int
        Equal-weight draws per run: the final population and its further moves.

    Notes
    -----
    The other parameters are those of
    :class:`~inference.backends.population.PopulationBackend`.
    """

    num_particles: int = Field(128, ge=8)
    max_particles: int = Field(2048, ge=8)
    target_standard_error: float = Field(0.1, gt=0)
    num_draws: int = Field(512, ge=4)

    def _attempt(
        self,
        prior: PriorSampler,
        key: jax.Array,
        effort: Effort,
        size: int | None,
        monitor: Monitor,
    ) -> tuple[Draws, int]:
        key_plan, key_size, key_run, key_draw, key_fresh = prng.split(key, 5)
        stages = plan(prior, key_plan, effort, monitor)

        def runs(key: jax.Array, num_particles: int) -> TemperedRuns:
            number, many = self.num_runs, self.is_sharded
            return run(prior, key, stages, number, num_particles, effort, monitor, many)

        if size is None:
            size, found = self.num_particles, runs(key_size, self.num_particles)
            # Where these lag, more particles would lag as far behind, at a price.
            if found.lag.passed:
                size = self._size(prior, found)
                found = runs(key_run, size)
        else:
            found = runs(key_run, size)
        values = self._draws(prior, key_draw, stages[-1], found, effort)
        pair = (np.asarray(found.particles.theta_1), np.asarray(found.particles.negative))
        checks, unverified = self._negatives(prior, key_fresh, *pair, found.exchangeable)
        draws = Draws(
            values,
            (check_divergences(values["diverging"]), *_checks(found), *checks),
            notes=(f"{self.num_runs} runs of {size} particles, {len(stages) - 1} powers",),
            unverified=tuple(unverified),
            tuning=_record(stages, found, effort),
            log_evidence=found.estimate,
            weighted=_weighted(found),
            exhausted=stages[-1].power < 1,
        )
        return draws, size

    def _size(self, prior: PriorSampler, found: TemperedRuns) -> int:
        """Particles per run that the target needs, and draws that are to look like one law."""
        variance = found.spread**2 / self.num_runs
        for_evidence = variance / self.target_standard_error**2
        model, particles = prior.recipe.model, found.particles
        values = described(model, *(np.asarray(x) for x in particles[:2]))
        share = _largest_share(functionals(model, values))
        for_draws = share / _SHARE_AIMED_AT if share > _SHARE_ALLOWED else 1.0
        growth = max(_MARGIN * for_evidence, for_draws, 1.0)
        largest = max(self.max_particles, self.num_particles)
        if not np.isfinite(growth):
            return largest
        # Powers of two, so that few sizes are ever compiled.
        return int(min(largest, self.num_particles * 2 ** np.ceil(np.log2(growth))))

    def _draws(
        self,
        prior: PriorSampler,
        key: jax.Array,
        last: PowerStage,
        found: TemperedRuns,
        effort: Effort,
    ) -> dict[str, np.ndarray]:
        """Go on moving the final populations; draws of one particle after another."""
        particles = found.particles
        num_particles = particles.theta_1.shape[1]
        passes = [self._kept(particles, found.diverging)]
        while len(passes) * num_particles < self.num_draws:
            key_pass = prng.fold_in(key, len(passes))
            particles, _, info = carry(prior, key_pass, particles, last, last, effort)
            passes.append(self._kept(particles, info.diverging.reshape(self.num_runs, -1)))
        chosen = np.linspace(0, len(passes) * num_particles - 1, self.num_draws).astype(int)

        def joined(*x: np.ndarray) -> np.ndarray:
            stacked = np.stack(x, axis=2)
            return stacked.reshape(self.num_runs, -1, *stacked.shape[3:])[:, chosen]

        theta_1, theta_2, diverging = map(joined, *passes)
        values = described(prior.recipe.model, theta_1, theta_2)
        rate, step = found.acceptance_rate[-1], float(last.tuning.step_2.value)
        return values | {
            "diverging": diverging,
            "acceptance_rate": np.full(diverging.shape, rate),
            "step_size": np.full(diverging.shape, step),
        }

    @staticmethod
    def _kept(particles: Particles, diverging: Array | np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(map(np.asarray, (particles.theta_1, particles.theta_2, diverging)))


def _weighted(found: TemperedRuns) -> dict[str, np.ndarray]:
    """Each run's final population, weighted by the run's evidence."""
    particles = found.particles
    values = np.asarray(particles.log_likelihood)
    return weighted(
        np.asarray(particles.theta_1),
        np.asarray(particles.theta_2),
        {
            "log_likelihood": values,
            "log_weight": np.broadcast_to(found.log_evidence[:, None], values.shape),
            "run": np.broadcast_to(np.arange(len(values))[:, None], values.shape),
        },
    )


def _largest_share(quantities: dict[str, np.ndarray]) -> float:
    """Largest variance of run means over all variance, of arrays of shape (run, particle)."""
    varying = [x for x in quantities.values() if np.ptp(x) > 0]
    return max((float(x.mean(axis=1).var(ddof=1) / x.var()) for x in varying), default=0.0)


def _checks(found: TemperedRuns) -> list[Check]:
    accepted = float(found.acceptance_rate.min()) if len(found.acceptance_rate) else 1.0
    return [
        Check(
            "evidence",
            bool(np.isfinite(found.estimate.standard_error)),
            f"log evidence differs by {found.spread:.2g} nats between runs, "
            f"at most {LARGEST_SPREAD:g}",
            "both",
        ),
        Check(
            "exchange",
            accepted >= _FEWEST_ACCEPTED,
            f"exchange accepted {accepted:.2f} at the worst power, at least {_FEWEST_ACCEPTED}",
            "both",
        ),
        negative_check(found.num_failed),
        found.lag,
    ]


def _record(stages: list[PowerStage], found: TemperedRuns, effort: Effort) -> dict[str, Any]:
    return {
        "powers": found.powers.tolist(),
        "num_sweeps": [stage.num_sweeps for stage in stages],
        "num_sweeps_needed": [stage.num_needed for stage in stages],
        "num_bridges": [int(stage.tuning.num_bridges) for stage in stages],
        "explained": [_known(float(stage.tuning.explained)) for stage in stages],
        "mean_log_likelihood": found.means.mean(axis=0).tolist(),
        "acceptance_rate": found.acceptance_rate.tolist(),
        "num_moves": effort.num_moves,
        "num_annealed": effort.num_annealed,
        "num_annealed_sweeps": effort.num_sweeps,
        "step_theta_2": [float(stage.tuning.step_2.value) for stage in stages],
        "step_negative": [float(stage.tuning.step_negative.value) for stage in stages],
        "step_joint": [float(stage.tuning.step_joint.value) for stage in stages],
    }


def _known(value: float) -> float | None:
    """Return the value itself, and for NaN, which JSON does not have, None."""
    return None if np.isnan(value) else value
