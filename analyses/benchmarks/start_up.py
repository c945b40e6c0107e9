"""What a run costs before it draws: programs compiled, and seconds with a cold and a warm cache."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from analyses.benchmarks.calibration import small_network
from analyses.calibration import simulations
from analyses.provenance import heading, publish
from analyses.tables import markdown_table
from generative import GaussianStage, TwoStageModel, problems
from inference import HMC, infer
from inference.backends.base import Backend
from inference.backends.registry import BACKENDS

# With the number of times that each is run; those on the digits take minutes.
COMMANDS: dict[str, int] = {
    "run double_well --backend rejection-gibbs": 3,
    "run double_well --backend hmc": 3,
    "run digits --backend hmc": 1,
    "analyse first_posterior": 1,
}
_NUM_SIMULATIONS = 4
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
        "\nWhole commands with their default options, in a process of their own: with an empty "
        "cache of compiled programs, and again. Medians, where they were run more than once.\n\n"
    )
    header = ["command", "times", "compiled, cold", "s, cold", "compiled, again", "s, again"]
    page += markdown_table([*header, "ratio"], [command_row(*item) for item in COMMANDS.items()])
    page += (
        "\n\n## A second model of the same structure\n\nAfter a run on the `double_well`, in the "
        "same process: the same backend on a model with another lambda and another prior scale.\n\n"
    )
    rows = [
        [backend.__name__, *map(str, second_model(backend(**SMALL.get(name, {}))))]
        for name, backend in BACKENDS.items()
    ]
    page += markdown_table(["backend", "compiled, first model", "compiled, second model"], rows)
    first, *later = simulation_seconds()
    page += (
        "\n\n## Simulation-based calibration\n\nOne simulation with a default `hmc`, on a network "
        f"of {small_network().dimension} parameters, in one process: {first:.0f} s the first, with "
        f"what it compiles, then {np.median(later):.1f} s (median of {len(later)})."
    )
    publish(page, out)
    return 0


def command_row(command: str, times: int) -> list[str]:
    """Run one command twice with a cache of its own, so many times."""
    found = np.median([_cold_and_again(command) for _ in range(times)], axis=0)
    cells = [f"{x:.0f}" for x in found.ravel()]
    return [command, str(times), *cells, f"{found[0, 1] / found[1, 1]:.1f}"]


def _cold_and_again(command: str) -> list[tuple[int, float]]:
    with tempfile.TemporaryDirectory() as folder:
        return [_timed(command, Path(folder), name) for name in ("cold", "again")]


def _timed(command: str, folder: Path, name: str) -> tuple[int, float]:
    """Return how many programs were compiled, and seconds of wall time."""
    run = folder / name
    settings = {"XDG_CACHE_HOME": str(folder / "cache"), "JAX_COMPILATION_CACHE_DIR": None}
    environment = {n: x for n, x in (os.environ | settings).items() if x is not None}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "analyses", *command.split(), "--out", str(run)],
        env=environment,
        capture_output=True,
        check=False,
    )
    if done.returncode not in (0, 1):  # 1 says that a check of the run failed, which takes as long
        raise RuntimeError(f"{command}: {done.stderr.decode()[-1000:]}")
    seconds = time.perf_counter() - start
    return sum(_compilations(path) for path in run.rglob("posterior.nc")), seconds


def _compilations(path: Path) -> int:
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        return int(tree.attrs["compilations"])


def simulation_seconds() -> list[float]:
    """Return seconds of one simulation after another."""
    jax.clear_caches()
    seconds, start = [], time.perf_counter()
    for _ in simulations(small_network(), HMC(), range(_NUM_SIMULATIONS)):
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return seconds


def second_model(backend: Backend) -> tuple[int, int]:
    """Programs that a first and a second model of one structure compile."""
    jax.clear_caches()
    first = problems.get("double_well").model
    second = first.replace(agreement_strength=2.9, first_stage=GaussianStage(1.1))
    return _compiled(first, backend), _compiled(second, backend)


def _compiled(model: TwoStageModel, backend: Backend) -> int:
    return int(infer(model, backend, progress=False).tree.attrs["compilations"])
