"""What cannot be done, refused before it is tried; and C below 0, refused where draws show it."""

import math
import os

import numpy as np
import xarray as xr
from pydantic import BaseModel

from generative import InvalidInput, TwoStageModel
from generative.points import refuse_negative
from inference.backends.base import Backend
from inference.backends.sgld import SGLD

_PENALTIES = ("disagreement", "disagreement_theta_1", "disagreement_negative")
# Both parameters, a negative sample, and ten statistics, all of eight bytes.
_VECTORS, _STATISTICS, _BYTES = 3, 10, 8
_COPIES = ("num_chains", "num_runs", "num_starts")
_ROWS = ("num_draws", "num_particles", "num_live", "num_warmup")
_LARGEST_COUNT = 2**31 - 1


def check_backend(model: TwoStageModel, backend: Backend) -> None:
    """Refuse one chain, which nothing can judge, and more draws than memory or integers hold.

    Parameters
    ----------
    model : TwoStageModel
    backend : Backend

    Raises
    ------
    InvalidInput
    """
    name = type(backend).__name__
    num_chains = getattr(backend, "num_chains", 2)
    if num_chains < 2:
        allowed = "at least 2: one chain cannot be judged, as nothing tells whether it is stuck"
        raise InvalidInput(f"{name}.num_chains", num_chains, allowed)
    needed, available = _bytes(model, backend), _memory()
    if needed > available:
        found = f"draws that need {needed / 2**30:,.0f} GiB of memory ({_asked(backend)})"
        raise InvalidInput(name, found, f"what fits into {available / 2**30:,.0f} GiB")
    _check_numbers(name, backend)


def check_draws(model: TwoStageModel, tree: xr.DataTree) -> None:
    """Refuse draws at which C is negative beyond rounding: their target is not the posterior.

    Parameters
    ----------
    model : TwoStageModel
    tree : xarray.DataTree
        Of the finished run.

    Raises
    ------
    InvalidInput
        Naming the draw.
    """
    for group in ("sample_stats", "weighted_sample_stats", "map_starts"):
        found = tree[group].data_vars if group in tree.children else {}
        for name in _PENALTIES:
            if name in found:
                _check_statistic(name, found[name], group, model)


def _check_statistic(name: str, values: xr.DataArray, group: str, model: TwoStageModel) -> None:
    flat = np.asarray(values.values, np.float64).ravel()
    known = np.flatnonzero(~np.isnan(flat))  # NaN is what the checks of draws are about

    def where(index: int) -> str:
        place = np.unravel_index(known[index], values.shape)
        words = (f"{dim} {i}" for dim, i in zip(values.dims, place, strict=True))
        return f"at {', '.join(words)} ({group})"

    refuse_negative(name, flat[known], where, model)


def _bytes(model: TwoStageModel, backend: Backend) -> int:
    copies = max([getattr(backend, name) for name in _COPIES if hasattr(backend, name)] or [1])
    rows = {name: getattr(backend, name) for name in _ROWS if hasattr(backend, name)}
    if "num_warmup" in rows:
        rows["num_warmup"] //= getattr(backend, "thinning", None) or 1
    if "num_starts" in type(backend).model_fields or isinstance(backend, SGLD):
        rows.pop("num_warmup")  # which an ascent does not keep, and SGLD only the ends of
    numbers = max([*rows.values(), 1]) * _STATISTICS + _VECTORS * model.dimension
    if not isinstance(backend, SGLD):  # which keeps few parameters where they are many
        numbers += (max([*rows.values(), 1]) - 1) * _VECTORS * model.dimension
    return copies * numbers * _BYTES


def _asked(backend: Backend) -> str:
    names = [name for name in (*_COPIES, *_ROWS) if hasattr(backend, name)]
    return ", ".join(f"{name} = {getattr(backend, name)}" for name in names)


def _memory() -> int:
    """Bytes of the machine's memory; without end where that is not told."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**62


def _check_numbers(name: str, options: BaseModel) -> None:
    """Refuse counts that overflow, and numbers that are not finite."""
    for field in type(options).model_fields:
        value = getattr(options, field)
        if isinstance(value, BaseModel):
            _check_numbers(f"{name}.{field}", value)
        if isinstance(value, int) and value > _LARGEST_COUNT:
            raise InvalidInput(f"{name}.{field}", value, f"at most {_LARGEST_COUNT}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(f"{name}.{field}", value, "a finite number")
