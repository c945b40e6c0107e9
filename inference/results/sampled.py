"""A run, put together from a sampler's draws."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from generative import AgreementNotReached, TwoStageModel, simulate
from inference import prng
from inference.answers import answers
from inference.checks import Check, check_chains
from inference.estimate import Estimate, Evidence
from inference.functionals import judged
from inference.reflections import reflected
from inference.results.bits_saved import posterior_mean_cost
from inference.results.draws import Draws
from inference.results.run import Result, Run
from inference.results.tree import build_tree

_REFLECTED = (
    "signs of parameters that the model's reflections turn were drawn anew for every draw: "
    "they say nothing of how chains mix"
)
_NUM_PRIOR_DRAWS, _PRIOR_BATCH, _PRIOR_CAP = 500, 20, 2000
# Beyond this, hundreds of parameter vectors are too much for what runs beside the draws.
_LARGEST_KEPT = 30_000


def run_of(
    model: TwoStageModel,
    draws: Draws,
    key: jax.Array,
    configuration: dict[str, Any],
    evidence_fn: Callable[[jax.Array], Evidence],
    evidence_stands_alone: bool,
) -> Run:
    """Check draws, and estimate what comes with them.

    Parameters
    ----------
    model : TwoStageModel
    draws : Draws
    key : PRNG key
        Of the run; the first of its three parts has made the draws.
    configuration : dict
    evidence_fn : callable
        Of a PRNG key.
    evidence_stands_alone : bool
        Whether it may be used though the draws may not.
    """
    _, key_prior, key_cost = prng.split(key, 3)
    key_evidence = prng.fold_in(key, 3)
    answered = draws.answers or answers(model, draws.values["theta_2"])
    log_evidence, how, more = evidence_fn(key_evidence)
    draws = draws.also(more)
    result, checks = verdict(model, draws, answered)
    bits_saved, missing = _bits_saved(model, draws, key_cost)
    prior, note = _prior(model, key_prior)
    notes = [*draws.notes, *missing, *note, how]
    notes += [_REFLECTED] * bool(len(model.reflections))
    notes += [f"not checked: {what}" for what in draws.unverified]
    notes += [f"not the posterior: {draws.other_target}"] if draws.other_target else []
    tree = build_tree(
        model,
        reflected(model, prng.fold_in(key, 5), draws.values),
        prior=prior,
        posterior_answers=answered,
        checks=checks,
        doubling=draws.doubling,
        log_evidence=log_evidence,
        weighted=draws.weighted,
        bits_saved=bits_saved,
        configuration=configuration | {"tuning": draws.tuning},
        notes=notes,
    )
    alone = evidence_stands_alone and not draws.unverified and not draws.other_target
    usable = _usable(result, checks, log_evidence, alone)
    tree.attrs |= {"result": result.value, "usable": ", ".join(usable)}
    return Run(tree, result, log_evidence, bits_saved, checks, notes, model, usable)


def verdict(
    model: TwoStageModel, draws: Draws, answered: dict[str, np.ndarray]
) -> tuple[Result, list[Check]]:
    """Judge draws; return the result of their run, and all checks behind it.

    Parameters
    ----------
    model : TwoStageModel
    draws : Draws
    answered : dict
        What the draws of theta_2 answer, from :func:`inference.answers.answers`.
    """
    checks = check_chains(judged(model, draws.values, answered)) + list(draws.checks)
    return _result(draws, checks), checks


def _result(draws: Draws, checks: list[Check]) -> Result:
    if draws.exhausted:
        return Result.budget_exhausted
    if not all(check.passed for check in checks):
        return Result.not_converged
    if draws.other_target is not None:
        return Result.other_target
    return Result.unverified if draws.unverified else Result.converged


def _usable(
    result: Result, checks: list[Check], log_evidence: Estimate | None, stands_alone: bool
) -> tuple[str, ...]:
    """Name the parts of a run that may be used: its draws, its log evidence."""
    known = log_evidence is not None and np.isfinite(log_evidence.standard_error)
    if result is Result.converged:
        return ("draws", "log_evidence") if known else ("draws",)
    sound = all(check.passed for check in checks if check.about != "draws")
    if known and stands_alone and sound and result is Result.not_converged:
        return ("log_evidence",)
    return ()


def _bits_saved(
    model: TwoStageModel, draws: Draws, key: jax.Array
) -> tuple[Estimate | None, list[str]]:
    if model.dimension > _LARGEST_KEPT and not model.agreement.is_tractable:
        return None, ["bits saved: not estimated; see log_normalizer for single points"]
    theta_1, theta_2 = (draws.values[name] for name in ("theta_1", "theta_2"))
    return posterior_mean_cost(model, theta_1, theta_2, key), []


def _prior(model: TwoStageModel, key: jax.Array) -> tuple[dict[str, np.ndarray] | None, list[str]]:
    """Exact draws from the two-stage prior where they can be had; else say why not."""
    if model.dimension > _LARGEST_KEPT:
        return None, ["no prior draws: the model is too large to keep them"]
    try:
        # Few at a time: cheap where it must fail.
        batches = [
            simulate(model, prng.fold_in(key, index), _PRIOR_BATCH, cap=_PRIOR_CAP)
            for index in range(_NUM_PRIOR_DRAWS // _PRIOR_BATCH)
        ]
    except AgreementNotReached:
        return None, ["no prior draws: Z(theta_1) is too small for exact simulation by rejection"]
    pairs = zip(*((x.theta_1, x.theta_2) for x in batches), strict=True)
    return dict(zip(("theta_1", "theta_2"), map(np.concatenate, pairs), strict=True)), []
