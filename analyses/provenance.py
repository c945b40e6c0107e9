"""Where, when and with what a page of results was made."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import jax

_PACKAGES = ("jax", "numpyro", "blackjax", "arviz")


def heading(title: str, command: str, precision: str = "float64") -> str:
    """Return a page's title with its command, machine, versions and date."""
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in _PACKAGES)
    device = jax.devices()[0].device_kind
    return "\n".join(
        [
            f"# {title}",
            "",
            f"Made by `{command}` on {datetime.date.today().isoformat()}: {os.cpu_count()} cores, "
            f"{platform.machine()}, device {device}, Python {platform.python_version()}, "
            f"{versions}, {precision}.",
            "",
        ]
    )


def publish(page: str, out: Path | None) -> None:
    """Print a page, and write it where asked."""
    print(page)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page + "\n")


def release() -> None:
    """Forget compiled programs: each maps memory, of which a process may have so many pieces."""
    jax.clear_caches()
