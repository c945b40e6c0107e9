"""The bits that agreement saves, step by step along a path of theta_1."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from generative import InvalidInput, TwoStageModel
from inference.estimate import Estimate
from inference.normalizer.along import log_normalizer_along
from inference.normalizer.log_normalizer import log_normalizer


def bit_ledger(
    model: TwoStageModel,
    path: Float[np.ndarray, "step d"],
    steps: np.ndarray | None = None,
    seed: int = 0,
    last: Estimate | None = None,
) -> xr.Dataset:
    """Keep account of -log2 Z(theta_1) along an optimisation path, or a chain.

    Parameters
    ----------
    model : TwoStageModel
    path : array, shape (step, d)
        Values of theta_1.
    steps : array, shape (step,), optional
        Their coordinate; 0, 1, ... by default.
    seed : int
    last : Estimate, optional
        Log Z at the last point, nats, where it is known already.

    Returns
    -------
    Dataset
        Dim `step`, bits: `bits_saved` and `bits_saved_se`; `change`, bits since the first point,
        and `change_se`, which does not contain the error of log Z at any one point.

    Raises
    ------
    InvalidInput
        If the path is not an array of shape (step, d), or `steps` has another length.
    """
    steps = np.arange(len(path)) if steps is None else np.asarray(steps)
    if len(steps) != len(path):
        raise InvalidInput("steps", f"{len(steps)} steps", f"{len(path)}, one per point of path")
    change = log_normalizer_along(model, path, seed)
    moved = np.asarray(change.value)
    if last is None:
        last = log_normalizer(model, path[-1], seed=seed)
    # Seen from the end, where the error matters most, the path's error is that of what follows.
    *variance, end = np.asarray(change.standard_error) ** 2
    known = np.isfinite(end)  # and then so are those before it
    rest = np.abs(end - np.array(variance)) if known else np.full(len(path) - 1, np.inf)
    error = np.sqrt(last.standard_error**2 + np.append(rest, 0.0))
    bits = {
        "bits_saved": -(last.value + moved - moved[-1]),
        "bits_saved_se": error,
        "change": -moved,
        "change_se": change.standard_error,
    }
    return xr.Dataset(
        {name: ("step", value / np.log(2)) for name, value in bits.items()},
        coords={"step": steps},
        attrs={"unit": "bits"},
    )
