"""Figures: ArviZ's where it has them."""

from pathlib import Path
from typing import Any, BinaryIO

import arviz as az
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

matplotlib.use("Agg")

Target = Path | BinaryIO
_DPI = 120


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
        plot.add_legend("model")
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
