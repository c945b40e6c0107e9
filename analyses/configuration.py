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
    return _parse(options, default, arguments)


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


def _parse(options: type[BaseModel], default: Any, arguments: Sequence[str]) -> Any:
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(options, args=list(arguments), default=default, prog="concord run")
    except SystemExit as stop:
        if not stop.code:
            raise
        text = re.sub(r"\x1b\[[0-9;]*m", "", captured.getvalue())
        lines = [line.strip("│┃ ").strip() for line in text.splitlines()]
        useful = [line for line in lines if re.search(r"[A-Za-z0-9]", line)]
        useful = [line for line in useful if not line.startswith(("╭", "╰", "For full", "─"))]
        raise InvalidInput(
            "command line", " ".join(useful)[:300] or "an error", "concord run PROBLEM --help"
        ) from None
