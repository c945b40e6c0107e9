"""Named problems: ``get(name, **options)`` builds one, ``names()`` lists them."""

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from generative.errors import InvalidInput
from generative.model import TwoStageModel
from generative.problems.linear_gaussian import linear_gaussian
from generative.problems.problem import Problem, Truth
from generative.problems.shapes import gaussian_mixture, indicator, singular_product
from generative.problems.spike import spike_and_slab
from generative.problems.two_headed import TwoHeaded
from generative.problems.wells import double_well, rotated_wells, separate_wells, tilted_wells
from generative.problems.worlds import Digits, Jevons, Room
from generative.user_code import blame
from generative.values import require_kind

__all__ = ["Problem", "Truth", "builder", "get", "names", "signature_of"]

_BUILDERS: dict[str, Callable[..., Problem | TwoHeaded]] = {
    builder.__name__.lower(): builder
    for builder in (
        linear_gaussian,
        double_well,
        rotated_wells,
        separate_wells,
        tilted_wells,
        gaussian_mixture,
        indicator,
        singular_product,
        spike_and_slab,
        Digits,
        Jevons,
        Room,
    )
}


def names() -> list[str]:
    """Names that :func:`get` knows."""
    return list(_BUILDERS)


def builder(name: str) -> Callable[..., Problem | TwoHeaded]:
    """Return the function that builds a named problem, or the user's own ``module:function``.

    Raises
    ------
    InvalidInput
        If there is no such problem, module or function.
    """
    if name in _BUILDERS:
        return _BUILDERS[name]
    module, colon, function = name.partition(":")
    if not (colon and module and function):
        raise InvalidInput("problem", repr(name), f"{', '.join(names())}, or module:function")
    found = getattr(_imported(module), function, None)
    if found is None:
        raise InvalidInput("problem", f"no {function!r} in module {module!r}", "module:function")
    if not callable(found):
        allowed = "a function that returns a Problem or a TwoStageModel"
        raise InvalidInput("problem", f"{name} of type {type(found).__name__}", allowed)
    return found


def _imported(module: str) -> ModuleType:
    """Import the user's module; say where its own error is, if there is one."""
    if not all(part.isidentifier() for part in module.split(".")):
        raise InvalidInput("problem", f"{module!r}, no module's name", "module:function")
    with blame("problem", f"a module {module!r} that can be imported"):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            raise InvalidInput("problem", str(error), "module:function") from None


def get(name: str, **options: Any) -> Problem:
    """Build a named problem.

    Parameters
    ----------
    name : str
        One of :func:`names`, or ``module:function`` where the function returns a
        :class:`Problem` or a :class:`~generative.model.TwoStageModel`.
    **options
        Keyword arguments of the problem, such as ``d=20``.

    Raises
    ------
    InvalidInput
        If the name or an option is unknown or of another type, or the builder itself fails.

    Examples
    --------
    >>> problem = get("linear_gaussian", d=3)
    >>> problem.model.dimension
    3
    >>> problem.truth.mean_1.shape
    (3,)
    """
    if not isinstance(name, str):
        raise InvalidInput("problem", repr(name), "a string")
    build = builder(name)
    signature = signature_of(name)
    _check_options(signature, options)
    with blame("problem", f"options with which {name} can be built"):
        built = build(**options)
        if isinstance(built, TwoHeaded):
            built = built.build()
    if isinstance(built, Problem):
        return built
    if not isinstance(built, TwoStageModel):
        found = f"a result of type {type(built).__name__} from {name}"
        raise InvalidInput("problem", found, "a Problem or a TwoStageModel")
    return Problem(name, built)


def signature_of(name: str) -> inspect.Signature:
    """Return the options that a problem takes, with annotations resolved where they can be.

    Raises
    ------
    InvalidInput
        If there is no such problem, or its function takes arguments by position only.
    """
    build = builder(name)
    try:
        signature = inspect.signature(build, eval_str=True)
    except Exception:  # an annotation may be any expression
        signature = _plain_signature(name, build)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            found = f"{parameter.name!r} of {name}, by position only"
            raise InvalidInput("problem", found, "arguments that have names")
    return signature


def _plain_signature(name: str, build: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(build)
    except (TypeError, ValueError):
        raise InvalidInput("problem", f"{name} without a signature", "a function") from None


def _check_options(signature: inspect.Signature, options: dict[str, Any]) -> None:
    """Refuse unknown and missing options, and those of another type than the signature says."""
    allowed = {
        n: p
        for n, p in signature.parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for option, value in options.items():
        if option in allowed:
            require_kind(f"problem.{option}", value, allowed[option].annotation)
        elif not takes_any:
            words = ", ".join(allowed) or "none"
            raise InvalidInput(f"problem.{option}", "an unknown option", words)
    for name, parameter in allowed.items():
        if parameter.default is parameter.empty and name not in options:
            raise InvalidInput(f"problem.{name}", "no value", "a value: it has no default")
