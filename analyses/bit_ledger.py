"""The account of the nine pairs of heads in bits, and what its verdict depends on."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from pydantic import Field

from analyses.analysis import Analysis
from analyses.figures import margins
from analyses.tables import markdown_table
from generative.discrete import DiscreteTwoStage
from generative.ledger import (
    FUNCTIONS,
    SOURCE,
    Assumptions,
    heads_cost,
    margin,
    nine_pairs,
    single_heads,
)
from generative.nine_pairs import three_functions
from inference import Run

_NUM_VALUES = 41
_MOST_STATES = 10_000


class BitLedger(Analysis):
    """Bits spent and saved by all pairs, and the margin by which the honest ones win.

    Parameters
    ----------
    assumptions : Assumptions
        Costs in bits, and what else the account rests on.
    """

    name: ClassVar[str] = "bit_ledger"
    assumptions: Assumptions = Field(default_factory=lambda: SOURCE)

    def check(self) -> None:
        """Refuse assumptions that no discrete model is of."""
        _discrete(self.assumptions)

    def reduce(self, runs: Mapping[str, Run]) -> xr.DataTree:
        """Return the account, dims (first, second), and margins as single assumptions vary."""
        pairs = {(p.first, p.second): p for p in nine_pairs(self.assumptions)}
        dims = ("first", "second")

        def table(of: str) -> np.ndarray:
            return np.array([[getattr(pairs[f, g], of) for g in FUNCTIONS] for f in FUNCTIONS])

        account = xr.Dataset(
            {name: (dims, table(name)) for name in ("spent", "saved", "total", "verdict")},
            coords={name: list(FUNCTIONS) for name in dims},
        )
        # By counting in a discrete model, with the saving left as counted.
        account["total_counted"] = (dims, _discrete(self.assumptions).count().total)
        sensitivity = {
            name: xr.Dataset(
                {"margin": (name, found)},
                coords={name: values},
                attrs={"turn": -1 if turn is None else turn},
            )
            for name, (values, found, turn) in self._margins().items()
        }
        tree = xr.DataTree.from_dict({"account": account, **sensitivity}, name=self.name)
        tree.attrs = {"margin": margin(self.assumptions)}
        return tree

    def draw(self, tree: xr.DataTree, target: Path) -> None:
        """Draw the margin against each assumption."""
        panels = {str(n): tree[n].to_dataset() for n in tree.children if n != "account"}
        now = asdict(self.assumptions) | {
            "language": self.assumptions.language_bits,
            "complex_and_simple": heads_cost(self.assumptions, "complex", "simple"),
        }
        margins(panels, now, target)

    def conclude(self, tree: xr.DataTree) -> str:
        """Return the table of the nine pairs, and where the verdict turns."""
        rows = [
            [
                f"({p.first}, {p.second})",
                f"{p.spent:,}",
                f"{p.saved:,}",
                f"N + {p.total - self.assumptions.world:,}",
                p.verdict,
            ]
            for p in nine_pairs(self.assumptions)
        ]
        table = markdown_table(["heads", "spent", "saved", "total, bits", "verdict"], rows)
        single = ", ".join(
            f"{name} N + {total - self.assumptions.world:,}"
            for name, total in single_heads(self.assumptions).items()
        )
        turns = [
            f"`{name}` {'nowhere' if node.attrs['turn'] < 0 else f'at {node.attrs["turn"]:,} bits'}"
            for name, node in tree.children.items()
            if name != "account"
        ]
        wins = "wins by" if tree.attrs["margin"] > 0 else "does not win: its margin is"
        unspent = replace(self.assumptions, corrected=False)
        account = tree["account"].to_dataset()
        counted = account["total_counted"].where(np.isfinite(account["total_counted"]))
        differs = bool((abs(counted - account["total"]) > 0.5).any())
        return "\n\n".join(
            [
                f"N = {self.assumptions.world:,} bits.",
                table,
                f"Single or tied heads: {single}.",
                f"The honest head {wins} {tree.attrs['margin']:,} bits. Without corrections of the "
                f"simple process the margin is {margin(unspent):,}. The saving is counted where "
                "the three functions are heads of a discrete model with every possible human in it "
                "(`total_counted`, infinite where a pair cannot fit"
                + (
                    "; it differs from the table here, since counting caps no saving and takes the "
                    "complex and the simple function to agree whatever humans say"
                    if differs
                    else ""
                )
                + "); costs are assumed.",
                "The margin reaches 0, one assumption at a time: " + "; ".join(turns) + ".",
            ]
        )

    def _margins(self) -> dict[str, tuple[np.ndarray, np.ndarray, int | None]]:
        ranges = {
            "language": (0, 2 * self.assumptions.intended),
            "complex_agrees": (0, 2 * self.assumptions.complex),
            "complex": (0, 3 * self.assumptions.complex),
            "simple": (0, 3 * self.assumptions.simple),
            "complex_and_simple": (0, self.assumptions.complex + self.assumptions.simple),
        }
        found = {}
        for name, limits in ranges.items():
            values = np.linspace(*limits, _NUM_VALUES).round().astype(int)
            varied = [margin(_with(self.assumptions, name, int(v))) for v in values]
            found[name] = (values, np.array(varied), _turn(self.assumptions, name, values))
        return found


def _with(assumptions: Assumptions, name: str, value: int) -> Assumptions:
    changes: dict[str, Any] = {name: value}
    return replace(assumptions, **changes)


def _discrete(assumptions: Assumptions) -> DiscreteTwoStage:
    """Return a model with a state per bit of language, as far as that many can be counted."""
    number = min(max(assumptions.language_bits, 1), _MOST_STATES)
    return three_functions(assumptions, number, max(1, number // 10))


def _turn(assumptions: Assumptions, name: str, values: np.ndarray) -> int | None:
    """Return the first value, among neighbours that differ in whether honesty wins, that decides.

    The margin is above 0 on one side of it, and 0 or less on the other.
    """

    def wins(value: int) -> bool:
        return margin(_with(assumptions, name, value)) > 0

    for low, high in zip(values[:-1].tolist(), values[1:].tolist(), strict=True):
        before = wins(low)
        if before != wins(high):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if wins(middle) == before else (low, middle)
            return low if not before else high
    return None
