"""What every analysis measures of a run."""

from collections.abc import Mapping, Sequence

import arviz as az
import numpy as np
import xarray as xr

from analyses.cells import Cell
from analyses.functionals import configuration_of, right_answers, right_by_question
from analyses.roles import pair_probabilities
from inference import Run


def measure(run: Run) -> xr.Dataset:
    """Return evidence, bits saved, disagreement, right answers and pairs of functions, with errors.

    Returns
    -------
    Dataset
        `log_evidence` in bits, `bits_saved`, `disagreement` and `disagreement_theta_1` (C of both
        stages), `right` (probability of the true answer, dims head and set), and what
        :func:`~analyses.roles.pair_probabilities` returns; each with a variable `..._se`, its
        Monte Carlo error. `..._questions`: the standard error from having asked these held-out
        questions and not others of their kind. NaN: not estimated. `usable`: whether the run's own
        checks passed.
    """
    values: dict[str, tuple | xr.DataArray | float] = {}
    # Where Z is omitted agreement is a part of L, and "no bits saved" would be an artefact.
    omitted = configuration_of(run).get("setup") == "z-omitted"
    bits_saved = None if omitted else run.bits_saved
    for name, estimate in (("log_evidence", run.log_evidence), ("bits_saved", bits_saved)):
        values[name] = values[f"{name}_se"] = np.nan
        if estimate is not None:
            values[name] = float(estimate.bits)
            values[f"{name}_se"] = float(estimate.bits_error)
    stats = run.tree.children["map" if "map" in run.tree.children else "sample_stats"].dataset
    for name in ("disagreement", "disagreement_theta_1", "log_likelihood"):
        values[name], values[f"{name}_se"] = mean_and_error(stats[name].values)
    right = right_answers(run.tree)
    if right is not None:
        means = {
            n: [mean_and_error(x.sel(head=h).values) for h in x["head"].values]
            for n, x in right.items()
        }
        table = np.array(list(means.values()))
        for name, part in (("right", table[..., 0]), ("right_se", table[..., 1])):
            values[name] = (("set", "head"), part)
        asked = [_over_questions(x) for x in right_by_question(run.tree).values()]
        values["right_questions"] = (("set", "head"), np.array(asked))
        values |= {str(n): x for n, x in pair_probabilities(run.tree).data_vars.items()}
    values["usable"] = float(run.result.is_usable)
    coords = {} if right is None else {"set": list(means), "head": ["first", "second"]}
    return xr.Dataset(values, coords=coords).drop_vars("start", errors="ignore")


def gather(cells: Sequence[Cell], runs: Mapping[str, Run]) -> xr.Dataset:
    """Measure all runs.

    Returns
    -------
    Dataset
        With a dim `case`.
    """
    parts = [
        measure(runs[cell.name]).assign(run=cell.name).expand_dims(case=[cell.case])
        for cell in cells
    ]
    return xr.concat(parts, "case")


def with_error(value: xr.DataArray, error: xr.DataArray, digits: int = 2) -> str:
    """Return a number with its standard error, for a table."""
    if not np.isfinite(float(value)):
        return "-"
    text = f"{float(value):.{digits}f}"
    if np.isinf(float(error)):
        return f"{text} (runs disagree)"
    return text if np.isnan(float(error)) else f"{text} ± {float(error):.{digits}f}"


def _over_questions(right: xr.DataArray) -> np.ndarray:
    """Standard error of a mean over questions, of posterior means, by head."""
    mean = right.mean([d for d in right.dims if d in ("chain", "draw")]).transpose("head", ...)
    return mean.values.std(axis=-1, ddof=1) / np.sqrt(mean.shape[-1])


def mean_and_error(draws: np.ndarray) -> tuple[float, float]:
    """Mean and Monte Carlo error of draws, shape (chain, draw); no error of a single value."""
    if draws.ndim == 0:
        return float(draws), np.nan
    error = float(np.asarray(az.mcse(draws))) if np.ptp(draws) > 0 else 0.0
    return float(draws.mean()), error
