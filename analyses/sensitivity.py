"""What does the posterior rest on: lambda, the stages' scales, or the labels?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from analyses.analysis import Analysis
from analyses.cells import Cell
from analyses.figures import grouped_bars
from analyses.functionals import scalar_functionals
from analyses.measures import with_error
from analyses.tables import markdown_table
from generative import TwoStageModel, problems
from inference import HMC, Run
from inference.kernels.density import log_first
from inference.sensitivity import sensitivities

_LABELS = {"strength": "lambda", "first_scale": "scale of stage 1", "second_scale": "of stage 2"}


class Sensitivity(Analysis):
    """Local sensitivity of functionals and of the evidence, from one run's own negative samples.

    lambda and the scales stand inside Z, so that draws cannot be reweighted by a ratio of
    densities; their derivatives need one negative sample per draw and no Z. The density of the
    first stage and the likelihood stand outside of Z: ArviZ's power-scaling serves there.

    Parameters
    ----------
    world : {"jevons", "room", "digits"}
    options : dict
        Of the problem.
    hmc : HMC
    """

    name: ClassVar[str] = "sensitivity"
    world: Literal["jevons", "room", "digits"] = "jevons"
    options: dict[str, int | float | str | bool] = {}
    hmc: HMC = HMC(
        kernel="exchange", num_warmup=500, num_draws=2000, max_doublings=1, evidence_particles=0
    )

    def cells(self) -> Sequence[Cell]:
        """Return one run."""
        return [Cell("hmc", self.world, self.hmc, dict(self.options))]

    def reduce(self, runs: Mapping[str, Run]) -> xr.DataTree:
        """Return derivatives, and power-scaling sensitivities of ArviZ."""
        model = problems.get(self.world, **self.options).model
        tree = runs["hmc"].tree
        moving = {n: x for n, x in scalar_functionals(tree).items() if np.ptp(x.values) > 0}
        functionals = xr.Dataset(moving)
        scores = xr.Dataset({name: tree["sample_stats"][f"score_{name}"] for name in _LABELS})
        found = sensitivities(functionals, scores)
        scaled = _power_scaling(model, tree, functionals)
        return xr.DataTree(xr.merge([found, scaled]), name=self.name)

    def draw(self, tree: xr.DataTree, target: Path) -> None:
        """Draw the derivatives of all functionals."""
        data = tree.to_dataset().rename({"functional": "case", "standard_error": "sensitivity_se"})
        label = "standard deviations per doubling"
        grouped_bars(data, "hyperparameter", "sensitivity", label, target)

    def conclude(self, tree: xr.DataTree) -> str:
        """Return derivatives as a table, and what depends most on what."""
        data = tree.to_dataset()
        rows = []
        for name in data["functional"].values:
            of = data.sel(functional=name)
            cells = [
                with_error(
                    of["sensitivity"].sel(hyperparameter=eta),
                    of["standard_error"].sel(hyperparameter=eta),
                )
                for eta in _LABELS
            ]
            psense = [f"{float(of[n]):.3f}" for n in ("psense_prior", "psense_likelihood")]
            rows.append([str(name), *cells, *psense])
        evidence = [
            with_error(
                data["log_evidence"].sel(hyperparameter=eta) / np.log(2),
                data["log_evidence_se"].sel(hyperparameter=eta) / np.log(2),
            )
            for eta in _LABELS
        ]
        rows.append(["log2 evidence, bits", *evidence, "-", "-"])
        header = ["per doubling of", *_LABELS.values(), "psense, stage 1", "psense, labels"]
        size = np.abs(data["sensitivity"])
        right = [str(n) for n in data["functional"].values if str(n).startswith("P(first right)")]
        most = size.sel(functional=right).max("hyperparameter")
        which, by = str(most["functional"].values[int(most.argmax())]), float(most.max())
        words = (
            "Changes of posterior means in posterior standard deviations, to first order, as "
            "lambda or all scales of a stage double; psense is ArviZ's power-scaling sensitivity, "
            "which calls 0.05 noteworthy. Of the first head's right answers the most dependent is "
            f"{which}, by up to {by:.2f} standard deviations. First-order changes are local: a "
            "doubling is not small."
        )
        return "\n\n".join([markdown_table(header, rows), words])


def _power_scaling(model: TwoStageModel, tree: xr.DataTree, functionals: xr.Dataset) -> xr.Dataset:
    """ArviZ's power-scaling sensitivity to the density of stage 1 and to the likelihood."""
    theta_1 = tree["posterior"]["theta_1"].values
    flat = jnp.asarray(theta_1.reshape(-1, model.dimension))
    log_prior = jax.jit(jax.vmap(lambda a: log_first(model, a)))(flat)
    summary = az.psense_summary(
        az.from_dict(
            {
                "posterior": {str(n): x.values for n, x in functionals.items()},
                "log_prior": {"theta_1": np.asarray(log_prior).reshape(theta_1.shape[:2])},
                "log_likelihood": {
                    str(n): x.values for n, x in tree["log_likelihood"].data_vars.items()
                },
            }
        ),
        round_to=12,
    )
    found = {
        f"psense_{name}": ("functional", summary.loc[list(functionals), name].to_numpy(float))
        for name in ("prior", "likelihood")
    }
    return xr.Dataset(found, coords={"functional": [str(n) for n in functionals]})
