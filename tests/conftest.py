"""64-bit, one rotating seed, and processes that live through many compiled programs."""

import os
from pathlib import Path

import jax
import jaxtyping
import pytest

# Shapes and types are checked against annotations at every call. Installed before our packages are
# imported; xdist's workers do not read the option `--jaxtyping-packages` from pyproject.toml.
ROOT = Path(__file__).parent.parent
jaxtyping.install_import_hook(
    ["generative", "inference", "analyses"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

from analyses.provenance import release  # noqa: E402

jax.config.update("jax_enable_x64", True)
# The same programs are compiled for many seeds and in two workers: share them.
CACHE = ROOT / ".pytest_cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# A compiled program holds dozens of memory maps, and Linux allows a process 65 530.
MOST_MAPS = 20_000


@pytest.fixture(autouse=True)
def _few_memory_maps():
    """Forget compiled programs before the process runs out of memory maps and crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        release()


@pytest.fixture
def wrong_types():
    """Turn the check of types off, for tests that hand over what no annotation allows."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def seed() -> int:
    """Return a seed that CONCORD_TEST_SEED rotates."""
    return int(os.environ.get("CONCORD_TEST_SEED", "0"))
