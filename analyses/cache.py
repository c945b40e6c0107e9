"""Compiled programs, kept from one command to the next in a private folder of the user.

JAX and the processes that it starts read the environment when JAX is imported, so that this must
come first. What the user has set in the environment stays.
"""

import os

import platformdirs

_LARGEST = 2**30  # bytes; the programs that were used least recently go first


def keep_programs() -> None:
    """Keep compiled programs in the user's cache folder, 1 GiB at most."""
    folder = platformdirs.user_cache_path("concord") / "programs"
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(_LARGEST),
        # A program of a hundredth of a second is worth it, as there are hundreds of them.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # programs are run as they are found: nobody else may write them
    except (OSError, RuntimeError):
        return  # a home that is not there, or not one's own, only costs time
    os.environ.update({name: os.environ.get(name, value) for name, value in settings.items()})


def forget_programs() -> None:
    """Compile everything anew, and keep nothing."""
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
