"""How many programs were compiled: a second model of the same structure should compile none."""

from collections import Counter

import jax

_NEEDED = "/jax/core/compile/backend_compile_duration"
_FOUND = "/jax/compilation_cache/cache_hits"

_total: Counter[str] = Counter()

jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: _total.update([event]))
jax.monitoring.register_event_listener(lambda event, **__: _total.update([event]))


class Compilations:
    """Programs that this process needed for the first time, counted from now on."""

    def __init__(self) -> None:
        self._before = _total.copy()

    @property
    def needed(self) -> int:
        """Number of programs that were compiled or taken from the persistent cache."""
        return _total[_NEEDED] - self._before[_NEEDED]

    @property
    def compiled(self) -> int:
        """Number of programs that were not in the persistent cache."""
        return self.needed - (_total[_FOUND] - self._before[_FOUND])
