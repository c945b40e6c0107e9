"""The one progress bar."""

import sys

from tqdm import tqdm


def progress_bar(total: float | None, label: str, shown: bool, unit: str = "step") -> tqdm:
    """Return a bar on standard error that disappears when it is done."""
    return tqdm(
        total=total,
        desc=label,
        disable=not shown,
        file=sys.stderr,
        unit=unit,
        leave=False,
        dynamic_ncols=True,
    )
