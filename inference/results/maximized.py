"""A run, put together from where the starts of an ascent ended."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Array, Float

from generative import TwoStageModel
from inference.annealing.certificate import check_fresh
from inference.batches import over_points
from inference.checks import Check
from inference.estimate import Estimate
from inference.evidence.laplace import laplace_evidence
from inference.kernels.langevin.dynamics import JointMetric
from inference.moves.density import describe_pair
from inference.normalizer.log_normalizer import log_normalizer
from inference.results.bit_ledger import bit_ledger
from inference.results.maximum_tree import build_maximum_tree
from inference.results.run import Result, Run

# Below the maximum: some nats, and this share of a nat per parameter.
_SHORTFALL, _SHORTFALL_PER_PARAMETER = 0.1, 1e-3
_SIGMAS = 4.0
# Starts whose objectives differ by less, beyond errors, count as one optimum; nats.
_SAME_OPTIMUM = 0.1
# Starts whose log joint, and lambda C at theta_1, differ by less ended in one place; nats.
_SAME_PLACE = 0.03
# Beyond this, log Z at single points costs more than the ascent.
_LARGEST_NORMALIZED = 30_000


@dataclass(frozen=True)
class Ascended:
    """Where all starts ended, and how they came there.

    Attributes
    ----------
    theta_1, theta_2 : arrays, shape (start, d)
    negative : array, shape (start, M, d)
        Negative samples under theta_1.
    residuals : array, shape (start, block, 2 d)
        What remains of the gradient, by successive stretches of negative samples.
    negatives : array, shape (start, M, block, d)
        Negative samples under theta_1 after every such stretch; empty for large models.
    metric : JointMetric
        Approximate posterior covariance, for the units of `residuals`.
    path : dict
        Recorded on the way: `theta_1`, `theta_2`, shape (start, record, d), and statistics.
    steps : array, shape (record,)
        Steps before each record.
    tuning : dict
    """

    theta_1: Float[np.ndarray, "start d"]
    theta_2: Float[np.ndarray, "start d"]
    negative: Float[np.ndarray, "start M d"]
    residuals: Float[np.ndarray, "start block two_d"]
    negatives: Float[np.ndarray, "start M block d"]
    metric: JointMetric
    path: dict[str, np.ndarray]
    steps: np.ndarray
    tuning: dict[str, Any]


def run_maximizer(
    model: TwoStageModel,
    found: Ascended,
    key: jax.Array,
    configuration: dict[str, Any],
    *,
    num_ledger_points: int,
    laplace: bool,
    note: str | None,
    unverified: list[str],
) -> Run:
    """Choose the best start, and say how good it is.

    Parameters
    ----------
    model : TwoStageModel
    found : Ascended
    key : PRNG key
    configuration : dict
    num_ledger_points : int
        Of the best start's path; 0 skips the ledger.
    laplace : bool
        Whether to estimate a local log evidence.
    note : str, optional
        Why this is not the maximum, where the ascent had another target.
    unverified : list of str
        Checks that were switched off, or cost too much.
    """
    seed, key_laplace = int(jax.random.bits(key, (), jnp.uint32)), jax.random.fold_in(key, 1)
    notes = [] if note is None else [note]
    statistics = _described(model, found)
    log_z = _log_normalizers(model, found, statistics, seed)
    shortfall, error = shortfalls(found)
    statistics |= {"shortfall": shortfall, "shortfall_se": error}
    ranked = statistics["lp"]
    if log_z is None:
        notes.append("log Z not estimated in so large a model: the best start is that of lp alone")
    else:
        values, errors = (
            np.array([float(np.squeeze(x)) for x in numbers])
            for numbers in zip(*((x.value, x.standard_error) for x in log_z), strict=True)
        )
        ranked = ranked - values
        statistics |= {
            "log_normalizer": values,
            "log_normalizer_se": errors,
            "objective": ranked,
        }
    best = int(np.argmax(np.where(np.isfinite(ranked), ranked, -np.inf)))
    checks = _checks(model, statistics, best)
    uses_negatives = note is None and not model.agreement.is_tractable
    if uses_negatives and not unverified:
        checks.append(_fresh_negatives(jax.random.fold_in(key, 2), model, found, best))
    if uses_negatives:
        notes += [f"not checked: {what}" for what in unverified]
    log_evidence, bits_saved, ledger = None, None, None
    how = "log evidence: not estimated, as laplace is off or the model large"
    if note is not None:
        how = "log evidence: not estimated, as this is not the maximum of the joint density"
    if log_z is not None:
        notes += [log_z[best].note] * bool(log_z[best].note)
        error_z = float(errors[best])
        notes.append(_agreement_of_starts(ranked, errors, best))
        bits_saved = Estimate(-float(values[best]), error_z, method=log_z[best].method)
        if laplace and note is None:
            at_best = Estimate(float(ranked[best]), error_z)
            log_evidence, how = _laplace(key_laplace, model, found, best, at_best, checks)
        if num_ledger_points:
            ledger = _ledger(model, found, best, num_ledger_points, seed, bits_saved)
    notes.append(how)
    tree = build_maximum_tree(
        model,
        found.theta_1,
        found.theta_2,
        statistics,
        best,
        path={n: x for n, x in found.path.items() if x.ndim == 2},
        steps=found.steps,
        ledger=ledger,
        checks=checks,
        log_evidence=log_evidence,
        bits_saved=bits_saved,
        configuration=configuration | {"tuning": found.tuning},
        notes=notes,
    )
    passed = all(check.passed for check in checks)
    result = Result.converged if passed else Result.not_converged
    if passed and note is not None:
        result = Result.other_target
    elif passed and uses_negatives and unverified:
        result = Result.unverified
    usable = ("maximum",) if result is Result.converged else ()
    tree.attrs |= {"result": result.value, "usable": ", ".join(usable)}
    return Run(tree, result, log_evidence, bits_saved, checks, notes, model, usable)


def _described(model: TwoStageModel, found: Ascended) -> dict[str, np.ndarray]:
    pairs = (jnp.asarray(found.theta_1), jnp.asarray(found.theta_2))
    values = over_points(Partial(describe_pair, model), pairs)
    return {name: np.asarray(value, np.float64) for name, value in values.items()}


def _log_normalizers(
    model: TwoStageModel, found: Ascended, statistics: dict[str, np.ndarray], seed: int
) -> list[Estimate] | None:
    """Log Z of every start, estimated once for those that ended in one place."""
    if model.dimension > _LARGEST_NORMALIZED and not model.agreement.is_tractable:
        return None
    number = len(found.theta_1)
    strength = float(model.agreement.strength)
    keys = [statistics["lp"], strength * statistics["disagreement_theta_1"]]
    place = np.zeros(number, int)
    for start in range(number):
        apart = np.max([np.abs(x - x[start]) for x in keys], axis=0)
        place[start] = np.argmax(apart <= _SAME_PLACE)  # itself, if nowhere earlier
    # One after another: programs do not depend on how many places the starts ended in. With the
    # same random numbers, so that places differ by less noise than each has.
    at = {i: log_normalizer(model, found.theta_1[[i]], seed=seed) for i in np.unique(place)}
    return [at[i] for i in place]


def _ledger(
    model: TwoStageModel, found: Ascended, best: int, number: int, seed: int, bits: Estimate
) -> xr.Dataset | None:
    """Account of the best start's path, which ends at its average."""
    if "theta_1" not in found.path:
        return None
    chosen = _spread(len(found.steps), number)
    path = np.append(found.path["theta_1"][best, chosen], found.theta_1[[best]], axis=0)
    steps = np.append(found.steps[chosen], found.steps[-1] + 1)
    return bit_ledger(model, path, steps, seed, Estimate(-bits.value, bits.standard_error))


