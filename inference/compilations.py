"""How many programs were compiled: a second model of the same structure should compile none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_FOUND = "/jax/compilation_cache/cache_hits"


@dataclass
class Compilations:
    """Programs that were needed for the first time in this process.

    Attributes
    ----------
    number : int
        Compiled.
    found : int
        Taken from the persistent cache instead.
    seconds : float
        For both, in all threads together.
    """

    number: int = 0
    found: int = 0
    seconds: float = 0.0


_total = Compilations()


def _on_duration(event: str, duration: float, **_: object) -> None:
    if event == _COMPILED:
        _total.number += 1
        _total.seconds += duration


def _on_event(event: str, **_: object) -> None:
    if event == _FOUND:
        _total.number -= 1
        _total.found += 1


jax.monitoring.register_event_duration_secs_listener(_on_duration)
jax.monitoring.register_event_listener(_on_event)


@contextmanager
def counted() -> Iterator[Compilations]:
    """Count what is compiled within; the counts are there when it ends."""
    before = (_total.number, _total.found, _total.seconds)
    counts = Compilations()
    try:
        yield counts
    finally:
        after = (_total.number, _total.found, _total.seconds)
        counts.number, counts.found, counts.seconds = (
            new - old for new, old in zip(after, before, strict=True)
        )
