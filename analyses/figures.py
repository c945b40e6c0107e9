"""Figures: ArviZ's where it has them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import arviz as az
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

matplotlib.use("Agg")

Target = Path | io.BytesIO
_DPI = 120
_MOST_UPRIGHT = 6


def forest(datasets: dict[str, xr.Dataset], target: Target, title: str) -> None:
    """Draw intervals of all variables, a colour per dataset, and save them.

    Parameters
    ----------
    datasets : dict
        Name to draws, dims (chain, draw, ...).
    target : Path or binary file
        For a PNG.
    title : str
    """
    trees = {name: as_tree(data) for name, data in datasets.items()}
    only = next(iter(trees.values()))
    plot = az.plot_forest(trees if len(trees) > 1 else only, combined=True, backend="matplotlib")
    if len(trees) > 1:
        # Below: the title is above, and names are as long as folders' are.
        plot.add_legend("model", loc="upper center", bbox_to_anchor=(0.5, 0.0))
    _save(plot, target, title)


def rank(data: xr.Dataset, target: Target) -> None:
    """Draw rank plots: chains that agree stay inside the envelope."""
    _save(az.plot_rank(as_tree(data), backend="matplotlib"), target)


def ess_evolution(data: xr.Dataset, target: Target) -> None:
    """Draw effective sample sizes against the number of draws."""
    _save(az.plot_ess_evolution(as_tree(data), backend="matplotlib"), target)


def distributions(data: xr.Dataset, marks: dict[str, float], target: Target) -> None:
    """Draw the draws' densities, with a line where something else lies.

    Parameters
    ----------
    data : Dataset
        Draws, dims (chain, draw).
    marks : dict
        Variable to the place of its line.
    target : Path or binary file
    """
    plot = az.plot_dist(as_tree(data), backend="matplotlib")
    if marks:
        az.add_lines(plot, values=marks)
    _save(plot, target)


def ledger(account: xr.Dataset, target: Target) -> None:
    """Draw bits saved along a path, with two standard errors."""
    figure, axis = plt.subplots(figsize=(7, 3.2))
    steps, bits = account["step"].values, account["bits_saved"].values
    axis.plot(steps, bits, lw=1.5)
    error = 2 * account["bits_saved_se"].values
    axis.fill_between(steps, bits - error, bits + error, alpha=0.25, lw=0)
    axis.set(xlabel="step", ylabel="bits saved")
    if np.all(steps > 0):
        axis.set_xscale("log")
    figure.savefig(target, dpi=_DPI, bbox_inches="tight")
    plt.close(figure)


def curves(panels: dict[str, xr.Dataset], target: Target) -> None:
    """Draw all variables of each dataset against its steps, a panel each, within [-1, 1]."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.6 * len(panels), 3), sharey=True, squeeze=False
    )
    for axis, (name, data) in zip(axes[0], panels.items(), strict=True):
        for variable, values in data.items():
            axis.semilogx(data["step"], values, marker=".", label=str(variable))
        axis.axhline(0, lw=0.8, color="gray")
        axis.set(title=name, xlabel="step", ylim=(-1.05, 1.05))
    axes[0][0].set_ylabel("cosine with the exact force")
    axes[0][-1].legend()
    figure.savefig(target, dpi=_DPI, bbox_inches="tight", format="png")
    plt.close(figure)


_BITS = {"log_evidence": "log2 evidence, bits", "bits_saved": "bits saved"}


def overview(data: xr.Dataset, dim: str, bits: str, target: Target) -> None:
    """Draw what was measured of several runs: pairs of functions, right answers, and bits.

    Parameters
    ----------
    data : Dataset
        From :func:`analyses.measures.gather`.
    dim : str
        The dim that tells runs apart; a row each, from the top.
    bits : {"log_evidence", "bits_saved"}
        Evidences are for runs of the same data.
    target : Path or binary file
        For a PNG.
    """
    labels = [str(x) for x in data[dim].values]
    rows = np.arange(len(labels))[::-1]
    figure, axes = plt.subplots(
        1, 3, figsize=(13, 1.2 + 0.42 * len(labels)), sharey=True, width_ratios=[1.5, 1, 1]
    )
    _stacked_pairs(axes[0], rows, data)
    kinds = {"right": "human right", "wrong": "human wrong", "deceived": "both deceived"}
    for (kind, label), marker in zip(kinds.items(), "osv", strict=True):
        of = data.sel(head="first", set=f"held_out_{kind}")
        axes[1].errorbar(
            of["right"], rows, xerr=2 * of["right_se"].fillna(0), fmt=marker, label=label, ms=5
        )
    axes[1].set(xlabel="P(first head right)", xlim=(-0.02, 1.02))
    value, error = data[bits].values, data[f"{bits}_se"].values
    known = np.isfinite(value + error)  # runs that disagree have an infinite error
    axes[2].errorbar(value[known], rows[known], xerr=2 * error[known], fmt="o", ms=5)
    axes[2].set(xlabel=_BITS[bits])
    axes[0].set_yticks(rows, labels)
    # Outwards, where there is room, so that they do not meet.
    for axis, side in zip(axes[:2], ("right", "left"), strict=True):
        place = (float(side == "right"), 1.0)
        axis.legend(fontsize=7, loc=f"lower {side}", bbox_to_anchor=place, ncols=3)
    figure.savefig(target, dpi=_DPI, bbox_inches="tight", format="png")
    plt.close(figure)