def _moved(metric: JointMetric, residuals: Array) -> Array:
    return jax.vmap(metric.covariance)(residuals)


def shortfalls(found: Ascended) -> tuple[np.ndarray, np.ndarray]:
    """Nats below the maximum by a quadratic model, half of g' Sigma g, with jackknife errors.

    Products of *different* stretches only: their noise averages out.
    """
    residuals = jnp.asarray(found.residuals)
    moved = over_points(Partial(_moved, found.metric), residuals)
    gram = np.asarray(
        jnp.einsum("sid,sjd->sij", residuals, moved, preferred_element_type=jnp.float64)
    )
    number = gram.shape[1]
    row_sums = gram.sum(axis=2)
    diagonal = np.diagonal(gram, axis1=1, axis2=2)
    total, trace = row_sums.sum(axis=1), diagonal.sum(axis=1)
    value = 0.5 * (total - trace) / (number * (number - 1))
    # Without stretch i: its row, its column and its square go.
    others = total[:, None] - 2 * row_sums + diagonal - (trace[:, None] - diagonal)
    left_out = 0.5 * others / ((number - 1) * (number - 2))
    spread = np.sum((left_out - left_out.mean(axis=1, keepdims=True)) ** 2, axis=1)
    return value, np.sqrt((number - 1) / number * spread)


