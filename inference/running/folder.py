"""Run folders: configuration, summary, draws and manifest, which makes them a finished run."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import xarray as xr

from generative import InvalidInput
from inference.running.checkpoint import FOLDER as CHECKPOINTS
from inference.running.checkpoint import sync

FILES = ("config.json", "summary.json", "posterior.nc")
MANIFEST = "manifest.json"


def refuse_occupied(directory: Path, resume: bool = False) -> None:
    """Refuse a folder that holds anything, but an unfinished run that is to be resumed.

    Raises
    ------
    InvalidInput
    """
    try:
        if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
            return
    except OSError as error:
        found = f"{directory}: {error.strerror}"
        raise InvalidInput("directory", found, "a folder that can be read") from None
    if directory.is_dir() and (directory / CHECKPOINTS).is_dir():
        if resume:
            return
        found = f"{directory} holds an unfinished run"
        raise InvalidInput("directory", found, "resume, or a new or an empty folder")
    found = f"{directory} holds another run or other files"
    raise InvalidInput("directory", found, "a new or an empty folder")


def require_writable(directory: Path, name: str = "directory") -> None:
    """Refuse a folder in which nothing can be written; nothing new is left behind.

    Raises
    ------
    InvalidInput
    """
    missing: list[Path] = []
    try:
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except (OSError, ValueError) as error:
        found = f"{directory}: {getattr(error, 'strerror', None) or error}"
        raise InvalidInput(name, found, "a folder that can be written") from None
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def save(tree: xr.DataTree, summary: dict[str, Any], directory: Path) -> None:
    """Write all files elsewhere, sync them, and move them to the target, the manifest last.

    A folder with checkpoints and without a manifest is an unfinished run, at any moment.
    """
    refuse_occupied(directory, resume=True)
    checkpoints = directory / CHECKPOINTS
    parent = checkpoints if checkpoints.is_dir() else directory.parent
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=parent))
    try:
        config = json.loads(tree.attrs.get("configuration", "{}"))
        _write_json(temporary / "config.json", config)
        _write_json(temporary / "summary.json", summary)
        tree.to_netcdf(temporary / "posterior.nc", engine="h5netcdf")
        _write_json(temporary / MANIFEST, {name: _sha256(temporary / name) for name in FILES})
        for path in temporary.iterdir():
            sync(path)
        if parent is checkpoints:
            for name in (*FILES, MANIFEST):
                (temporary / name).replace(directory / name)
            sync(directory)
            shutil.rmtree(checkpoints, ignore_errors=True)
            return
        os.chmod(temporary, 0o755)
        if directory.exists():
            directory.rmdir()
        temporary.rename(directory)
        sync(directory.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def load(directory: Path) -> tuple[xr.DataTree, dict[str, Any]]:
    """Read tree and summary of a run folder after checking every file against the manifest."""
    manifest_path = directory / MANIFEST
    if not manifest_path.is_file():
        raise InvalidInput("directory", f"no {MANIFEST} in {directory}", "a finished run folder")
    try:
        manifest = json.loads(manifest_path.read_text())
    except (OSError, ValueError):
        manifest = None
    if not isinstance(manifest, dict):
        raise InvalidInput("directory", f"a damaged {MANIFEST}", "an intact run folder")
    for name in FILES:
        path = directory / name
        if not path.is_file() or _sha256(path) != manifest.get(name):
            raise InvalidInput("directory", f"a missing or damaged {name}", "an intact run folder")
    summary = json.loads((directory / "summary.json").read_text())
    with xr.open_datatree(directory / "posterior.nc", engine="h5netcdf") as opened:
        return opened.load(), summary


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, default=float) + "\n")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
