"""The one entry: a model and a backend in, a run out."""

import json
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from generative import InvalidInput, TwoStageModel
from generative.points import check_points
from generative.values import is_integer, is_number, require_mapping
from inference.backends.base import Backend
from inference.batches import over_points
from inference.compilations import Compilations
from inference.feasible import check_backend, check_draws
from inference.precision import require_float64
from inference.results.run import Run
from inference.results.tree import coordinates, versions
from inference.running.checkpoint import Checkpoints
from inference.running.folder import MANIFEST, refuse_occupied, require_writable
from inference.running.progress import Monitor


def infer(
    model: TwoStageModel,
    backend: Backend,
    *,
    seed: int = 0,
    progress: bool = True,
    directory: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    provenance: dict[str, Any] | None = None,
) -> Run:
    """Estimate the posterior of (theta_1, theta_2).

    Parameters
    ----------
    model : TwoStageModel
    backend : Backend
        Such as ``HMC(num_draws=2000)``.
    seed : int
        Same seed, same device layout, same versions: the same bits.
    progress : bool
        Whether to show progress bars.
    directory : path, optional
        Where to write the run folder, and checkpoints while the run lasts.
    resume : bool
        With a `directory` that holds this very run, return it if it is finished, and go on with it
        if it is not: the result is the same, bit by bit, as without the interruption.
    checkpoint_seconds : float
        Between checkpoints, at least.
    provenance : dict, optional
        JSON values to be kept in the configuration, such as a problem's name and options.

    Returns
    -------
    Run
        `run.result` tells whether the draws may be used.

    Raises
    ------
    InvalidInput
        If an argument cannot be used, found before anything expensive; or if C turned out to be
        negative at a draw. What was drawn then stays in the checkpoints, if there is a `directory`.
    NonFiniteState
        If a chain's log density became NaN or infinite, so that there are no draws to return.

    Examples
    --------
    >>> import jax
    >>> jax.config.update("jax_enable_x64", True)
    >>> from generative import problems
    >>> from inference import RejectionGibbs
    >>> problem = problems.get("double_well")
    >>> run = infer(problem.model, RejectionGibbs(), seed=0, progress=False)
    >>> run.result
    <Result.converged: 'converged'>
    >>> run.tree["posterior"]["theta_1"].sizes
    Frozen({'chain': 4, 'draw': 2000, 'parameter': 1})
    >>> bool(abs(run.tree["posterior"]["theta_1"].mean() - problem.truth.mean_1[0]) < 0.05)
    True
    """
    if not isinstance(model, TwoStageModel):
        raise InvalidInput("model", type(model).__name__, "a TwoStageModel")
    if not isinstance(backend, Backend):
        raise InvalidInput("backend", repr(backend), "a backend such as HMC()")
    if not (is_integer(seed) and 0 <= seed < 2**63):
        raise InvalidInput("seed", repr(seed), "an integer from 0 to 2**63 - 1")
    if not (is_number(checkpoint_seconds) and checkpoint_seconds >= 0):
        raise InvalidInput("checkpoint_seconds", repr(checkpoint_seconds), "a number >= 0")
    _check_provenance(provenance)
    check_backend(model, backend)
    require_float64("the bits saved")
    if directory is not None:
        directory = _path(directory)
    fingerprint = _fingerprint(model)
    if directory is not None:
        if resume and (directory / MANIFEST).exists():
            return _resumed(directory, model, fingerprint, backend, seed, provenance or {})
        refuse_occupied(directory, resume)
        require_writable(directory)
    compilations = Compilations()
    check_points(model)
    configuration = {
        "backend": type(backend).__name__,
        "options": backend.model_dump(),
        "seed": seed,
        **(provenance or {}),
    }
    monitor = Monitor(progress)
    if directory is not None:
        identity = configuration | _identity(model, fingerprint)
        monitor = Monitor(progress, Checkpoints(directory, identity, checkpoint_seconds))
    run = backend.run(model, seed, monitor, configuration)
    run.tree.attrs["compilations"] = compilations.compiled
    check_draws(model, run.tree)
    run.tree.attrs["fingerprint"] = fingerprint
    if directory is not None:
        run.save(directory)
    return run


def _path(directory: str | Path) -> Path:
    if not isinstance(directory, str | Path) or "\0" in str(directory):
        raise InvalidInput("directory", repr(directory), "a path")
    return Path(directory)


def _check_provenance(provenance: dict[str, Any] | None) -> None:
    """Refuse what could not be written beside the draws."""
    if provenance is None:
        return
    require_mapping("provenance", provenance)
    try:
        json.dumps(provenance)
    except (TypeError, ValueError) as error:
        raise InvalidInput("provenance", str(error), "JSON values") from None


def _identity(model: TwoStageModel, fingerprint: list[float]) -> dict[str, Any]:
    """Return what must be the same for a resumed run to give the same bits."""
    return {
        "parameters": [[name, b.stop - b.start] for name, b in model.space.blocks.items()],
        "model": fingerprint,
        "dtype": str(model.space.origin.dtype),
        "devices": [device.device_kind for device in jax.devices()],
        "versions": versions(),
    }


def _fingerprint(model: TwoStageModel) -> list[float]:
    """Numbers that another model, or other data, would hardly share: C and L at two points."""
    origin = np.asarray(model.space.origin)
    spread = np.sqrt(model.first_stage.reference_variance + model.second_stage.reference_variance)
    wave = np.sin(np.arange(model.dimension) + 1.0)
    points = np.stack([origin, (origin + spread * wave).astype(origin.dtype)])
    values = over_points(Partial(_values_at, model), points)
    numbers = [float(model.agreement.strength), *(float(x) for of in values for x in of)]
    if len(model.reflections):
        numbers.append(float(zlib.crc32(model.reflections.tobytes())))
    return numbers


def _values_at(model: TwoStageModel, theta: Array) -> tuple[Array, Array]:
    return model.agreement.disagreement(theta), model.log_likelihood(theta)


def _resumed(
    directory: Path,
    model: TwoStageModel,
    fingerprint: list[float],
    backend: Backend,
    seed: int,
    provenance: dict[str, Any],
) -> Run:
    """Return the finished run in a folder, if it is the one asked for."""
    run = Run.load(directory, model)
    found = json.loads(run.tree.attrs["configuration"])
    asked = {"backend": type(backend).__name__, "options": backend.model_dump(), "seed": seed}
    asked |= json.loads(json.dumps(provenance, default=str))
    different = [name for name, value in asked.items() if found.get(name) != value]
    group = run.tree.children["posterior" if "posterior" in run.tree.children else "map"].dataset
    # Other machines round otherwise.
    before = np.atleast_1d(run.tree.attrs.get("fingerprint", np.nan))
    same = len(before) == len(fingerprint) and np.allclose(before, fingerprint, rtol=1e-6)
    if not same or list(group["parameter"].values) != list(coordinates(model)):
        different.append("model")
    if different:
        raise InvalidInput(
            "directory", f"a run with another {' and '.join(different)}", "the run to be resumed"
        )
    return run
