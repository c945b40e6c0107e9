"""Several runs side by side: one table, one figure; a maximum among the draws."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from analyses.figures import forest
from analyses.functionals import is_maximum, scalar_functionals, with_error
from analyses.summary import evidence
from analyses.tables import text_table
from analyses.typical import Placed, place, place_answers
from generative import InvalidInput
from inference import Run

_BITS = float(np.log(2))


def compare(directories: Sequence[Path], figure: Path) -> str:
    """Compare runs, and draw intervals of their functionals.

    Parameters
    ----------
    directories : sequence of Path
        Run folders. Maxima are placed among the draws of the first sampled run.
    figure : Path
        Where the PNG goes.

    Returns
    -------
    str
        The table, and below it where each maximum is typical and where not.

    Raises
    ------
    InvalidInput
        If there are fewer than two folders, or one is not an intact run.
    """
    if len(directories) < 2:
        raise InvalidInput("DIR", f"{len(directories)} folders", "two or more run folders")
    runs = {str(directory): Run.load(directory) for directory in directories}
    sampled = next((run for run in runs.values() if not is_maximum(run)), None)
    quantities = {name: scalar_functionals(run.tree) for name, run in runs.items()}
    shared = [
        q for q in next(iter(quantities.values())) if all(q in x for x in quantities.values())
    ]
    rows = [["result", *(run.result.value for run in runs.values())]]
    if any(_setup(run) != "two-stages" for run in runs.values()):
        rows.append(["set-up", *(_setup(run) for run in runs.values())])
    rows += _evidences(list(runs.values()))
    rows.append(["bits saved", *(_bits(run) for run in runs.values())])
    reference = None if sampled is None else scalar_functionals(sampled.tree)
    for name in shared:
        draws = None if reference is None else reference[name]
        rows.append([name, *(_cell(x[name], draws) for x in quantities.values())])
    chosen = {name: {q: x[q] for q in shared} for name, x in quantities.items()}
    _draw(chosen, reference, figure)
    table = text_table(["", *runs], rows)
    notes = [
        line
        for name, run in runs.items()
        if is_maximum(run) and sampled is not None
        for line in typicality(name, run, sampled)
    ]
    return "\n".join([table, *notes])


def typicality(name: str, maximum: Run, sampled: Run) -> list[str]:
    """Say in words where a maximum is like the draws and where it is not."""
    draws = scalar_functionals(sampled.tree)
    placed = [
        place(quantity, float(value), draws[quantity].values)
        for quantity, value in scalar_functionals(maximum.tree).items()
        if quantity in draws
    ]
    far = sorted((p for p in placed if abs(p.z_score) > 3), key=lambda p: -abs(p.z_score))
    lines = ["", f"{name}: z-scores are in standard deviations of the posterior's draws"]
    lines.append(
        "  atypical (|z| > 3): " + ", ".join(f"{p.name} ({p.z_score:+.1f})" for p in far)
        if far
        else "  every functional lies within three standard deviations"
    )
    for answers in place_answers(maximum.tree, sampled.tree):
        worst = ", ".join(f"{i} ({answers.z_scores[i]:+.1f})" for i in answers.worst)
        lines.append(
            f"  {answers.head} head on {answers.name.replace('_', ' ')}: {answers.tail:.2f} of "
            f"draws answer at least as far from the mean; farthest questions {worst}"
        )
    return lines


def _cell(value: xr.DataArray, draws: xr.DataArray | None) -> str:
    if value.ndim or draws is None:
        return with_error(value)
    placed: Placed = place("", float(value), draws.values)
    return f"{placed.value:.4g} (z = {placed.z_score:+.1f}, p = {placed.tail:.2g})"


def _draw(
    quantities: dict[str, dict[str, xr.DataArray]],
    reference: dict[str, xr.DataArray] | None,
    figure: Path,
) -> None:
    """Draw intervals, in units of the reference's standard deviation where there is one."""

    def scaled(name: str, value: xr.DataArray) -> xr.DataArray:
        if value.ndim == 0:  # a maximum: a point
            value = value.expand_dims(chain=2, draw=4)
        if "draw" in value.coords:
            value = value.drop_vars("draw")
        value = value.rename(draw=f"draw_{value.sizes['draw']}")
        if reference is None:
            return value
        draws = reference[name]
        deviation = float(draws.std())
        return (value - float(draws.mean())) / (deviation if deviation > 0 else 1.0)

    data = {
        run: xr.Dataset({name: scaled(name, value) for name, value in values.items()})
        for run, values in quantities.items()
    }
    unit = "" if reference is None else ", in posterior standard deviations of the first sampled"
    forest(data, figure, f"Functionals by run{unit}")


def _setup(run: Run) -> str:
    setup = json.loads(run.tree.attrs["configuration"]).get("setup", "two-stages")
    return "Z omitted (a mistake)" if setup == "z-omitted" else setup


def _evidences(runs: list[Run]) -> list[list[str]]:
    """Log evidences, and what each differs by from the first."""
    rows = [["log evidence", *(evidence(run) for run in runs)]]
    first = runs[0].log_evidence
    if first is None or all(run.log_evidence is None for run in runs[1:]):
        return rows
    for unit, size in (("nats", 1.0), ("bits", _BITS)):
        cells = ["-"]
        for other in (run.log_evidence for run in runs[1:]):
            if other is None:
                cells.append("not estimated")
                continue
            error = np.hypot(other.standard_error, first.standard_error) / size
            cells.append(f"{(other.value - first.value) / size:+.3f} +- {error:.2g}")
        rows.append([f"log evidence less the first's, {unit}", *cells])
    return rows


def _bits(run: Run) -> str:
    if run.bits_saved is None:
        return "not estimated"
    return f"{run.bits_saved.bits:.4g} +- {run.bits_saved.standard_error / _BITS:.2g}"
