"""Several runs side by side: one table, one figure; a maximum among the draws."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from analyses.figures import forest
from analyses.files import write_whole
from analyses.functionals import (
    alike,
    bits_saved,
    configuration_of,
    is_maximum,
    scalar_functionals,
    with_error,
)
from analyses.summary import evidence
from analyses.tables import text_table
from analyses.typical import place, place_all, place_answers
from generative import InvalidInput
from inference import Run

_BITS = float(np.log(2))
_NUM_DRAWN = 1000


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
    header, rows = comparison_table(runs)
    write_whole(figure, lambda path: draw_comparison(runs, path))
    notes = [line for name, run in runs.items() for line in _words(name, run, runs)]
    return "\n".join([text_table(header, rows), *notes])


def sampled_among(runs: Mapping[str, Run]) -> Run | None:
    """Return the first run that holds draws."""
    return next((run for run in runs.values() if not is_maximum(run)), None)


def comparison_table(runs: Mapping[str, Run]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: evidence, bits, and all functionals that the runs share."""
    sampled = sampled_among(runs)
    quantities, shared = _shared(runs)
    rows = [["result", *(run.result.value for run in runs.values())]]
    if any(_setup(run) != "two-stages" for run in runs.values()):
        rows.append(["set-up", *(_setup(run) for run in runs.values())])
    rows += _evidences(list(runs.values()))
    rows.append(["bits saved", *(bits_saved(run) for run in runs.values())])
    reference = None if sampled is None else scalar_functionals(sampled.tree)
    placeable = {n: sampled is not None and alike(run, sampled) for n, run in runs.items()}
    for quantity in shared:
        draws = None if reference is None else reference[quantity]
        cells = (
            _cell(x[quantity], draws if placeable[name] else None) for name, x in quantities.items()
        )
        rows.append([quantity, *cells])
    return ["", *runs], rows


def draw_comparison(runs: Mapping[str, Run], figure: Path | io.BytesIO) -> None:
    """Draw intervals of the functionals that the runs share."""
    sampled = sampled_among(runs)
    quantities, shared = _shared(runs)
    reference = None if sampled is None else scalar_functionals(sampled.tree)
    chosen = {name: {q: x[q] for q in shared} for name, x in quantities.items()}
    _draw(chosen, reference, figure)


def _shared(
    runs: Mapping[str, Run],
) -> tuple[dict[str, dict[str, xr.DataArray]], list[str]]:
    quantities = {name: scalar_functionals(run.tree) for name, run in runs.items()}
    first = next(iter(quantities.values()))
    return quantities, [q for q in first if all(q in x for x in quantities.values())]


def _words(name: str, run: Run, runs: Mapping[str, Run]) -> list[str]:
    sampled = sampled_among(runs)
    if not is_maximum(run) or sampled is None:
        return []
    if not alike(run, sampled):
        return ["", f"{name}: of another posterior than the draws, so not placed among them"]
    return ["", f"{name}:", *(f"  {line}" for line in typicality(run, sampled))]


def typicality(maximum: Run, sampled: Run) -> list[str]:
    """Say in words where a maximum is like the draws and where it is not."""
    placed = place_all(maximum.tree, sampled.tree)
    far = sorted((p for p in placed if abs(p.z_score) > 3), key=lambda p: -abs(p.z_score))
    words = "every functional lies within three posterior standard deviations of the mean"
    if far:
        words = "atypical, |z| > 3 posterior standard deviations: "
        words += ", ".join(f"{p.name} ({p.z_score:+.1f})" for p in far)
    lines = [words]
    for answers in place_answers(maximum.tree, sampled.tree):
        worst = ", ".join(f"{i} ({answers.z_scores[i]:+.1f})" for i in answers.worst)
        lines.append(
            f"{answers.head} head on {answers.name.replace('_', ' ')}: {answers.tail:.2f} of "
            f"draws answer at least as far from the mean; farthest questions {worst}"
        )
    return lines


def _cell(value: xr.DataArray, draws: xr.DataArray | None) -> str:
    if value.ndim or draws is None:
        return with_error(value)
    placed = place("", float(value), draws.values)
    tail = f"p = {placed.tail:.2g}" if placed.tail else f"p < {1 / draws.size:.1g}"
    return f"{placed.value:.4g} (z = {placed.z_score:+.1f}, {tail})"


def _draw(
    quantities: dict[str, dict[str, xr.DataArray]],
    reference: dict[str, xr.DataArray] | None,
    figure: Path | io.BytesIO,
) -> None:
    """Draw intervals, in units of the reference's standard deviation where there is one."""

    def scaled(name: str, value: xr.DataArray) -> xr.DataArray:
        flat = value.values.ravel()
        # One length for all: ArviZ aligns runs. A maximum becomes a point.
        flat = flat[np.linspace(0, flat.size - 1, _NUM_DRAWN).astype(int)]
        value = xr.DataArray(flat[None], dims=("chain", "draw"))
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
    setup = configuration_of(run).get("setup", "two-stages")
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
