"""Errors in code that the user wrote, and where they are, in one sentence."""

import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.errors import JAXTypeError

from generative.errors import AgreementNotReached, IntractableNormalizer, InvalidInput

_HOUSE = Path(__file__).parent.parent
_OURS = tuple(f"{_HOUSE / package}/" for package in ("generative", "inference", "analyses"))
_LIBRARIES = tuple(
    f"{Path(sysconfig.get_path(name))}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_LONGEST = 200


@contextmanager
def blame(field: str, allowed: str) -> Iterator[None]:
    """Turn what the user's code raises, an exit among them, into one sentence.

    Parameters
    ----------
    field : str
        The name under which the user gave the code.
    allowed : str
        What it should do.

    Raises
    ------
    InvalidInput
        With the user's own exception as its cause.
    """
    try:
        yield
    except (InvalidInput, IntractableNormalizer, AgreementNotReached):
        raise
    except (Exception, SystemExit) as error:
        raise InvalidInput(field, describe(error), allowed) from error


def describe(error: BaseException) -> str:
    """Return an exception's type and first line, and the file and line of the user's own error."""
    said, place = str(error), place_of(error)
    if isinstance(error, SyntaxError) and error.filename is not None:
        said, place = error.msg, (error.filename, error.lineno)
    message = said.strip().split("\n")[0][:_LONGEST]
    words = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return words if place is None else f"{words} ({place[0]}, line {place[1]})"


def place_of(error: BaseException) -> tuple[str, int | None] | None:
    """Return file and line of the innermost frame that is neither ours nor a library's."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        # Compiled libraries leave the relative paths of their sources.
        library = frame.filename.endswith((".pyx", ".pxd")) or "/site-packages/" in frame.filename
        if not (library or frame.filename.startswith(("<frozen", *_OURS, *_LIBRARIES))):
            return frame.filename, frame.lineno
    return None


def require_callable(name: str, given: Any, signature: str) -> None:
    """Refuse what cannot be called.

    Raises
    ------
    InvalidInput
    """
    if not callable(given):
        raise InvalidInput(name, repr(given)[:_LONGEST], f"a callable, {signature}")


def traced(name: str, function: Callable[..., Any], *arguments: Any) -> jax.ShapeDtypeStruct:
    """Return shape and dtype of what a user's function returns, without computing it.

    Parameters
    ----------
    name : str
        The name under which the user gave the function.
    function : callable
    *arguments : pytrees
        Only their shapes and dtypes are used.

    Raises
    ------
    InvalidInput
        If the function raises, cannot be traced, or does not return one array of numbers.
    """
    with blame(name, "a function of theta, written with jax.numpy, that returns an array"):
        try:
            found = jax.eval_shape(function, *arguments)
        except JAXTypeError as error:
            words = "a function that JAX cannot trace: " + describe(error)
            allowed = "jax.numpy and jax.lax, without NumPy or Python branches on theta"
            raise InvalidInput(name, words, allowed) from error
        except TypeError as error:
            if "is not a valid JAX type" not in str(error):
                raise
            allowed = "a function of theta that returns one array"
            raise InvalidInput(name, f"a result that is no array: {error}", allowed) from None
    if not isinstance(found, jax.ShapeDtypeStruct):
        words = f"a result of type {type(found).__name__}"
        raise InvalidInput(name, words, "a function of theta that returns one array")
    if not (jax.numpy.issubdtype(found.dtype, jax.numpy.number) or found.dtype == bool) or (
        jax.numpy.issubdtype(found.dtype, jax.numpy.complexfloating)
    ):
        raise InvalidInput(name, f"a result of dtype {found.dtype}", "real numbers")
    return found


def require_scalar(name: str, function: Callable[[Any], Any], theta_0: Any) -> None:
    """Refuse a function whose result at theta_0 is no scalar; nothing is computed.

    Raises
    ------
    InvalidInput
    """
    shape = traced(name, function, theta_0).shape
    if shape != ():
        raise InvalidInput(name, f"shape {shape} at theta_0", "a scalar")
