"""Several runs side by side: one table, one figure."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from analyses.figures import forest
from analyses.summary import evidence, functionals_of, right_answers, with_error
from analyses.tables import text_table
from generative import InvalidInput
from inference import Run


def compare(directories: Sequence[Path], figure: Path) -> str:
    """Compare runs, and draw intervals of their functionals.

    Parameters
    ----------
    directories : sequence of Path
        Run folders.
    figure : Path
        Where the PNG goes.

    Returns
    -------
    str
        The table.

    Raises
    ------
    InvalidInput
        If there are fewer than two folders, or one is not an intact run.
    """
    if len(directories) < 2:
        raise InvalidInput("DIR", f"{len(directories)} folders", "two or more run folders")
    runs = {str(directory): Run.load(directory) for directory in directories}
    quantities = {name: _quantities(run.tree) for name, run in runs.items()}
    shared = [
        q for q in next(iter(quantities.values())) if all(q in x for x in quantities.values())
    ]
    rows = [["result", *(run.result.value for run in runs.values())]]
    if any(_setup(run) != "two-stages" for run in runs.values()):
        rows.append(["set-up", *(_setup(run) for run in runs.values())])
    rows += _evidences(list(runs.values()))
    rows.append(["bits saved", *(_bits(run) for run in runs.values())])
    rows += [[q, *(with_error(x[q]) for x in quantities.values())] for q in shared]
    forest(
        {name: xr.Dataset({q: x[q] for q in shared}) for name, x in quantities.items()},
        figure,
        "Posterior functionals by run",
    )
    return text_table(["", *runs], rows)


def _quantities(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    quantities = dict(functionals_of(tree).items())
    right = right_answers(tree)
    for name, draws in {} if right is None else right.items():
        for head in ("first", "second"):
            quantities[f"P({head} right), {name}"] = (
                draws.sel(head=head).drop_vars(["head", "draw"]).rename(draw="answer_draw")
            )
    return quantities


def _setup(run: Run) -> str:
    setup = json.loads(run.tree.attrs["configuration"]).get("setup", "two-stages")
    return "Z omitted (a mistake)" if setup == "z-omitted" else setup


def _evidences(runs: list[Run]) -> list[list[str]]:
    """Log evidences, and what each differs by from the first."""
    rows = [["log evidence", *(evidence(run) for run in runs)]]
    first = runs[0].log_evidence
    if first is None or all(run.log_evidence is None for run in runs[1:]):
        return rows
    for unit, size in (("nats", 1.0), ("bits", float(np.log(2)))):
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
    return f"{run.bits_saved.bits:.4g} +- {run.bits_saved.standard_error / np.log(2):.2g}"
