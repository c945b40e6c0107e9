"""Files that are whole or not there."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

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
