"""Do confident comparisons of answers serve better than plain labels, where labels are unclear?"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import xarray as xr

from analyses.cells import Cell
from analyses.worlds import WorldAnalysis, difference, trend

_EVIDENCE = {
    "plain labels": "labels",
    "confident comparisons": "comparisons",
    "labels, then comparisons": "both",
}


class Comparisons(WorldAnalysis):
    """Posterior by what was observed: majority labels, confident comparisons, or both.

    All see the same cases, some of which divide the judges. Plain labels use these too; comparisons
    leave out what nobody is confident about. Their likelihoods are of different data.

    Parameters
    ----------
    num_unclear : int
        Cases that divide the judges.
    beta, confidence : float
        Rationality of whoever compares, and from which probability on a comparison is used.
    """

    name: ClassVar[str] = "comparisons"
    varied: ClassVar[tuple[str, ...]] = ("evidence", "num_unclear", "beta", "confidence")
    # Judges of digits are never divided.
    world: Literal["jevons", "room"] = "jevons"
    num_unclear: int = 20
    beta: float = 2.0
    confidence: float = 0.95

    def cells(self) -> Sequence[Cell]:
        """Return one run per kind of observation, and one that never saw the unclear cases."""
        shared = {
            "num_unclear": self.num_unclear,
            "beta": self.beta,
            "confidence": self.confidence,
        }
        clear = self.cell("clear labels only")
        return [clear, *(self.cell(n, shared | {"evidence": e}) for n, e in _EVIDENCE.items())]

    def conclude(self, tree: xr.DataTree) -> str:
        """Return the tables, and what comparisons change."""
        data = tree.to_dataset()
        first = data.sel(head="first", set="held_out_wrong")
        right = first[["right", "right_se"]].rename({"right": "value", "right_se": "value_se"})
        change = []
        for other in data["case"].values:
            if other != "plain labels":
                value, error = difference(right, "value", other, "plain labels")
                change.append(f"{other} {value:+.3f} ± {error:.3f}")
        words = (
            f"P(first head intended): {trend(data, list(data['case'].values))}. P(first head right "
            f"where the human errs), against plain labels: {'; '.join(change)}. One yes-or-no "
            "question has one pair of answers, whose comparison is a label with tempered odds: "
            "what differs is beta, and which cases are used."
        )
        return "\n\n".join([self.tables(data), words, self.doubts(data)])
