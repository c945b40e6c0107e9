"""The command line's configuration: a problem's options and each backend's, from flags and TOML."""

import contextlib
import io
import re
import tomllib
from collections.abc import Sequence
from dataclasses import is_dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import tyro
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError

from analyses.analysis import Analysis
from analyses.command_line import Refused, flags_in, refuse_flag, require_options_of
from generative import InvalidInput, problems
from generative.setups import Setup
from inference.backends.base import Backend
from inference.backends.registry import BACKENDS

_LONGEST = 300
# What Tyro and Pydantic say after their errors.
_ADVICE = (
    *("Argument helptext", "Available subcommands", "Perhaps you meant", "For full helptext"),
    " [type=",
)


class RunOptions(BaseModel):
    """Options of ``concord run``; :func:`run_options` adds each backend's.

    Parameters
    ----------
    backend : str
        Which backend draws.
    setup : {"two-stages", "one-stage", "z-omitted"}
        The same data under other assumptions; the last is a labelled mistake.
    seed : int
        Of the draws.
    out : Path, optional
        The run folder to write.
    resume : bool
        Go on with the unfinished run in `out`, or return the finished one.
    checkpoint_seconds : float
        Between checkpoints, at least.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str = "hmc"
    setup: Setup = "two-stages"
    seed: int = 0
    out: Path | None = None
    resume: bool = False
    checkpoint_seconds: float = 60.0

    @property
    def chosen(self) -> Backend:
        """The chosen backend's options."""
        return getattr(self, _section(self.backend))


class OptionsWithProblem(RunOptions):
    """Options of ``concord run``, with the problem's own.

    Parameters
    ----------
    problem
        Options of the problem.
    """

    problem: BaseModel


def _section(backend: str) -> str:
    """Return the field, and the key in TOML, of a backend's options."""
    return backend.replace("-", "_")


def run_options(problem: type[BaseModel], default_problem: BaseModel) -> type[OptionsWithProblem]:
    """Return the options of ``concord run`` with those of every backend and of a problem."""
    fields: dict[str, Any] = {"backend": (Literal[tuple(BACKENDS)], "hmc")}
    fields |= {_section(name): (backend, backend()) for name, backend in BACKENDS.items()}
    fields["problem"] = (problem, default_problem)
    return create_model("Options", __base__=OptionsWithProblem, **fields)


def parse_run(name: str, arguments: Sequence[str]) -> OptionsWithProblem:
    """Parse the options of ``concord run NAME``.

    Returns
    -------
    OptionsWithProblem

    Raises
    ------
    InvalidInput, Refused
        If a flag, a key or a value cannot be used.
    """
    problem = _problem_options(name)
    unset = {n: tyro.MISSING for n, field in problem.model_fields.items() if field.is_required()}
    default_problem = problem.model_construct(**unset)
    options = run_options(problem, default_problem)
    arguments, file = _without_config(arguments)
    default = _validate(options, _read_toml(file) if file else {})
    parsed = _parse(options, default, arguments, f"concord run {name}")
    require_options_of(parsed.backend, arguments)
    return parsed


class AnalysisOptions(BaseModel):
    """Options of ``concord analyse`` beside the analysis' own.

    Parameters
    ----------
    out : Path
        The folder to write: new, or with `resume` that of the unfinished analysis.
    resume : bool
        Go on with what is in `out`.
    dask : str, optional
        Make the runs on a Dask cluster: `local`, or the address of a scheduler.
    """

    out: Path
    resume: bool = False
    dask: str | None = None


def parse_analysis(
    analysis: type[Analysis], arguments: Sequence[str]
) -> tuple[Analysis, AnalysisOptions]:
    """Parse the options of ``concord analyse NAME``.

    Raises
    ------
    InvalidInput, Refused
        If a flag, a key or a value cannot be used.
    """
    fields: dict[str, Any] = {
        name: (field.annotation, ...) if field.is_required() else (field.annotation, field.default)
        for name, field in AnalysisOptions.model_fields.items()
    }
    fields["out"] = (Path, Path())
    options = create_model("Options", __base__=analysis, **fields)
    options.__doc__ = analysis.__doc__
    arguments, file = _without_config(arguments)
    default = _validate(options, _read_toml(file) if file else {})
    prog = f"concord analyse {analysis.name}"
    values = _parse(options, default, arguments, prog)
    if values.out == Path():
        raise InvalidInput("out", "nothing", f"a new or empty folder: {prog} --out DIR")
    own = {name: getattr(values, name) for name in analysis.model_fields}
    others = {name: getattr(values, name) for name in AnalysisOptions.model_fields}
    return analysis(**own), AnalysisOptions(**others)


