"""Scalar functionals of saved runs: of every draw, or of a maximum."""

import json
from collections.abc import Callable
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from inference import Run


def is_maximum(run: Run) -> bool:
    """Whether a run holds a maximum in place of draws."""
    return "map" in run.tree.children


def configuration_of(run: Run) -> dict[str, Any]:
    """Return what a run was asked to do."""
    return json.loads(run.tree.attrs["configuration"])


def alike(run: Run, other: Run) -> bool:
    """Whether two runs are of one posterior, as far as their folders tell.

    Data, labels, initialisation and lambda must be equal; so must be the set-up, and what options
    of the problem both recorded.
    """
    one, two = configuration_of(run), configuration_of(other)
    setups = {x.get("setup", "two-stages") for x in (one, two)}
    if len(setups) > 1:
        return False
    options = [x.get("problem_options") or {} for x in (one, two)]
    if any(options[0][key] != options[1][key] for key in set(options[0]) & set(options[1])):
        return False
    strengths = {tree.attrs["agreement_strength"] for tree in (run.tree, other.tree)}
    return len(strengths) == 1 and all(
        _same(run.tree, other.tree, group) for group in ("constant_data", "observed_data")
    )


def _same(tree: xr.DataTree, other: xr.DataTree, group: str) -> bool:
    if group not in tree.children or group not in other.children:
        return (group in tree.children) == (group in other.children)
    one, two = (
        {str(name): x.values for name, x in t[group].data_vars.items()} for t in (tree, other)
    )
    return set(one) == set(two) and all(np.array_equal(one[name], two[name]) for name in one)


def bits_saved(run: Run) -> str:
    """Bits saved, with the standard error."""
    if run.bits_saved is None:
        return "not estimated"
    return f"{run.bits_saved.bits:.4g} +- {run.bits_saved.bits_error:.2g}"


def functionals_of(tree: xr.DataTree) -> xr.Dataset:
    """Scalar functionals of a saved run, dims (chain, draw); without dims for a maximum.

    Returns
    -------
    Dataset
        Log densities and L in nats, C of both stages, and squared distances. The log joint lacks
        -log Z; `log Z` itself where it was known or estimated.
    """
    drawn = "map" not in tree.children
    groups = ("posterior", "sample_stats") if drawn else ("map", "map")
    values, stats = (tree.children[group].dataset for group in groups)
    found = {
        "log joint": stats["lp"],
        "log p1 + log p2": stats["lp"]
        - stats["log_likelihood"]
        + tree.attrs["agreement_strength"] * stats["disagreement"],
        "C(theta_2)": stats["disagreement"],
        "C(theta_1)": stats["disagreement_theta_1"],
        "L(theta_2)": stats["log_likelihood"],
        "|theta_1 - theta_0|^2": _squared(
            stats, 1, lambda: values["theta_1"] - tree.children["constant_data"].dataset["theta_0"]
        ),
        "|theta_2 - theta_1|^2": _squared(stats, 2, lambda: values["theta_2"] - values["theta_1"]),
    }
    if "log_normalizer" in stats:
        found["log Z(theta_1)"] = stats["log_normalizer"]
    return xr.Dataset(found).drop_vars(["start", "draw_kept"], errors="ignore")


def _squared(stats: xr.Dataset, stage: int, shift: Callable[[], xr.DataArray]) -> xr.DataArray:
    # Of large networks only some draws are kept whole; their distances are kept of all.
    by_block = f"squared_distance_{stage}"
    if by_block in stats:
        return stats[by_block].sum("block")
    return (shift() ** 2).sum("parameter")


def answers_of(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Both heads' answers by set of questions, dims (chain, draw, head, question...)."""
    if "map" in tree.children:
        prefix = "answers_"
        group = tree["map"]
        return {
            str(name).removeprefix(prefix): x
            for name, x in group.data_vars.items()
            if str(name).startswith(prefix)
        }
    if "posterior_predictive" not in tree.children:
        return {}
    return {str(name): x for name, x in tree["posterior_predictive"].data_vars.items()}


def right_answers(tree: xr.DataTree) -> xr.Dataset | None:
    """Probability that each head gives the true answer, by set of questions; None without labels.

    Returns
    -------
    Dataset
        One variable per set, dims (chain, draw, head), or (head,) for a maximum.
    """
    right = {}
    for name, probability in right_by_question(tree).items():
        kept = [d for d in answers_of(tree)[name].dims if d in ("chain", "draw", "head")]
        mean = probability.mean([d for d in probability.dims if d not in kept])
        right[name] = mean.transpose(*kept)
    return xr.Dataset(right) if right else None


def right_by_question(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Probability that each head gives the true answer to each question, by labelled set."""
    return {
        name: xr.where(tree["constant_data"][f"label_{name}"] == 1, answers, 1 - answers)
        for name, answers in answers_of(tree).items()
        if f"label_{name}" in tree["constant_data"]
    }


def scalar_functionals(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Functionals and, for each head and set, the probability of the true answer."""
    found: dict[str, xr.DataArray] = {str(n): x for n, x in functionals_of(tree).items()}
    right = right_answers(tree)
    for name, values in {} if right is None else right.items():
        for head in ("first", "second"):
            label = f"P({head} right), {str(name).replace('_', ' ')}"
            found[label] = values.sel(head=head).drop_vars("head")
    return found


def with_error(draws: xr.DataArray) -> str:
    """Mean and Monte Carlo standard error; the value alone without draws."""
    values = draws.values
    if values.ndim == 0:
        return f"{float(values):.4g}"
    if np.ptp(values) == 0:
        return f"{values.flat[0]:.4g} (constant)"
    return f"{values.mean():.4g} +- {float(np.asarray(az.mcse(values))):.2g}"
