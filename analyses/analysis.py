"""What all analyses share: a configuration, runs that can be resumed, a tree, a figure, words."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from analyses.cells import Cell, Runner
from analyses.files import write_whole
from analyses.provenance import heading
from generative import InvalidInput, problems
from inference import Run
from inference.results.tree import versions

_CONFIGURATION, CONCLUSION = "config.json", "conclusion.md"
_TREE, _FIGURE = "tree.nc", "figure.png"


class Analysis(BaseModel, ABC):
    """One question, asked of runs; its fields are its configuration.

    Parameters
    ----------
    seed : int
        Of all runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]
    seed: int = Field(0, ge=0)

    def cells(self) -> Sequence[Cell]:
        """Return the runs that the analysis needs."""
        return []

    def check(self) -> None:
        """Refuse options that cannot be used, before anything is written."""
        for cell in self.cells():
            problems.get(cell.problem, **cell.options)

    @abstractmethod
    def reduce(self, runs: Mapping[str, Run]) -> xr.DataTree:
        """Return what the runs say, one tree."""

    @abstractmethod
    def draw(self, tree: xr.DataTree, target: Path) -> None:
        """Draw the figure."""

    @abstractmethod
    def conclude(self, tree: xr.DataTree) -> str:
        """Return tables and a paragraph of what follows, and what does not; Markdown."""


def perform(analysis: Analysis, out: Path, runner: Runner, resume: bool = False) -> xr.DataTree:
    """Make an analysis in a folder: its runs, then `tree.nc`, `figure.png` and `conclusion.md`.

    Parameters
    ----------
    analysis : Analysis
    out : Path
        A new folder, or with `resume` the unfinished one of this very analysis.
    runner : Runner
        Where runs are made.
    resume : bool
        Go on where an interrupted analysis stopped: finished runs are kept, an unfinished one goes
        on from its checkpoint.

    Raises
    ------
    InvalidInput
        If the folder holds something else.
    """
    configuration = {"analysis": analysis.name, **analysis.model_dump(mode="json")}
    analysis.check()
    _claim(out, configuration, resume)
    cells = analysis.cells()
    runs = runner(cells, out / "runs", analysis.seed)
    tree = analysis.reduce(runs)
    tree.attrs |= {"configuration": json.dumps(configuration, sort_keys=True)}
    write_whole(out / _TREE, lambda path: tree.to_netcdf(path, engine="h5netcdf"))
    write_whole(out / _FIGURE, lambda path: analysis.draw(tree, path))
    figure = f"![{analysis.name}]({_FIGURE})"
    text = "\n\n".join([_heading(analysis), figure, analysis.conclude(tree), _support(cells, runs)])
    write_whole(out / CONCLUSION, lambda path: path.write_text(text + "\n"))
    return tree


def _claim(out: Path, configuration: dict[str, Any], resume: bool) -> None:
    path = out / _CONFIGURATION
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InvalidInput("out", f"{path}, which is damaged", "a new name")
        if found != configuration:
            other = ", ".join(k for k in configuration if found.get(k) != configuration[k])
            raise InvalidInput("out", f"an analysis with other {other}", "a new name")
        if not resume:
            raise InvalidInput("out", f"{out} holds this analysis", "--resume, or a new name")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInput("out", f"{out} exists", "a new or empty folder")
    if not path.exists():
        text = json.dumps(configuration, indent=1, sort_keys=True) + "\n"
        write_whole(path, lambda part: part.write_text(text))


def _heading(analysis: Analysis) -> str:
    title = heading(analysis.name, f"concord analyse {analysis.name}").strip()
    changed = analysis.model_dump_json(exclude_defaults=True)
    return title if changed == "{}" else f"{title} With `{changed}`."


def _support(cells: Sequence[Cell], runs: Mapping[str, Run]) -> str:
    if not cells:
        return "Exact; no runs."
    lines = ["Runs that support this, with the verdict of their own checks:", ""]
    now = versions()
    for cell in cells:
        run = runs[cell.name]
        made = {name: run.tree.attrs[f"{name}_version"] for name in now}
        other = ", ".join(f"{name} {made[name]}" for name in now if made[name] != now[name])
        note = f", made with {other}" if other else ""
        lines.append(f"- `runs/{cell.name}`: {run.result.value}{note}")
    return "\n".join(lines)