def _stacked_pairs(axis: plt.Axes, rows: np.ndarray, data: xr.Dataset) -> None:
    """Bars of the nine pairs: a colour for the first head, a shade for the second."""
    left = np.zeros(len(rows))
    for color, first in zip(("C2", "C1", "C3"), data["first"].values, strict=True):
        for shade, second in zip((1.0, 0.65, 0.35), data["second"].values, strict=True):
            share = data["pair"].sel(first=first, second=second).values
            label = f"{first}, {second}"
            axis.barh(rows, share, 0.7, left, color=color, alpha=shade, label=label)
            left = left + share
    axis.set(xlabel="P(first, second)", xlim=(0, 1))


def lines(
    places: Sequence[float],
    series: dict[str, xr.Dataset],
    name: str,
    xlabel: str,
    ylabel: str,
    target: Target,
) -> None:
    """Draw something measured, with two standard errors, against a number; a line per series."""
    figure, axis = plt.subplots(figsize=(6, 3.6))
    for label, data in series.items():
        error = 2 * data[f"{name}_se"].fillna(0)
        axis.errorbar(places, data[name], yerr=error, marker="o", ms=4, capsize=2, label=label)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend()
    figure.savefig(target, dpi=_DPI, bbox_inches="tight", format="png")
    plt.close(figure)


def grouped_bars(data: xr.Dataset, dim: str, name: str, ylabel: str, target: Target) -> None:
    """Draw something measured with two standard errors, a group per case, a bar per label."""
    figure, axis = plt.subplots(figsize=(9, 3.4))
    cases, labels = data["case"].values, data[dim].values
    width = 0.8 / len(labels)
    for index, label in enumerate(labels):
        of = data.sel({dim: label})
        places = np.arange(len(cases)) + (index - 0.5 * (len(labels) - 1)) * width
        axis.bar(places, of[name], width, yerr=2 * of[f"{name}_se"], label=str(label))
    slanted: dict[str, Any] = {"rotation": 40, "ha": "right"} if len(cases) > _MOST_UPRIGHT else {}
    axis.set_xticks(np.arange(len(cases)), [str(c) for c in cases], **slanted)
    axis.set_ylabel(ylabel)
    title = dim.replace("_", " ")
    axis.legend(title=title, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(target, dpi=_DPI, bbox_inches="tight", format="png")
    plt.close(figure)


def margins(panels: dict[str, xr.Dataset], now: dict[str, float], target: Target) -> None:
    """Draw margins against one assumption each, with a line where it is assumed to be."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3 * len(panels), 2.8), sharey=True)
    for axis, (name, data) in zip(axes, panels.items(), strict=True):
        axis.plot(data[name], data["margin"])
        axis.axhline(0, lw=0.8, color="gray")
        axis.axvline(now[name], lw=0.8, ls="--", color="gray")
        axis.set_xlabel(f"{name.replace('_', ' ')}, bits")
    axes[0].set_ylabel("margin of the honest head, bits")
    figure.savefig(target, dpi=_DPI, bbox_inches="tight", format="png")
    plt.close(figure)


def calibration(panels: dict[str, xr.Dataset], target: Target) -> None:
    """Draw how far the distributions of ranks are from uniform ones; a row per sampler."""
    shared = set.intersection(*(set(data.data_vars) for data in panels.values()))
    names = [name for name in next(iter(panels.values())).data_vars if name in shared]
    shortest = slice(min(data.sizes["simulation"] for data in panels.values()))
    ranks = xr.Dataset(
        {
            name: data[names].isel(simulation=shortest).to_array("quantity")
            for name, data in panels.items()
        }
    )
    ranks["quantity"] = [str(name).replace("_", " ") for name in ranks["quantity"].values]
    number = ranks.sizes["quantity"]
    plot = az.plot_ecdf_pit(
        xr.DataTree.from_dict({"prior_sbc": ranks}),
        sample_dims=["simulation"],
        col_wrap=number,
        figure_kwargs={"figsize": (2.6 * number, 3 * len(panels))},
        visuals={"xlabel": False, "p_value_text": {"y": 0.35}},
    )
    for axis in plot.viz["figure"].item().axes:
        axis.set_ylim(-0.5, 0.5)
    _save(plot, target)


def picture(grey: np.ndarray, target: Target) -> None:
    """Save one picture, a pixel a pixel."""
    plt.imsave(target, grey, cmap="gray_r", vmin=0, vmax=1, format="png")


def as_tree(data: xr.Dataset) -> xr.DataTree:
    """Return draws as a tree with a posterior group."""
    return az.from_dict(
        {"posterior": {str(k): v.values for k, v in data.items()}},
        dims={str(k): list(v.dims[2:]) for k, v in data.items()},
        coords={k: v.values for k, v in data.coords.items() if k not in ("chain", "draw")},
    )


def _save(plot: Any, target: Target, title: str | None = None) -> None:
    figure = plot.viz["figure"].item()
    if title is not None:
        figure.suptitle(title)
    if isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=_DPI, bbox_inches="tight", format="png")
    plt.close(figure)
