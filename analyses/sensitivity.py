"""What does the posterior rest on: lambda, the stages' scales, or the labels?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.tree_util import Partial
from pydantic import Field
from scipy.stats import norm

from analyses.analysis import Analysis
from analyses.cells import Cell
from analyses.figures import grouped_bars
from analyses.functionals import scalar_functionals
from analyses.measures import with_error
from analyses.tables import markdown_table
from generative import TwoStageModel, problems
from inference import HMC, Run
from inference.batches import over_points
from inference.moves.density import log_first
from inference.results.sensitivity import prior_scores, sensitivities

_MOST_DRAWS = 300
_LABELS = {
    "strength": "lambda",
    "first_scale": "scale of stage 1",
    "second_scale": "scale of stage 2",
}


class Sensitivity(Analysis):
    """Local sensitivity of functionals and of the evidence, from one run.

    lambda and the scales stand inside Z, so that draws cannot be reweighted by a ratio of
    densities; their derivatives need draws of q(. | theta_1), here by annealing, and no Z. The
    first stage's density and the likelihood stand outside of Z: ArviZ's power-scaling serves there.

    Parameters
    ----------
    world : {"jevons", "room", "digits"}
    options : dict
        Of the problem.
    hmc : HMC
    num_particles : int
        At each of some hundred draws of theta_1 per chain.
    """

    name: ClassVar[str] = "sensitivity"
    world: Literal["jevons", "room", "digits"] = "jevons"
    options: dict[str, bool | int | float | str] = {}
    hmc: HMC = HMC(
        kernel="exchange", num_warmup=500, num_draws=2000, max_doublings=1, evidence_particles=0
    )
    num_particles: int = Field(32, ge=4)

    def cells(self) -> Sequence[Cell]:
        """Return one run."""
        return [Cell("hmc", self.world, self.hmc, dict(self.options))]

    def reduce(self, runs: Mapping[str, Run]) -> xr.DataTree:
        """Return derivatives, and power-scaling sensitivities of ArviZ."""
        model = problems.get(self.world, **self.options).model
        tree = runs["hmc"].tree
        functionals = _moving(tree)
        places = functionals["draw"].values
        posterior = tree.children["posterior"].dataset
        theta_1, theta_2 = (posterior[n].values[:, places] for n in ("theta_1", "theta_2"))
        key = jax.random.key(self.seed)
        found_scores = prior_scores(model, theta_1, theta_2, key, self.num_particles)
        scores = xr.Dataset({n: (("chain", "draw"), x) for n, x in found_scores.items()})
        found = sensitivities(functionals, scores)
        scaled = _power_scaling(model, tree, functionals)
        return xr.DataTree(xr.merge([found, scaled]), name=self.name)

    def draw(self, tree: xr.DataTree, target: Path) -> None:
        """Draw the derivatives of all functionals."""
        data = tree.to_dataset().rename({"functional": "case", "standard_error": "sensitivity_se"})
        data = data.assign_coords(hyperparameter=list(_LABELS.values()))
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
        told = "; ".join(_told(data)) or "none is told from none"
        words = (
            "Changes of posterior means in posterior standard deviations, to first order, as "
            "lambda or all scales of a stage double; psense is ArviZ's power-scaling sensitivity, "
            "which calls 0.05 noteworthy. Dependence of the first head's right answers, where it "
            f"is beyond chance among all of them (Bonferroni, 5 %): {told}. First-order changes "
            "are local: a doubling is not small. ± is one standard error."
        )
        return "\n\n".join([markdown_table(header, rows), words])


def _told(data: xr.Dataset) -> list[str]:
    """Sensitivities of right answers that are beyond chance, allowing for how many there are."""
    right = [str(n) for n in data["functional"].values if str(n).startswith("P(first right)")]
    limit = norm.isf(0.025 / max(1, len(right) * len(_LABELS)))
    found = []
    for name in right:
        for eta, label in _LABELS.items():
            of = data.sel(functional=name, hyperparameter=eta)
            if abs(of["sensitivity"]) > limit * of["standard_error"]:
                found.append(
                    f"{name} on {label}, {with_error(of['sensitivity'], of['standard_error'])}"
                )
    return found


def _moving(tree: xr.DataTree) -> xr.Dataset:
    """Functionals that move, at evenly thinned draws whose places are the coordinate `draw`."""
    found = scalar_functionals(tree)
    total = max(x.sizes["draw"] for x in found.values())
    fewest = min(x.sizes["draw"] for x in found.values())
    # Answers are kept of every so many draws only.
    stride = int(np.ceil(total / fewest))
    stride *= max(1, total // stride // _MOST_DRAWS)
    places = np.arange(0, total, stride)
    thinned = {}
    for name, x in found.items():
        own = int(np.ceil(total / x.sizes["draw"]))
        values = x.values[:, :: stride // own]
        if np.ptp(values) > 0:
            thinned[name] = (("chain", "draw"), values)
    return xr.Dataset(thinned, coords={"draw": places})


def _power_scaling(model: TwoStageModel, tree: xr.DataTree, functionals: xr.Dataset) -> xr.Dataset:
    """ArviZ's power-scaling sensitivity to the density of stage 1 and to the likelihood."""
    places = functionals["draw"].values
    theta_1 = tree.children["posterior"].dataset["theta_1"].values[:, places]
    flat = jnp.asarray(theta_1.reshape(-1, model.dimension))
    log_prior = over_points(Partial(log_first, model), flat)
    summary = az.psense_summary(
        az.from_dict(
            {
                "posterior": {str(n): x.values for n, x in functionals.items()},
                "log_prior": {"theta_1": np.asarray(log_prior).reshape(theta_1.shape[:2])},
                "log_likelihood": {
                    str(n): x.values[:, places] for n, x in tree["log_likelihood"].data_vars.items()
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
