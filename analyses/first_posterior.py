"""A first posterior on real data: what do the two heads answer, and how many bits were saved?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import xarray as xr

from analyses.analysis import Analysis
from analyses.cells import Cell
from analyses.figures import forest
from analyses.functionals import right_answers
from analyses.summary import summarize
from inference import HMC, Run


class FirstPosterior(Analysis):
    """The posterior of `digits`: its table, and a forest of right answers.

    Parameters
    ----------
    hmc : HMC
        Far from quadratic, the cheaper sweeps of `exchange` win. The log evidence, which takes
        longer than the chains, is left to ``concord run digits --backend smc``.
    """

    name: ClassVar[str] = "first_posterior"
    hmc: HMC = HMC(
        kernel="exchange",
        num_warmup=600,
        num_draws=1000,
        num_chains=4,
        thinning=3,
        max_doublings=1,
        evidence_particles=0,
    )

    def cells(self) -> Sequence[Cell]:
        """Return one run."""
        return [Cell("digits", "digits", self.hmc)]

    def reduce(self, runs: Mapping[str, Run]) -> xr.DataTree:
        """Return the probability that each head gives the true answer, draw by draw."""
        run = runs["digits"]
        right = right_answers(run.tree)
        assert right is not None  # as of all problems with labels
        return xr.DataTree(right.assign_attrs(table=summarize(run)))

    def draw(self, tree: xr.DataTree, target: Path) -> None:
        """Draw a forest."""
        forest({"posterior": tree.to_dataset()}, target, "Probability of the true answer")

    def conclude(self, tree: xr.DataTree) -> str:
        """Return the run's own table."""
        return f"```\n{tree.attrs['table']}\n```"
