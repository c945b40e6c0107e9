"""One function builds the result tree for all backends."""

import importlib.metadata
import json
from typing import Any

import arviz as az
import numpy as np
import xarray as xr
from jax.tree_util import Partial

from generative import TwoStageModel
from inference.answers import answers
from inference.batches import over_points
from inference.checks import Check
from inference.doubling import Doubling
from inference.estimate import Estimate

HEADS = ["first", "second"]
_VERSIONS = ("jax", "numpyro", "blackjax", "arviz", "xarray", "equinox")
_BATCH = 250
_LARGEST_NAMED = 100_000


def build_tree(
    model: TwoStageModel,
    draws: dict[str, np.ndarray],
    *,
    prior: dict[str, np.ndarray] | None,
    posterior_answers: dict[str, np.ndarray],
    checks: list[Check],
    doubling: Doubling | None,
    log_evidence: Estimate | None,
    weighted: dict[str, np.ndarray] | None,
    bits_saved: Estimate | None,
    configuration: dict[str, Any],
    notes: list[str],
) -> xr.DataTree:
    """Build the tree of a run.

    Parameters
    ----------
    model : TwoStageModel
    draws : dict
        `theta_1` and `theta_2`, shape (chain, draw, d), and statistics, shape (chain, draw).
    prior : dict, optional
        `theta_1` and `theta_2` from the two-stage prior, shape (draw, d).
    posterior_answers : dict
        From :func:`answers`.
    weighted : dict, optional
        As in :class:`~inference.results.draws.Draws`; groups of their own, dim `sample`.
    checks, doubling, log_evidence, bits_saved, configuration, notes
        What the root attributes record.
    """
    parameters = ("theta_1", "theta_2")
    groups: dict[str, dict[str, np.ndarray]] = {
        "posterior": {name: draws[name] for name in parameters},
        "sample_stats": {n: x for n, x in draws.items() if n not in (*parameters, "negative")},
    }
    dims: dict[str, list[str]] = {name: ["parameter"] for name in parameters}
    dims |= {f"squared_distance_{stage}": ["block"] for stage in (1, 2)}
    if posterior_answers:
        groups["posterior_predictive"] = posterior_answers
    if prior is not None:
        groups["prior"] = {name: x[None] for name, x in prior.items()}
        prior_answers = answers(model, prior["theta_2"][None])
        if prior_answers:
            groups["prior_predictive"] = prior_answers
    for name in model.questions:
        dims[name] = ["head", f"question_{name}"]
    log_likelihood = _answer_log_likelihood(model, draws["theta_2"])
    if log_likelihood:
        groups["log_likelihood"] = log_likelihood
    if model.data:
        groups["observed_data"] = {name: np.asarray(x) for name, x in model.data.items()}
    groups["constant_data"] = {name: x for name, (_, x) in constant_data(model).items()}
    dims |= {name: axes for name, (axes, _) in constant_data(model).items()}
    tree = az.from_dict(
        groups,
        coords={
            "parameter": coordinates(model),
            "head": HEADS,
            "block": list(model.space.blocks),
        },
        dims=dims,
        attrs={"/": root_attributes(model, checks, log_evidence, bits_saved, configuration, notes)},
    )
    if weighted is not None:
        for name, group in _weighted_datasets(model, weighted).items():
            tree[name] = xr.DataTree(group)
    if doubling is not None:
        tree["doubling"] = xr.DataTree(_doubling_dataset(doubling))
    return tree


def constant_data(model: TwoStageModel) -> dict[str, tuple[list[str], np.ndarray]]:
    """Return theta_0, and labels and further columns of every set of questions, with their dims."""
    found = {"theta_0": (["parameter"], np.asarray(model.space.origin))}
    for name, label in model.labels.items():
        found[f"label_{name}"] = ([f"question_{name}"], label)
    for name, columns in model.columns.items():
        # `label` is taken: it is the true one there, as it is where there is one process only.
        names = {c: "kept_label" if c == "label" else c for c in columns}
        found |= {f"{names[c]}_{name}": ([f"question_{name}"], x) for c, x in columns.items()}
    return found


def _answer_log_likelihood(model: TwoStageModel, theta_2: np.ndarray) -> dict[str, np.ndarray]:
    if not model.data:
        return {}
    flat = theta_2.reshape(-1, theta_2.shape[-1])
    values = over_points(Partial(TwoStageModel.answer_log_likelihood, model), flat, _BATCH)
    return {
        name: value.reshape(*theta_2.shape[:2], *value.shape[1:]) for name, value in values.items()
    }


def _weighted_datasets(
    model: TwoStageModel, weighted: dict[str, np.ndarray]
) -> dict[str, xr.Dataset]:
    parameters = ("theta_1", "theta_2")
    return {
        "weighted_posterior": xr.Dataset(
            {name: (("sample", "parameter"), weighted[name]) for name in parameters},
            coords={"parameter": coordinates(model)},
        ),
        "weighted_sample_stats": xr.Dataset(
            {name: ("sample", x) for name, x in weighted.items() if name not in parameters}
        ),
    }


def _doubling_dataset(doubling: Doubling) -> xr.Dataset:
    return xr.Dataset(
        {
            "mean": ("functional", doubling.mean),
            "mean_doubled": ("functional", doubling.mean_doubled),
            "z_score": ("functional", doubling.z_score),
        },
        coords={"functional": doubling.names},
        attrs={"num_moves": doubling.num_moves},
    )


def root_attributes(
    model: TwoStageModel,
    checks: list[Check],
    log_evidence: Estimate | None,
    bits_saved: Estimate | None,
    configuration: dict[str, Any],
    notes: list[str],
) -> dict[str, Any]:
    """Return root attributes; netCDF takes no None, bool or dict, so unknown numbers are NaN."""
    nan = float("nan")
    evidence = (
        (nan, nan) if log_evidence is None else (log_evidence.value, log_evidence.standard_error)
    )
    bits = (nan, nan) if bits_saved is None else (bits_saved.bits, bits_saved.bits_error)
    return {
        "log_evidence": evidence[0],
        "log_evidence_se": evidence[1],
        "bits_saved": bits[0],
        "bits_saved_se": bits[1],
        "configuration": json.dumps(configuration, sort_keys=True),
        "seed": int(configuration.get("seed", 0)),
        "dtype": str(model.space.origin.dtype),
        "agreement_strength": float(model.agreement.strength),
        "checks_passed": ", ".join(check.name for check in checks if check.passed),
        "checks_failed": ", ".join(check.name for check in checks if not check.passed),
        "notes": "\n".join(notes),
        **{f"{name}_version": version for name, version in versions().items()},
    }


def coordinates(model: TwoStageModel) -> list[str] | np.ndarray:
    """Names of the parameters; their numbers where names would be too many."""
    if model.dimension > _LARGEST_NAMED:
        return np.arange(model.dimension)
    return model.space.names


def versions() -> dict[str, str]:
    """Versions of the libraries that the numbers depend on."""
    return {name: importlib.metadata.version(name) for name in _VERSIONS}
