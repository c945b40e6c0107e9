"""Programs that need another layout of devices than the suite's own."""

import os
import subprocess
import sys


def run_on_two_devices(program: str) -> None:
    """Run a program where JAX sees two devices; it must not fail."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
