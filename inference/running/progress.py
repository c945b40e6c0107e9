"""How a run is watched: progress bars, and checkpoints to resume from."""

import sys
from dataclasses import dataclass

from tqdm import tqdm

from inference.running.checkpoint import Checkpoints, Section


@dataclass(frozen=True)
class Monitor:
    """Progress bars and checkpoints of one run.

    Parameters
    ----------
    progress : bool
        Whether to show bars.
    checkpoints : Checkpoints, optional
        Where states are kept.
    """

    progress: bool = False
    checkpoints: Checkpoints | None = None

    def bar(self, total: float | None, label: str, unit: str = "step", initial: float = 0) -> tqdm:
        """Return a bar on standard error that disappears when it is done."""
        return tqdm(
            total=total,
            desc=label,
            disable=not self.progress,
            file=sys.stderr,
            unit=unit,
            initial=initial,
            leave=False,
            dynamic_ncols=True,
        )

    def section(self, label: str) -> Section:
        """Open the next resumable section."""
        return Section(None, label) if self.checkpoints is None else self.checkpoints.section(label)


SILENT = Monitor()
