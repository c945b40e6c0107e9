"""One self-contained page about a run, or about several runs of one problem."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2

from analyses import report_sections as sections
from analyses.files import write_whole
from analyses.functionals import is_maximum
from generative import InvalidInput
from inference import Run
from inference.running.folder import MANIFEST

_TEMPLATES = Path(__file__).parent / "templates"


def report(directories: Sequence[Path], out: Path | None) -> Path:
    """Write a page that needs no network.

    Parameters
    ----------
    directories : sequence of Path
        Run folders, or folders of run folders, of one problem.
    out : Path, optional
        The HTML file; by default `report.html` in the first folder.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InvalidInput
        If there is no intact run, or the runs are of different problems.
    """
    folders = [folder for directory in directories for folder in _run_folders(directory)]
    runs = {_label(folder, folders): Run.load(folder) for folder in folders}
    problems = {sections.problem_of(run) for run in runs.values()}
    if len(problems) > 1:
        raise InvalidInput("DIR", f"runs of {', '.join(sorted(problems))}", "runs of one problem")
    parts = [
        sections.what_was_run(runs),
        sections.bits(runs, embed),
        sections.maximum_beside_draws(runs, embed),
        sections.predictions(runs, embed),
        sections.diagnostics(runs, embed),
        sections.provenance(runs),
    ]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True)
    page = environment.get_template("report.html").render(
        title=f"{problems.pop()}: {_kinds(runs)}",
        subtitle=sections.described(next(iter(runs.values()))),
        verdict=sections.verdict(runs),
        sections=[part for part in parts if part],
    )
    out = directories[0] / "report.html" if out is None else out
    write_whole(out, lambda path: path.write_text(page, encoding="utf-8"))
    return out


def embed(draw: Callable[[io.BytesIO], None]) -> str:
    """Return a PNG as a data address."""
    buffer = io.BytesIO()
    draw(buffer)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _run_folders(directory: Path) -> list[Path]:
    if (directory / MANIFEST).is_file():
        return [directory]
    inside = sorted(path.parent for path in directory.glob(f"*/{MANIFEST}"))
    if not inside:
        raise InvalidInput(
            "DIR", f"no finished run in {directory}", "a run folder, or a folder of run folders"
        )
    return inside


def _label(folder: Path, folders: list[Path]) -> str:
    unique = sum(other.name == folder.name for other in folders) == 1
    return folder.name if unique else str(folder)


def _kinds(runs: dict[str, Run]) -> str:
    drawn = any(not is_maximum(run) for run in runs.values())
    maximum = any(is_maximum(run) for run in runs.values())
    words = ["posterior"] * drawn + ["maximum"] * maximum
    return " and ".join(words)
