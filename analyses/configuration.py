"""The command line's configuration: a problem's options and each backend's, from flags and TOML."""

import contextlib
import inspect
import io
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from analyses.analysis import Analysis
from generative import InvalidInput, problems
from generative.setups import Setup
from inference import HMC, SGLD, MaximumAPosteriori, NestedSampling, RejectionGibbs, TemperedSMC
from inference.backends.base import Backend

BackendName = Literal["hmc", "sgld", "nested", "smc", "map", "rejection-gibbs"]


class RunOptions(BaseModel):
    """Options of ``concord run``.

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
    hmc, sgld, nested, smc, map, rejection_gibbs
        Options of the backends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: BackendName = "hmc"
    setup: Setup = "two-stages"
    seed: int = 0
    out: Path | None = None
    resume: bool = False
    checkpoint_seconds: float = 60.0
    hmc: HMC = HMC()
    sgld: SGLD = SGLD()
    nested: NestedSampling = NestedSampling()
    smc: TemperedSMC = TemperedSMC()
    map: MaximumAPosteriori = MaximumAPosteriori()
    rejection_gibbs: RejectionGibbs = RejectionGibbs()

    @property
    def chosen(self) -> Backend:
        """The chosen backend's options."""
        return getattr(self, self.backend.replace("-", "_"))


def parse_run(name: str, arguments: Sequence[str]) -> RunOptions:
    """Parse the options of ``concord run NAME``.

    Returns
    -------
    RunOptions
        With an additional field `problem` for the problem's own options.

    Raises
    ------
    InvalidInput
        If a flag, a key or a value cannot be used.
    """
    problem = _problem_options(name)
    options = create_model("Options", __base__=RunOptions, problem=(problem, problem()))
    arguments, file = _without_config(arguments)
    default = _validate(options, _read_toml(file) if file else {})
    return _parse(options, default, arguments, "concord run")


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
    InvalidInput
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
    """Build a class from the signature of the problem's builder."""
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(problems.builder(name)).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        annotation = parameter.annotation
        if annotation is parameter.empty or isinstance(annotation, str):
            annotation = type(parameter.default) if parameter.default is not None else str
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (annotation, default)
    return create_model("Problem", __config__=ConfigDict(extra="forbid"), **fields)


def _without_config(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    rest = list(arguments)
    for index, argument in enumerate(rest):
        if argument == "--config" and index + 1 < len(rest):
            return rest[:index] + rest[index + 2 :], Path(rest[index + 1])
        if argument.startswith("--config="):
            return rest[:index] + rest[index + 1 :], Path(argument.partition("=")[2])
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
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(options, args=list(arguments), default=default, prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        text = re.sub(r"\x1b\[[0-9;]*m", "", captured.getvalue())
        lines = [line.strip("│┃ ").strip() for line in text.splitlines()]
        useful = [line for line in lines if re.search(r"[A-Za-z0-9]", line)]
        useful = [line for line in useful if not line.startswith(("╭", "╰", "For full", "─"))]
        raise InvalidInput(
            "command line", " ".join(useful)[:300] or "an error", f"{prog} --help"
        ) from None
