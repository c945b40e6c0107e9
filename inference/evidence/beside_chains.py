"""log p(data) beside chains: a tempered SMC whose last populations must agree with their draws.

Chains start at draws of the prior and move at full power at once, so that all of them may end in
one mode of a likelihood that has others. Populations come from the prior by small steps, and reach
a mode that a thousandth of the prior leads to. If both are sound and differ, one of them is wrong.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Array

from generative import InvalidInput, TwoStageModel
from inference.checks import Check, z_score
from inference.doubling import compare
from inference.estimate import Estimate, Evidence
from inference.evidence.planned import default_recipe, plan_populations
from inference.evidence.population import Recipe, described
from inference.evidence.prior import MOVES_TO_FORGET, RejectionCapped, require_found
from inference.evidence.tempered import run
from inference.evidence.tempered_runs import TemperedRuns
from inference.functionals import functionals
from inference.kernels.negative_choice import without_rejection
from inference.running.progress import Monitor

POPULATIONS = "populations"
NOT_ASKED_FOR = Evidence(None, "log evidence: not estimated, as evidence_particles = 0 asks")
_NUM_RUNS = 8
_MOST_SD = 4.0
# Annealed draws of the prior hold whole paths of particles.
_LARGEST = 2000


def evidence_beside(
    recipe: Recipe,
    values: dict[str, np.ndarray],
    key: Array,
    num_particles: int,
    num_moves: int | None,
    monitor: Monitor,
) -> Evidence:
    """Estimate log p(data), and check the chains by it.

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
    num_moves : int, optional
        HMC moves per persistent negative sample; by default as many as are found to be needed.
    monitor : Monitor

    Returns
    -------
    Evidence
        With the check `populations`, unless the populations are not sound themselves.
    """
    model: TwoStageModel = recipe.model
    if model.is_null:
        return Evidence((exact := Estimate.of_no_data()), exact.note)
    effort = (values["theta_2"], key, num_particles, num_moves, monitor)
    try:
        found, note = _populations(recipe, *effort)
    except RejectionCapped:
        why = "rejection hit its cap there"
        moves = num_moves or MOVES_TO_FORGET
        sampler, why = without_rejection(model, recipe.max_num_steps, moves, why)
        recipe = replace(recipe, negative=sampler)
        found, note = _populations(recipe, *effort)
        note += f"; {why}"
    except InvalidInput as error:
        return _none(f"populations cannot start: {error}")
    if found.exchangeable is not None and not found.exchangeable.passed:
        return _none(f"the prior is not drawn: {found.exchangeable.message}; {note}")
    if not found.lag.passed:
        return _none(f"tempered populations lag ({found.lag.message}); try the nested backend")
    if found.powers[-1] < 1:
        return _none(f"powers ran out before tempered populations reached the posterior; {note}")
    particles = described(model, *(np.asarray(x) for x in found.particles[:2]))
    pair = (functionals(model, values), functionals(model, particles))
    if not np.isfinite(found.estimate.standard_error):
        differ = f"tempered populations differ by {found.spread:.2g} nats between runs"
        check = nearness(*pair, int(np.argmax(found.log_evidence)))
        return _none(f"{differ}; try the smc or nested backend; {note}", check)
    check = _agreement(*pair)
    if not check.passed:
        why = "chains and tempered populations contradict each other; try the smc or nested backend"
        return _none(f"{why}; {note}", check)
    how = (
        f"log evidence: by tempered SMC, {_NUM_RUNS} runs of {num_particles} particles, whose last "
        f"populations agree with the chains; {note}"
    )
    return Evidence(found.estimate, how, (check,))


def evidence_beside_any(
    model: TwoStageModel,
    values: dict[str, np.ndarray],
    key: Array,
    num_particles: int,
    num_moves: int | None,
    monitor: Monitor,
) -> Evidence:
    """Do the same beside chains that have no exchange move, with negative samples as they suit.

    Parameters
    ----------
    model : TwoStageModel
    values, key, num_particles, num_moves, monitor
        See :func:`evidence_beside`.
    """
    if num_particles == 0:
        return NOT_ASKED_FOR
    if model.dimension > _LARGEST:
        return _none(f"populations are for up to {_LARGEST} parameters")
    recipe = default_recipe(model)
    return evidence_beside(recipe, values, key, num_particles, num_moves, monitor)


def _none(why: str, *checks: Check) -> Evidence:
    return Evidence(None, f"log evidence: not estimated, since {why}", checks)


def _agreement(chains: dict[str, np.ndarray], populations: dict[str, np.ndarray]) -> Check:
    """Check that functionals of the chains have the means that they have in the populations."""
    check = compare(chains, populations, 1, 2 * (_NUM_RUNS - 1)).check
    message = f"chains and tempered populations from the prior: {check.message.partition(': ')[2]}"
    return replace(check, name=POPULATIONS, message=message)


def nearness(chains: dict[str, np.ndarray], populations: dict[str, np.ndarray], best: int) -> Check:
    """Check that chains are where the run with the largest evidence is.

    Runs that differ tell no mean. But where the best of them is in a mode of a twentieth of the
    posterior or more, its means are within four standard deviations of chains that know the mode.
    """
    far = {}
    for name in chains.keys() & populations.keys():
        gap = abs(populations[name][best].mean() - chains[name].mean())
        far[name] = z_score(float(gap), float(chains[name].std()))
    worst = max(far, key=lambda name: far[name])
    return Check(
        POPULATIONS,
        far[worst] <= _MOST_SD,
        "the tempered population with the largest evidence is at most "
        f"{far[worst]:.2g} sd of the chains away ({worst}), below {_MOST_SD:.0f}",
    )


def _populations(
    recipe: Recipe,
    theta_2: np.ndarray,
    key: Array,
    num_particles: int,
    num_moves: int | None,
    monitor: Monitor,
) -> tuple[TemperedRuns, str]:
    planned = plan_populations(recipe, theta_2, key, num_moves, monitor)
    prior, stages, effort, key_run = planned
    size = (_NUM_RUNS, num_particles)
    found = run(prior, key_run, stages, *size, effort, monitor, gives_up=True)
    require_found(found.num_failed)
    return found, planned.note
