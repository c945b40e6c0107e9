"""How few wrong labels tip the posterior, if the network can predict them, or if it cannot?"""

from collections.abc import Sequence
from typing import ClassVar

import xarray as xr

from analyses.cells import Cell
from analyses.worlds import Increasing, WorldAnalysis, honest, trend


class LabelErrors(WorldAnalysis):
    """Posterior and evidence by the number of wrong labels, predictable or not.

    Parameters
    ----------
    errors : list of int
        Numbers of wrong labels.
    """

    name: ClassVar[str] = "label_errors"
    errors: Increasing = [2, 5, 10]

    def cells(self) -> Sequence[Cell]:
        """Return one run without errors, and one per number and kind."""
        return [self.cell("no errors")] + [
            self.cell(_case(n, kind), {"num_errors": n, "predictable_errors": kind})
            for kind in (True, False)
            for n in self.errors
        ]

    def conclude(self, tree: xr.DataTree) -> str:
        """Return the tables, and from how many errors on the posterior is tipped."""
        data = tree.to_dataset()
        clean = data.sel(case="no errors", head="first", set="held_out_wrong")
        words = [f"P(first head intended): {trend(data, list(data['case'].values))}."]
        before, error = honest(data, "no errors")
        may_tip = before - 2 * error > 0.5
        if not may_tip:
            words.append("Honesty was not the likelier even without errors: nothing can tip.")
        for kind, name in ((True, "predictable"), (False, "random")):
            if may_tip:
                tipped = [n for n in self.errors if _tipped(data, _case(n, kind))]
                where = f"{tipped[0]}" if tipped else "No number tried of"
                words.append(
                    f"{where} {name} errors made imitation of a labelling process likelier than "
                    "honesty."
                )
            last = data.sel(case=_case(self.errors[-1], kind), head="first", set="held_out_wrong")
            words.append(
                f"With {self.errors[-1]} {name} errors the first head is right where the human "
                f"errs with probability {float(last['right']):.2f} ± {float(last['right_se']):.2f},"
                f" {float(clean['right']):.2f} ± {float(clean['right_se']):.2f} without errors."
            )
        words.append(
            "Predictable errors are additional cases of the small set, so that they are also asked "
            "to agree; evidences are of other data in every row and do not compare."
        )
        return "\n\n".join([self.tables(data), " ".join(words), self.doubts(data)])


def _tipped(data: xr.Dataset, case: str) -> bool:
    """Whether honesty is less likely than not, beyond two standard errors."""
    value, error = honest(data, case)
    return value + 2 * error < 0.5


def _case(number: int, predictable: bool) -> str:
    return f"{number} {'predictable' if predictable else 'random'} errors"
