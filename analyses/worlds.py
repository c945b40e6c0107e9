"""What analyses of two-headed networks in a world have in common."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import numpy as np
import xarray as xr
from pydantic import AfterValidator

from analyses.analysis import Analysis
from analyses.cells import Cell
from analyses.figures import overview
from analyses.measures import gather, with_error
from analyses.roles import chance, function_answers
from analyses.tables import markdown_table
from generative import InvalidInput, networks, problems
from generative.labelling import KINDS
from generative.ledger import FUNCTIONS
from generative.problems.two_headed import TwoHeaded
from generative.setups import Setup
from inference import HMC, Run
from inference.backends.base import Backend

ASSUMED = (
    "± is one Monte Carlo standard error; in brackets, one standard deviation from having asked "
    "these held-out questions and not others of their kind, which rows share where they share the "
    "questions. Probabilities are conditional on the network, its prior scales, lambda and the "
    "data sets of the configuration. A head counts as the function whose answers it gives most "
    "probably, which it need not be close to. Where no evidence is given chains were not compared "
    "with populations from the prior."
)
EVIDENCE = (
    " Evidences are of populations that start from the two-stage prior annealed at each theta_1, "
    "which is approximate."
)
# With a third of these draws the tails of one of hundreds of answers failed in most runs on jevons.
SAMPLER = HMC(num_draws=1500, negative="persistent")


def _increasing(values: list[int]) -> list[int]:
    if not values or any(b <= a for a, b in itertools.pairwise(values)):
        raise ValueError("give one number or more, each larger than the one before")
    return values


Increasing = Annotated[list[int], AfterValidator(_increasing)]


class WorldAnalysis(Analysis):
    """An analysis of runs that differ in one thing, along the dim `case`.

    Parameters
    ----------
    world : {"jevons", "room", "digits"}
    options : dict
        Of the problem, for all runs.
    hmc : HMC
        Negative samples are persistent without a trial of whether they cross basins, which each
        run would repeat: the checks of them are at the draws themselves. There is no log evidence,
        which takes longer than the draws, and no comparison with the populations behind it.
    """

    # Options of the problem that tell the runs apart.
    varied: ClassVar[tuple[str, ...]] = ()
    # What the figure shows: log evidences, where all runs explain the same data, or bits saved.
    bits: ClassVar[Literal["log_evidence", "bits_saved"]] = "bits_saved"
    world: Literal["jevons", "room", "digits"] = "jevons"
    options: dict[str, bool | int | float | str] = {}
    hmc: HMC = SAMPLER.model_copy(update={"evidence_particles": 0})

    def check(self) -> None:
        """Refuse options that cannot be used, or that would make the names of the runs wrong."""
        for option in self.varied:
            if option in self.options:
                raise InvalidInput(
                    f"options.{option}", self.options[option], f"nothing: {self.name} varies it"
                )
        for cell in self.cells():
            function_answers(problems.get(cell.problem, **cell.options).model)

    def reduce(self, runs: Mapping[str, Run]) -> xr.DataTree:
        """Return what was measured of every run, dim `case`."""
        cells = self.cells()
        data = gather(cells, runs)
        model = problems.get(cells[0].problem, **cells[0].options).model
        data["chance"] = ("first", chance(model, jax.random.key(self.seed)))
        return xr.DataTree(data, name=self.name)

    def draw(self, tree: xr.DataTree, target: Path) -> None:
        """Draw pairs of functions, right answers and bits of all runs."""
        overview(tree.to_dataset(), "case", self.bits, target)

    def cell(
        self,
        case: str,
        options: Mapping[str, Any] | None = None,
        setup: Setup = "two-stages",
        backend: Backend | None = None,
    ) -> Cell:
        """Return a run with some options of the problem changed."""
        folder = "".join(c if c.isalnum() else "-" for c in case).replace("--", "-").strip("-")
        chosen = dict(self.options) | dict(options or {})
        return Cell(folder, self.world, backend or self.hmc, chosen, setup, case)

    def setting(self, name: networks.Setting) -> dict[str, Any]:
        """Return a setting's options, with the same total scale of nearly every parameter.

        In `split` a parameter moves once: with the scale of stage 1 alone the heads would be
        shorter than where they move twice, and that would be all that is seen.
        """
        if name != "split":
            return {"setting": name}
        scales = (
            self.options.get(n, getattr(TwoHeaded, n)) for n in ("first_scale", "second_scale")
        )
        return {"setting": name, "first_scale": float(np.hypot(*scales))}

    @staticmethod
    def tables(data: xr.Dataset) -> str:
        """Return two tables, of evidence and right answers and of the nine pairs."""
        return "\n\n".join([results_table(data), pair_table(data)])

    @staticmethod
    def doubts(data: xr.Dataset) -> str:
        """Return what the results rest on, and which runs failed checks of their own."""
        failed = [str(c) for c in data["case"].values if not data["usable"].sel(case=c)]
        before = ", ".join(f"{f} {float(data['chance'].sel(first=f)):.2f}" for f in FUNCTIONS)
        chances = f" Without labels or agreement the first head would be nearest to: {before}."
        doubts = f" Checks of these runs failed, to be read with doubt: {failed}." if failed else ""
        evidence = EVIDENCE if np.isfinite(data["log_evidence"]).any() else ""
        return ASSUMED + evidence + chances + doubts


def results_table(data: xr.Dataset) -> str:
    """Return evidence (if any), bits saved, C and right answers of the first head, a row a run."""
    columns = {
        "log_evidence": ("log2 evidence", 2),
        "bits_saved": ("bits saved", 2),
        "disagreement": ("C(theta_2)", 4),
    }
    measured = {n: column for n, column in columns.items() if np.isfinite(data[n]).any()}
    rows = []
    for case in data["case"].values:
        of = data.sel(case=case)
        scalars = [
            with_error(of[name], of[f"{name}_se"], digits) for name, (_, digits) in measured.items()
        ]
        first = of.sel(head="first")
        right = [
            f"{with_error(of_set['right'], of_set['right_se'])} "
            f"({float(of_set['right_questions']):.2f})"
            for of_set in (first.sel(set=f"held_out_{kind}") for kind in KINDS)
        ]
        rows.append([str(case), *scalars, *right])
    header = ["", *(label for label, _ in measured.values())]
    header += ["first head right: human right", "human wrong", "both deceived"]
    return markdown_table(header, rows)


def pair_table(data: xr.Dataset) -> str:
    """Return the posterior probabilities of the nine pairs, a row per run."""
    pairs = [(f, g) for f in FUNCTIONS for g in FUNCTIONS]
    rows = []
    for case in data["case"].values:
        of = data.sel(case=case)
        cells = [
            with_error(of["pair"].sel(first=f, second=g), of["pair_se"].sel(first=f, second=g))
            for f, g in pairs
        ]
        rows.append([str(case), *cells])
    return markdown_table(["P(first, second)", *(f"{f}, {g}" for f, g in pairs)], rows)


def share(data: xr.Dataset, case: str, function: str = "intended") -> tuple[float, float]:
    """Probability that the first head is nearest to a function, and its error, all told."""
    of = data.sel(case=case, first=function)
    error = np.hypot(np.nan_to_num(float(of["share_se"])), float(of["share_questions"]))
    return float(of["share"]), float(error)


def difference(data: xr.Dataset, name: str, one: str, two: str) -> tuple[float, float]:
    """Difference of something measured between two runs, and its standard error."""
    first, second = data.sel(case=one), data.sel(case=two)
    error = np.hypot(float(first[f"{name}_se"]), float(second[f"{name}_se"]))
    return float(first[name] - second[name]), float(error)


def verdict(change: float, error: float, unit: str = "bits") -> str:
    """Return a difference in words, by whether it is beyond two standard errors."""
    if not np.isfinite(change) or not np.isfinite(error):
        return "not estimated"
    text = f"{change:+.2f} ± {error:.2f} {unit}"
    if abs(change) <= 2 * error:
        return f"not told from none ({text})"
    return f"{'more' if change > 0 else 'less'} ({text})"


def trend(data: xr.Dataset, cases: Sequence[str]) -> str:
    """Return P(first head intended) of some runs, in order."""
    parts = []
    for case in cases:
        of = data.sel(case=case, first="intended")
        value = with_error(of["share"], of["share_se"])
        parts.append(f"{case}: {value} ({float(of['share_questions']):.2f})")
    return "; ".join(parts)
