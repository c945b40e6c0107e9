"""log p(data) beside chains: a tempered SMC whose last population must agree with their draws."""

from dataclasses import replace

import numpy as np
from jaxtyping import Array

from generative import InvalidInput, TwoStageModel
from inference import prng
from inference.annealing.certificate import NUM_FRESH_PARTICLES
from inference.doubling import compare
from inference.estimate import Estimate
from inference.evidence.pilot import plan
from inference.evidence.population import Recipe, described
from inference.evidence.prior import (
    NUM_SWEEPS,
    Effort,
    RejectionCapped,
    annealed_prior,
    prior_sampler,
)
from inference.evidence.tempered import TemperedRuns, run
from inference.functionals import functionals
from inference.kernels.negative_choice import without_rejection
from inference.running.progress import Monitor

_NUM_RUNS = 8


def log_evidence_beside(
    recipe: Recipe,
    values: dict[str, np.ndarray],
    key: Array,
    num_particles: int,
    num_moves: int,
    monitor: Monitor,
) -> tuple[Estimate | None, str]:
    """Estimate log p(data), unless the populations contradict the chains.

    Agreement shows that both describe the same region, not that there is no other: a phase that
    neither visits is seen by nested sampling alone.

    Parameters
    ----------
    recipe : Recipe
    values : dict
        Draws of the chains, as in :class:`~inference.results.draws.Draws`.
    key : PRNG key
    num_particles : int
        Per run, of eight.
    num_moves : int
        HMC moves per persistent negative sample.
    monitor : Monitor

    Returns
    -------
    estimate : Estimate or None
    note : str
        How it was estimated, or why not.
    """
    model: TwoStageModel = recipe.model
    if model.is_null:
        return (exact := Estimate.of_no_data()), exact.note
    effort = (values["theta_2"], key, num_particles, num_moves, monitor)
    try:
        found, note = _populations(recipe, *effort)
    except RejectionCapped:
        why = "rejection hit its cap there"
        sampler, why = without_rejection(model, recipe.max_num_steps, num_moves, why)
        found, note = _populations(replace(recipe, negative=sampler), *effort)
        note += f"; {why}"
    except InvalidInput as error:
        return None, f"log evidence: not estimated, since populations cannot start: {error}"
    check = found.exchangeable
    if check is not None and not check.passed:
        return None, f"log evidence: not estimated, since the prior is not drawn: {check.message}"
    if not np.isfinite(found.estimate.standard_error):
        return None, (
            "log evidence: not estimated, since tempered populations differ by "
            f"{found.spread:.2g} nats between runs; try the smc or nested backend"
        )
    if not found.lag.passed:
        return None, (
            f"log evidence: not estimated, since tempered populations lag ({found.lag.message}); "
            "try the nested backend"
        )
    particles = described(model, *(np.asarray(x) for x in found.particles[:2]))
    check = compare(
        functionals(model, values), functionals(model, particles), num_moves, 2 * (_NUM_RUNS - 1)
    ).check
    if not check.passed:
        return None, (
            "log evidence: not estimated, since tempered populations and chains differ "
            f"({check.message.partition(': ')[2]}); try the nested backend"
        )
    return found.estimate, (
        f"log evidence: by tempered SMC, {_NUM_RUNS} runs of {num_particles} particles, whose last "
        f"populations agree with the chains; {note}"
    )


def _populations(
    recipe: Recipe,
    theta_2: np.ndarray,
    key: Array,
    num_particles: int,
    num_moves: int,
    monitor: Monitor,
) -> tuple[TemperedRuns, str]:
    key_prior, key_plan, key_run = prng.split(key, 3)
    prior = prior_sampler(recipe, key_prior)
    if not prior.holds_at(theta_2):
        prior = annealed_prior(recipe)
    effort = Effort(num_moves, NUM_FRESH_PARTICLES, NUM_SWEEPS)
    stages = plan(prior, key_plan, effort, monitor)
    found = run(prior, key_run, stages, _NUM_RUNS, num_particles, effort, monitor)
    if found.num_failed:
        raise RejectionCapped("negative", f"{found.num_failed} caps hit", "persistent")
    return found, prior.note
