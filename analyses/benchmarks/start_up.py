"""What a run costs before it draws: programs compiled, and seconds with a cold and a warm cache."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from analyses.provenance import heading, publish
from analyses.tables import markdown_table
from generative import GaussianStage, TwoStageModel, problems
from inference import infer
from inference.backends.base import Backend
from inference.backends.registry import BACKENDS

COMMANDS = (
    ("double_well", "rejection-gibbs"),
    ("double_well", "hmc"),
    ("digits", "map"),
)
# Small, since every program has the same length whatever the number of draws.
SMALL: dict[str, dict[str, Any]] = {
    "hmc": {
        "num_warmup": 100,
        "num_draws": 100,
        "negative": "persistent",
        "max_doublings": 1,
        "evidence_particles": 16,
    },
    "sgld": {"num_warmup": 100, "num_draws": 100},
    "nested": {"num_live": 50, "negative": "persistent", "max_doublings": 1},
    "smc": {"num_draws": 64, "negative": "persistent", "max_doublings": 1},
    "map": {"num_warmup": 100, "num_steps": 100},
    "rejection-gibbs": {"num_draws": 100},
}


def main(out: Path | None) -> int:
    """Run the benchmark."""
    page = heading("Start-up", "concord benchmark start_up")
    page += (
        "\nWhole commands with their default options, in a process of their own, once each: with "
        "an empty cache of compiled programs, and again.\n\n"
    )
    header = ["command", "compiled, cold", "s, cold", "compiled, again", "s, again", "ratio"]
    page += markdown_table(header, [command_row(*command) for command in COMMANDS])
    page += (
        "\n\n## A second model of the same structure\n\nAfter a run on the `double_well`, in the "
        "same process: the same backend on a model with another lambda and another prior scale.\n\n"
    )
    rows = [
        [backend.__name__, *map(str, second_model(backend(**SMALL.get(name, {}))))]
        for name, backend in BACKENDS.items()
    ]
    page += markdown_table(["backend", "compiled, first model", "compiled, second model"], rows)
    publish(page, out)
    return 0


def command_row(problem: str, backend: str) -> list[str]:
    """Run one command twice with a cache of its own."""
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = (_timed(problem, backend, Path(folder), name) for name in ("cold", "warm"))
    ratio = f"{cold[1] / warm[1]:.1f}"
    cells = [f"{x:.0f}" for pair in (cold, warm) for x in pair]
    return [f"run {problem} --backend {backend}", *cells, ratio]


def _timed(problem: str, backend: str, folder: Path, name: str) -> tuple[int, float]:
    """Return how many programs were compiled, and seconds of wall time."""
    run = folder / name
    command = [sys.executable, "-m", "analyses", "run", problem, "--backend", backend]
    settings = {"XDG_CACHE_HOME": str(folder / "cache"), "JAX_COMPILATION_CACHE_DIR": None}
    environment = {n: x for n, x in (os.environ | settings).items() if x is not None}
    start = time.perf_counter()
    subprocess.run(
        [*command, "--out", str(run)],
        env=environment,
        capture_output=True,
        check=False,  # 1 says that a check of the run failed, which takes as long
    )
    seconds = time.perf_counter() - start
    with xr.open_datatree(run / "posterior.nc", engine="h5netcdf") as tree:
        return int(tree.attrs["compilations"]), seconds


def second_model(backend: Backend) -> tuple[int, int]:
    """Programs that a first and a second model of one structure compile."""
    jax.clear_caches()
    first = problems.get("double_well").model
    second = first.replace(agreement_strength=2.9, first_stage=GaussianStage(1.1))
    return _compiled(first, backend), _compiled(second, backend)


def _compiled(model: TwoStageModel, backend: Backend) -> int:
    return int(infer(model, backend, progress=False).tree.attrs["compilations"])
