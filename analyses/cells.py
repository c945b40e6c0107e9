"""Runs that an analysis needs, made one after another or on a Dask cluster."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from analyses.provenance import release
from generative import InvalidInput, problems
from generative.setups import Setup, set_up
from inference import Run, infer
from inference.backends.base import Backend

Runner = Callable[[Sequence["Cell"], Path, int], dict[str, Run]]


@dataclass(frozen=True)
class Cell:
    """One run of an analysis.

    Attributes
    ----------
    name : str
        Of its run folder.
    problem : str
    backend : Backend
    options : dict
        Of the problem.
    setup : {"two-stages", "one-stage", "z-omitted"}
    case : str
        Where the run stands in the analysis' tree.
    """

    name: str
    problem: str
    backend: Backend
    options: dict[str, Any] = field(default_factory=dict)
    setup: Setup = "two-stages"
    case: str = ""

    def make(self, folder: Path, seed: int) -> None:
        """Make the run, or what is missing of it, in its folder."""
        # A worker process has defaults of its own.
        jax.config.update("jax_enable_x64", True)
        infer(
            set_up(problems.get(self.problem, **self.options).model, self.setup),
            self.backend,
            seed=seed,
            progress=False,
            directory=folder / self.name,
            resume=True,
            provenance=provenance(self.problem, self.options, self.setup),
        )


def provenance(problem: str, options: dict[str, Any], setup: Setup) -> dict[str, Any]:
    """Return what a run's configuration says of its model, as `compare` and `report` read it."""
    return {"problem": problem, "problem_options": options, "setup": setup}


def one_by_one(cells: Sequence[Cell], folder: Path, seed: int) -> dict[str, Run]:
    """Make all runs in this process."""
    for cell in tqdm(cells, desc="runs", disable=None):
        cell.make(folder, seed)
        release()
    return _loaded(cells, folder)


def on_dask(address: str, num_workers: int = 2) -> Runner:
    """Return a runner on a Dask cluster.

    Parameters
    ----------
    address : str
        Of a scheduler whose workers share this file system; `local` starts worker processes here.
    num_workers : int
        How many, where they are started here.

    Raises
    ------
    InvalidInput
        If Dask is not installed, or the address does not answer.
    """
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError:
        raise InvalidInput("dask", "not installed", "pip install 'concord[sweeps]'") from None

    def client() -> Client:
        if address == "local":
            # A client closes the cluster that it started itself, whatever happens.
            return Client(
                n_workers=num_workers,
                threads_per_worker=1,
                dashboard_address=None,
                silence_logs=logging.ERROR,  # workers that are slow to close are no news
            )
        try:
            return Client(address, timeout="10s")
        except (OSError, ValueError) as error:
            raise InvalidInput("dask", f"{address}: {error}", "a scheduler, or local") from None

    if address != "local":
        client().close()  # an address that does not answer is refused before anything is written

    def runner(cells: Sequence[Cell], folder: Path, seed: int) -> dict[str, Run]:
        if not cells:
            return {}
        folder = folder.resolve()
        with client() as connected:
            # A worker that dies leaves checkpoints, which the next attempt goes on from.
            jobs = [
                connected.submit(cell.make, folder, seed, pure=False, retries=1) for cell in cells
            ]
            for job in tqdm(as_completed(jobs), total=len(jobs), desc="runs", disable=None):
                job.result()
        return _loaded(cells, folder)

    return runner


def _loaded(cells: Sequence[Cell], folder: Path) -> dict[str, Run]:
    return {cell.name: Run.load(folder / cell.name) for cell in cells}
