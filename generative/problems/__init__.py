"""Named problems: ``get(name, **options)`` builds one, ``names()`` lists them."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from generative.errors import InvalidInput
from generative.problems.linear_gaussian import linear_gaussian
from generative.problems.problem import Problem, Truth
from generative.problems.shapes import gaussian_mixture, indicator, singular_product
from generative.problems.spike import spike_and_slab
from generative.problems.two_headed import TwoHeaded
from generative.problems.wells import double_well, rotated_wells, separate_wells, tilted_wells
from generative.problems.worlds import Digits, Jevons, Room

__all__ = ["Problem", "Truth", "builder", "get", "names"]

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
    if not colon:
        raise InvalidInput("problem", repr(name), f"{', '.join(names())}, or module:function")
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise InvalidInput("problem", f"no module {error.name!r}", "module:function") from None
    except AttributeError:
        raise InvalidInput(
            "problem", f"no {function!r} in module {module!r}", "module:function"
        ) from None


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
        If the name or an option is unknown.
    """
    build = builder(name)
    allowed = inspect.signature(build).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in allowed.values())
    for option in options:
        if option not in allowed and not takes_any:
            raise InvalidInput(
                f"problem.{option}", "an unknown option", ", ".join(allowed) or "none"
            )
    built = build(**options)
    if isinstance(built, TwoHeaded):
        built = built.build()
    if isinstance(built, Problem):
        return built
    from generative.model import TwoStageModel

    if not isinstance(built, TwoStageModel):
        raise InvalidInput("problem", type(built).__name__, "a Problem or a TwoStageModel")
    return Problem(name, built)