def _problem_options(name: str) -> type[BaseModel]:
    """Build a class from the signature of the problem's builder.

    An argument that has a default and a type without a form on the command line is left out.
    """
    fields: dict[str, Any] = {}
    for parameter in problems.signature_of(name).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        annotation = parameter.annotation
        if annotation is parameter.empty or isinstance(annotation, str):
            has_default = parameter.default not in (None, parameter.empty)
            annotation = type(parameter.default) if has_default else str
        is_required = parameter.default is parameter.empty
        if parameter.name.startswith("_") or not _has_form(annotation):
            if is_required:
                found = f"the annotation {annotation}"
                allowed = "int, float, bool, str, Path or Literal, or a default"
                raise InvalidInput(f"problem.{parameter.name}", found, allowed)
            continue
        fields[parameter.name] = (annotation, ... if is_required else parameter.default)
    config = ConfigDict(extra="forbid", protected_namespaces=())
    return create_model("Problem", __config__=config, **fields)


def _has_form(annotation: Any) -> bool:
    """Whether text and TOML values can be read as a type."""
    if annotation in (Any, object):
        return False
    try:
        TypeAdapter(annotation)
    except (PydanticUserError, TypeError, NameError):
        return False
    return True


def _without_config(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    rest = list(arguments)
    for index, argument in enumerate(rest):
        if argument == "--config" and index + 1 < len(rest):
            return rest[:index] + rest[index + 2 :], Path(rest[index + 1])
        if argument.startswith("--config="):
            return rest[:index] + rest[index + 1 :], Path(argument.partition("=")[2])
    if rest[-1:] == ["--config"]:
        raise InvalidInput("config", "nothing", "--config FILE.toml")
    return rest, None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError:
        raise InvalidInput("config", f"no file {path}", "a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("config", f"{path}: {error}", "a TOML file") from None


def _validate(options: type[BaseModel], values: dict[str, Any]) -> Any:
    renamed = {name.replace("-", "_"): value for name, value in values.items()}
    try:
        return options(**renamed)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InvalidInput(name, repr(first["input"]), first["msg"]) from None


def _parse(options: type[BaseModel], default: Any, arguments: Sequence[str], prog: str) -> Any:
    known = _flags(options)
    for flag in flags_in(arguments):
        if flag != "help" and not any(fnmatchcase(flag, pattern) for pattern in known):
            refuse_flag(flag, known, prog)
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(options, args=list(arguments), default=default, prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        text = re.sub(r"\x1b\[[0-9;]*m", "", captured.getvalue())
        raise Refused(f"{_sentence(text)} (see {prog} --help)") from None


def _sentence(text: str) -> str:
    """Return what Tyro says of an error, in one line, without title, frame and advice."""
    lines = [line.strip("│┃ ").strip() for line in text.splitlines()[1:]]
    sentence = " ".join(line for line in lines if re.search(r"[A-Za-z0-9]", line))
    for advice in _ADVICE:
        sentence = sentence.partition(advice)[0].strip()
    missing = re.fullmatch(r"Missing from .*?: (--\S+) .*\(required\)", sentence)
    if missing:
        return f"{missing[1]}: no value, and no default"
    # What a backend's own check says needs no frame.
    sentence = re.sub(r"^Error parsing \S+: (?=\S+: found )", "", sentence)
    return sentence[:_LONGEST] or "an error"


def _flags(annotation: Any, prefix: str = "") -> list[str]:
    """Names of the flags that Tyro makes of a type; patterns where it has keys of its own."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        dot = f"{prefix}." if prefix else ""
        return [
            flag
            for name, field in fields
            for flag in _flags(field.annotation, dot + name.replace("_", "-"))
        ]
    stem, _, last = prefix.rpartition(".")
    found = [prefix]
    if annotation is bool:
        found.append(f"{stem}.no-{last}" if stem else f"no-{last}")
    for inner in get_args(annotation):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += _flags(inner, prefix)
    if is_dataclass(annotation) or get_origin(annotation) is dict:
        found.append(f"{prefix}.*")
    return found
