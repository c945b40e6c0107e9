"""How many bits does agreement save, as the small set grows and the intended head gets costlier?"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import xarray as xr

from analyses.cells import Cell
from analyses.figures import lines
from analyses.worlds import WorldAnalysis


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
    sizes: list[int] = [10, 20, 40, 80]
    hidden: list[int] = [1, 6]

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
            f"{hidden} hidden units": data.sel(case=[_case(s, hidden) for s in self.sizes])
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
            steps = np.diff(bits) / np.diff(self.sizes)
            words.append(
                f"With {hidden} hidden units, {bits[0]:.1f} ± {error[0]:.1f} bits at "
                f"{self.sizes[0]} questions and {bits[-1]:.1f} ± {error[-1]:.1f} at "
                f"{self.sizes[-1]}; a further question saves "
                f"{', '.join(f'{s:.2f}' for s in steps)} bits along the way."
            )
        small, large = (self.hidden[0], self.hidden[-1])
        last = data.sel(case=[_case(self.sizes[-1], h) for h in (small, large)])
        gap = float(np.diff(last["bits_saved"].values)[0])
        error = float(np.hypot(*last["bits_saved_se"].values))
        words.append(
            f"The costlier head changes the saving at {self.sizes[-1]} questions by {gap:+.2f} ± "
            f"{error:.2f} bits. lambda grows with the small set, so that every question weighs the "
            "same. Bits of a continuous network depend on lambda and the scales; only their "
            "differences compare with the costs of a discrete account."
        )
        return "\n\n".join([self.tables(data), " ".join(words), self.doubts(data)])


def _case(size: int, hidden: int) -> str:
    return f"{size} questions, {hidden} hidden"
