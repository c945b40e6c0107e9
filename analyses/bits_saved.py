"""How many bits does agreement save, as the small set grows and the intended head gets costlier?"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.cells import Cell
from analyses.figures import lines
from analyses.worlds import Increasing, WorldAnalysis, difference, verdict


class BitsSaved(WorldAnalysis):
    """Bits saved, by the size of the small set and of the intended head.

    Parameters
    ----------
    sizes : list of int
        Of the small set.
    hidden : list of int
        Units of the intended head's hidden layer: what it costs.
    """

    name: ClassVar[str] = "bits_saved"
    varied: ClassVar[tuple[str, ...]] = ("num_small", "hidden")
    sizes: Increasing = [10, 20, 40, 80]
    hidden: Increasing = [1, 6]

    def cells(self) -> Sequence[Cell]:
        """Return one run per size and head."""
        return [
            self.cell(_case(size, hidden), {"num_small": size, "hidden": hidden})
            for hidden in self.hidden
            for size in self.sizes
        ]

    def draw(self, tree: xr.DataTree, target: Path) -> None:
        """Draw bits saved against the size of the small set, a line per head."""
        data = tree.to_dataset()
        series = {
            _units(hidden): data.sel(case=[_case(s, hidden) for s in self.sizes])
            for hidden in self.hidden
        }
        lines(self.sizes, series, "bits_saved", "size of the small set", "bits saved", target)

    def conclude(self, tree: xr.DataTree) -> str:
        """Return the tables, and how the bits grow."""
        data = tree.to_dataset()
        words = []
        for hidden in self.hidden:
            of = data.sel(case=[_case(s, hidden) for s in self.sizes])
            bits, error = of["bits_saved"].values, of["bits_saved_se"].values
            found = ", ".join(
                f"{value:.2f} ± {e:.2f} at {size}"
                for value, e, size in zip(bits, error, self.sizes, strict=True)
            )
            growth = ""
            if len(self.sizes) > 1:
                doublings = np.log2(self.sizes[-1] / self.sizes[-2])
                per_doubling = (bits[-1] - bits[-2]) / doublings
                its_error = np.hypot(error[-1], error[-2]) / doublings
                growth = f"; at the end {per_doubling:.2f} ± {its_error:.2f} per doubling"
            words.append(f"With {_units(hidden)}, bits by size of the small set: {found}{growth}.")
        if len(self.hidden) > 1:
            costs = [_case(self.sizes[-1], h) for h in (self.hidden[-1], self.hidden[0])]
            change = verdict(*difference(data, "bits_saved", *costs))
            words.append(f"The costlier head's saving at {self.sizes[-1]} questions: {change}.")
        words.append(
            "lambda grows with the small set, so that every question weighs the same. Were C the "
            "same function for all sets, bits per doubling of lambda would tend to its learning "
            "coefficient (half the number of directions that agreement fixes, where it is "
            "regular). Other small sets leave other questions to be held out. Bits of a continuous "
            "network depend on lambda and the scales; only their differences compare with the "
            "costs of a discrete account."
        )
        return "\n\n".join([self.tables(data), " ".join(words), self.doubts(data)])


def _units(hidden: int) -> str:
    return f"{hidden} hidden unit{'' if hidden == 1 else 's'}"


def _case(size: int, hidden: int) -> str:
    return f"{size} questions, {hidden} hidden"