def _checks(model: TwoStageModel, statistics: dict[str, np.ndarray], best: int) -> list[Check]:
    names = ("lp", "disagreement", "objective", "log_normalizer_se")
    bad = [n for n in names if n in statistics and not np.isfinite(statistics[n][best])]
    value, error = (float(statistics[name][best]) for name in ("shortfall", "shortfall_se"))
    allowed = _SHORTFALL + _SHORTFALL_PER_PARAMETER * model.dimension
    passed = bool(value + _SIGMAS * error < allowed)
    return [
        Check("finite", not bad, f"not finite: {', '.join(bad)}" if bad else "all finite"),
        Check(
            "stationarity",
            passed,
            f"{max(value, 0):.2g} +- {error:.1g} nats below the maximum by its gradient; "
            f"{allowed:.2g} with four errors allowed",
        ),
    ]


def _fresh_negatives(key: jax.Array, model: TwoStageModel, found: Ascended, best: int) -> Check:
    """Compare the best start's negative samples with fresh draws of q there."""
    negatives = found.negatives[best]
    theta_1 = np.broadcast_to(found.theta_1[best], negatives.shape)
    return check_fresh(model, key, theta_1, negatives, negatives.shape[0] * negatives.shape[1])


def _agreement_of_starts(objective: np.ndarray, error: np.ndarray, best: int) -> str:
    if not np.isfinite(error[best]):
        return "starts not compared: log Z of the best one is not known"
    margin = _SAME_OPTIMUM + _SIGMAS * np.hypot(error, error[best])
    same = int(np.sum(objective[best] - objective <= margin))
    return f"{same} of {len(objective)} starts reached the best objective within its error"


def _laplace(
    key: jax.Array,
    model: TwoStageModel,
    found: Ascended,
    best: int,
    objective: Estimate,
    checks: list[Check],
) -> tuple[Estimate | None, str]:
    missing = "log evidence: not estimated, as "
    if model.is_null:
        known = Estimate.of_no_data()
        return known, known.note
    stages = (model.first_stage, model.second_stage)
    if any(stage.has_kinks for stage in stages):
        return None, missing + "the maximum sits on kinks of the prior"
    if not all(stage.is_gaussian for stage in stages):
        return None, missing + "Laplace's method takes the precisions of Gaussian stages"
    failed = [check.name for check in checks if not check.passed]
    if failed:
        return None, missing + f"this may be no maximum: {', '.join(failed)}"
    theta_2, negative = (jnp.asarray(x[best]) for x in (found.theta_2, found.negative))
    estimate = laplace_evidence(key, model, theta_2, negative, objective)
    if not np.isfinite(estimate.value):
        return None, missing + "the density is not concave where the ascent ended"
    return estimate, "log evidence: Laplace's method at the maximum; local, of this mode alone"


def _spread(number: int, wanted: int) -> np.ndarray:
    """Records at geometrically growing distances: an ascent moves most at first."""
    return np.unique(np.geomspace(1, number, min(wanted, number)).astype(int) - 1)
