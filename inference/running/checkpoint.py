"""Checkpoints: what a run has done so far, so that it can go on bitwise identically.

A run is a fixed sequence of *sections*, each a bounded loop. A resumed run executes the same code
from its start, but a section gives back what was saved instead of computing it again: all of it if
it was finished, else its last state. Everything between sections is cheap and deterministic.

A section keeps two generations of its state, each in a file of its own: one line of JSON, and the
bytes of all leaves, whose SHA-256 the line holds. Files are written under another name, synced and
renamed, so that a kill at any moment leaves the older generation whole. A damaged file is passed
over; with no generation left, the section is computed again, to the same result.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from generative import InvalidInput

FOLDER = "checkpoint"
_IDENTITY = "identity.json"


class DamagedCheckpoint(UserWarning):
    """A checkpoint could not be read, and an older state was used instead."""


class Checkpoints:
    """The checkpoints of one run.

    Parameters
    ----------
    directory : Path
        The run folder.
    identity : dict
        JSON values that a resumed run must share: configuration, versions, device layout.
    seconds : float
        Between checkpoints within a section, at least.

    Raises
    ------
    InvalidInput
        If the folder holds checkpoints of another run.
    """

    def __init__(self, directory: Path, identity: dict[str, Any], seconds: float):
        self.folder, self.seconds = directory / FOLDER, seconds
        self._opened = 0
        self._identity = json.loads(json.dumps(identity, default=str))
        if (self.folder / _IDENTITY).exists():
            _check_identity(self.folder / _IDENTITY, self._identity)

    def section(self, label: str) -> "Section":
        """Open the next section."""
        self._opened += 1
        return Section(self.folder / f"{self._opened:04d}", label, self.seconds, self._prepare)

    def _prepare(self) -> None:
        """Make the folder, at the first save: bad input must not leave one behind."""
        path = self.folder / _IDENTITY
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(self._identity, indent=2).encode())


class Section:
    """One resumable loop of a run.

    Parameters
    ----------
    stem : Path, optional
        Of its files; None keeps nothing.
    label : str
    seconds : float
        Between saves, at least.
    prepare : callable, optional
        Called before each save.
    """

    def __init__(
        self,
        stem: Path | None,
        label: str,
        seconds: float = 0.0,
        prepare: Callable[[], None] | None = None,
    ):
        self._stem, self.label, self._seconds = stem, label, seconds
        self._prepare = prepare or (lambda: None)
        self._generation = 0
        self._saved_at = time.monotonic()
        self._found = None if stem is None else self._newest(stem)

    @property
    def count(self) -> int:
        """Iterations that the saved state holds; 0 where there is none."""
        return 0 if self._found is None else self._found[0]["count"]

    def restore(self, template: PyTree) -> PyTree:
        """Return the saved state; the template itself where there is none.

        Parameters
        ----------
        template : pytree
            Of the state's structure: JAX arrays come back where it holds JAX arrays, on its
            devices, and numbers where it holds numbers. Shapes are those that were saved.
        """
        if self._found is None:
            return template
        header, payload = self._found
        leaves, structure = jax.tree.flatten(template)
        if len(leaves) != len(header["leaves"]):
            found = f"{len(header['leaves'])} arrays in {self.label!r}, not {len(leaves)}"
            raise InvalidInput("checkpoint", found, "one of this very run")
        restored, start = [], 0
        for like, (dtype, shape) in zip(leaves, header["leaves"], strict=True):
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            value = np.frombuffer(payload[start : start + size], dtype).reshape(shape)
            restored.append(_as_like(value, like))
            start += size
        return jax.tree.unflatten(structure, restored)

    @property
    def is_due(self) -> bool:
        """Whether it is time for a save."""
        return self._stem is not None and time.monotonic() - self._saved_at >= self._seconds

    def save(self, state: PyTree, count: int) -> None:
        """Save a state, over the older of two generations."""
        if self._stem is None:
            return
        self._prepare()
        leaves = [_as_numpy(leaf) for leaf in jax.tree.leaves(state)]
        payload = b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)
        self._generation += 1
        header = {
            "label": self.label,
            "count": count,
            "generation": self._generation,
            "sha256": hashlib.sha256(payload).hexdigest(),
            "leaves": [[str(leaf.dtype), list(leaf.shape)] for leaf in leaves],
        }
        line = json.dumps(header).encode()
        digest = hashlib.sha256(line).hexdigest().encode()
        path = self._path(self._stem, self._generation)
        write_atomically(path, digest + b"\n" + line + b"\n" + payload)
        self._saved_at = time.monotonic()

    @staticmethod
    def _path(stem: Path, generation: int) -> Path:
        return stem.with_name(f"{stem.name}.{generation % 2}")

    def _newest(self, stem: Path) -> tuple[dict[str, Any], bytes] | None:
        found = []
        for path in (self._path(stem, 0), self._path(stem, 1)):
            if not path.exists():
                continue
            read = _read(path)
            if read is None:
                message = f"checkpoint {path.name} of {self.label!r} is damaged; an older is used"
                warnings.warn(message, DamagedCheckpoint, stacklevel=2)
            elif read[0]["label"] != self.label:
                found_label = f"a section {read[0]['label']!r} where this run has {self.label!r}"
                raise InvalidInput("checkpoint", found_label, "one of this very run")
            else:
                found.append(read)
        if not found:
            return None
        newest = max(found, key=lambda read: read[0]["generation"])
        self._generation = newest[0]["generation"]
        return newest


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file or a folder's entries durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_identity(path: Path, identity: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InvalidInput("checkpoint", f"a damaged {_IDENTITY}", "an intact one") from None
    names = found.keys() | identity.keys()
    different = sorted(name for name in names if found.get(name) != identity.get(name))
    if different:
        raise InvalidInput(
            "directory", f"checkpoints with another {' and '.join(different)}", "this run's"
        )


def _read(path: Path) -> tuple[dict[str, Any], bytes] | None:
    """Header and payload of a checkpoint; None if it is damaged."""
    digest, _, rest = path.read_bytes().partition(b"\n")
    line, _, payload = rest.partition(b"\n")
    if hashlib.sha256(line).hexdigest().encode() != digest:
        return None
    header = json.loads(line)
    return (header, payload) if hashlib.sha256(payload).hexdigest() == header["sha256"] else None


def _as_numpy(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _as_like(value: np.ndarray, like: Any) -> Any:
    if isinstance(like, bool | int | float):
        return type(like)(value)
    if not isinstance(like, jax.Array):
        return value
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(like))
    return jax.device_put(value, like.sharding) if value.shape == like.shape else jnp.asarray(value)
