"""64-bit, and one rotating seed."""

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
# The same programs are compiled for many seeds and in two workers: share them.
CACHE = Path(__file__).parent.parent / ".pytest_cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture
def seed() -> int:
    """Return a seed that CONCORD_TEST_SEED rotates."""
    return int(os.environ.get("CONCORD_TEST_SEED", "0"))
