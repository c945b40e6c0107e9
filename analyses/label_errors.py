"""How few wrong labels tip the posterior, if the network can predict them, or if it cannot?"""

from collections.abc import Sequence
from typing import ClassVar

import xarray as xr

from analyses.cells import Cell
from analyses.worlds import Increasing, WorldAnalysis, share, trend
from generative.ledger import FUNCTIONS


class LabelErrors(WorldAnalysis):
    """Posterior by the number of wrong labels, predictable or not.

    Parameters
    ----------
    errors : list of int
        Numbers of wrong labels.
    """

    name: ClassVar[str] = "label_errors"
    varied: ClassVar[tuple[str, ...]] = ("num_errors", "predictable_errors")
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
        before = _likeliest(data, "no errors")
        words.append(f"Without errors it is likeliest {before}.")
        for kind, name in ((True, "predictable"), (False, "random")):
            tipped = [n for n in self.errors if _tips(data, before, _case(n, kind))]
            words.append(
                f"{tipped[0]} {name} errors tip it to {_likeliest(data, _case(tipped[0], kind))}."
                if tipped
                else f"No number tried of {name} errors tips it."
            )
            last = data.sel(case=_case(self.errors[-1], kind), head="first", set="held_out_wrong")
            words.append(
                f"With {self.errors[-1]} {name} errors the first head is right where the human "
                f"errs with probability {float(last['right']):.2f} ± {float(last['right_se']):.2f},"
                f" {float(clean['right']):.2f} ± {float(clean['right_se']):.2f} without errors."
            )
        words.append(
            "Predictable errors are additional cases of the small set, so that they are also asked "
            "to agree."
        )
        return "\n\n".join([self.tables(data), " ".join(words), self.doubts(data)])


def _likeliest(data: xr.Dataset, case: str) -> str:
    return max(FUNCTIONS, key=lambda function: share(data, case, function)[0])


def _tips(data: xr.Dataset, before: str, case: str) -> bool:
    """Whether the first head is likelier another function now, beyond two standard errors."""
    (new, new_error), (old, old_error) = (
        share(data, case, function) for function in (_likeliest(data, case), before)
    )
    # Of the same draws: where one share grows the other shrinks, so that their errors add up.
    return new - old > 2 * (new_error + old_error)


def _case(number: int, predictable: bool) -> str:
    return f"{number} {'predictable' if predictable else 'random'} errors"
