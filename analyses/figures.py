"""Figures; every one is ArviZ's."""

from pathlib import Path

import arviz as az
import matplotlib
import xarray as xr

matplotlib.use("Agg")


def forest(datasets: dict[str, xr.Dataset], path: Path, title: str) -> None:
    """Draw intervals of all variables, a colour per dataset, and save them.

    Parameters
    ----------
    datasets : dict
        Name to draws, dims (chain, draw, ...).
    path : Path
        A PNG file.
    title : str
    """
    trees = {
        name: az.from_dict(
            {"posterior": {k: v.values for k, v in data.items()}},
            dims={k: list(v.dims[2:]) for k, v in data.items()},
            coords={k: v.values for k, v in data.coords.items() if k not in ("chain", "draw")},
        )
        for name, data in datasets.items()
    }
    only = next(iter(trees.values()))
    plot = az.plot_forest(trees if len(trees) > 1 else only, combined=True, backend="matplotlib")
    figure = plot.viz["figure"].item()
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")
