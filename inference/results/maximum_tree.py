"""The result tree of a maximum: `map`, `map_starts` and `trajectory`, without a posterior."""

from typing import Any

import numpy as np
import xarray as xr

from generative import TwoStageModel
from inference.answers import answers
from inference.checks import Check
from inference.estimate import Estimate
from inference.results.tree import HEADS, constant_data, coordinates, root_attributes


def build_maximum_tree(
    model: TwoStageModel,
    theta_1: np.ndarray,
    theta_2: np.ndarray,
    statistics: dict[str, np.ndarray],
    best: int,
    *,
    path: dict[str, np.ndarray],
    steps: np.ndarray,
    ledger: xr.Dataset | None,
    checks: list[Check],
    log_evidence: Estimate | None,
    bits_saved: Estimate | None,
    configuration: dict[str, Any],
    notes: list[str],
) -> xr.DataTree:
    """Build the tree.

    Parameters
    ----------
    model : TwoStageModel
    theta_1, theta_2 : arrays, shape (start, d)
    statistics : dict
        Arrays of shape (start,).
    best : int
        The start that group `map` shows.
    path : dict
        Statistics on the way, shape (start, step).
    steps : array, shape (step,)
    ledger : Dataset, optional
        Of the best start, from :func:`inference.results.bit_ledger.bit_ledger`.
    checks, log_evidence, bits_saved, configuration, notes
        What the root attributes record.
    """
    starts = xr.Dataset(
        {
            "theta_1": (("start", "parameter"), theta_1),
            "theta_2": (("start", "parameter"), theta_2),
            **{name: (("start",), np.array(x)) for name, x in statistics.items()},
        },
        coords={"parameter": coordinates(model), "start": np.arange(len(theta_1))},
    )
    for name, answer in answers(model, theta_2[None], len(theta_2)).items():
        rest = [f"{name}_dim_{i}" for i in range(answer[0].ndim - 3)]  # as ArviZ has it
        starts[f"answers_{name}"] = (("start", "head", f"question_{name}", *rest), answer[0])
        starts = starts.assign_coords(head=HEADS)
    trajectory = xr.Dataset(
        {name: (("start", "step"), x) for name, x in path.items()}, coords={"step": steps}
    )
    groups = {"map": starts.isel(start=best), "map_starts": starts, "trajectory": trajectory}
    if ledger is not None:
        groups["ledger"] = ledger
    if model.data:
        groups["observed_data"] = xr.Dataset(
            {n: ([f"{n}_dim_{i}" for i in range(np.ndim(x))], x) for n, x in model.data.items()}
        )
    groups["constant_data"] = xr.Dataset(
        constant_data(model), coords={"parameter": coordinates(model)}
    )
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = root_attributes(model, checks, log_evidence, bits_saved, configuration, notes)
    return tree
