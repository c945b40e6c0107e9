"""64-bit, and one rotating seed."""

import os

import jax
import pytest

jax.config.update("jax_enable_x64", True)


@pytest.fixture
def seed() -> int:
    """Return a seed that CONCORD_TEST_SEED rotates."""
    return int(os.environ.get("CONCORD_TEST_SEED", "0"))
