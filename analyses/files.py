"""Files that are whole or not there."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generative import InvalidInput
from inference.running.folder import require_writable


def require_file(name: str, target: Path) -> None:
    """Refuse a file that cannot be written, before the work that ends in it.

    Raises
    ------
    InvalidInput
    """
    require_writable(target.parent, name)
    if target.is_dir():
        raise InvalidInput(name, f"{target}, a folder", "a file")


def require_figure(name: str, target: Path) -> None:
    """Refuse a figure that cannot be written, or that is no PNG.

    Raises
    ------
    InvalidInput
    """
    if target.suffix.lower() != ".png":
        raise InvalidInput(name, str(target), "a file whose name ends with .png")
    require_file(name, target)


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Write beside a file and rename: a reader never sees half of it, whatever happens.

    Parameters
    ----------
    target : Path
    write : callable
        Writes to the path it is given, whose suffix is that of `target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=target.suffix)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def read_kept(kept: Path | None) -> dict[str, Any]:
    """Read what an interrupted benchmark kept by :func:`keep`; nothing, if it kept none."""
    return json.loads(kept.read_text()) if kept is not None and kept.exists() else {}


def keep(kept: Path | None, rows: dict[str, Any]) -> None:
    """Keep what a benchmark has finished, where it has a file for that."""
    if kept is not None:
        write_whole(kept, lambda path: path.write_text(json.dumps(rows, indent=1)))
