"""The command line's grammar: what can be told of it without importing what a command needs."""

import argparse
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

BENCHMARKS = (
    "price",
    "posteriors",
    "calibration",
    "normalizer",
    "evidence",
    "bracket",
    "sgld",
    "start_up",
    "device",
)
ANALYSES = {
    "first_posterior": "FirstPosterior",
    "alternating": "Alternating",
    "bit_ledger": "BitLedger",
    "head_pairs": "HeadPairs",
    "bits_saved": "BitsSaved",
    "label_errors": "LabelErrors",
    "comparisons": "Comparisons",
    "routing": "Routing",
    "sensitivity": "Sensitivity",
}
PROBLEMS = (
    *("linear_gaussian", "double_well", "rotated_wells", "separate_wells", "tilted_wells"),
    *("gaussian_mixture", "indicator", "singular_product", "spike_and_slab"),
    *("digits", "jevons", "room"),
)
# The names in inference.backends.registry; the first is the default.
BACKENDS = ("hmc", "sgld", "nested", "smc", "map", "rejection-gibbs")
# Flags of `concord run`, and what stands before the dot in those that have one.
RUN_FLAGS = ("backend", "setup", "seed", "out", "resume", "checkpoint-seconds", "config", "help")
RUN_SECTIONS = ("problem", *BACKENDS)


NO_CACHE = "--no-cache"


class Refused(ValueError):
    """A command line that cannot be used; one sentence."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message} (see {self.prog} --help)")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line, but for the options of `run` and `analyse`, which come as `rest`.

    Raises
    ------
    Refused
    """
    parser = _Parser(
        prog="concord", description="Two-stage models of honest and human-imitating heads."
    )
    parser.add_argument(
        NO_CACHE,
        dest="cache",
        action="store_false",
        help="compile everything anew; else compiled programs are kept in a private folder, "
        "1 GiB at most",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("problems", help="list the problems, with what is known exactly")
    run = commands.add_parser("run", help="estimate a posterior", add_help=False)
    run.add_argument("problem", metavar="PROBLEM", help="a name, or module:function")
    compare = commands.add_parser("compare", help="runs side by side: one table, one figure")
    compare.add_argument("directories", metavar="DIR", nargs="+", type=Path)
    compare.add_argument("--figure", type=Path, default=Path("comparison.png"))
    report = commands.add_parser("report", help="one self-contained HTML page")
    report.add_argument(
        "directories", metavar="DIR", nargs="+", type=Path, help="run folders, or folders of them"
    )
    report.add_argument("--out", type=Path, default=None, help="by default DIR/report.html")
    analyse = commands.add_parser("analyse", help="an analysis by name", add_help=False)
    analyse.add_argument("name", metavar="NAME", help=", ".join(ANALYSES))
    benchmark = commands.add_parser("benchmark", help="a benchmark by name")
    benchmark.add_argument("name", choices=BENCHMARKS)
    benchmark.add_argument("--out", type=Path, default=None, help="Markdown file to write")
    cache = NO_CACHE not in arguments
    arguments = [argument for argument in arguments if argument != NO_CACHE]
    for name, own in (("run", run), ("analyse", analyse)):
        if arguments[:1] == [name]:
            parsed = _with_rest(name, arguments[1:], own)
            break
    else:
        parsed = parser.parse_args(arguments)
    parsed.cache = cache
    return parsed


def _with_rest(
    command: str, arguments: Sequence[str], parser: argparse.ArgumentParser
) -> argparse.Namespace:
    """Take a name, and leave the options to what the name stands for."""
    what = {"run": "PROBLEM", "analyse": "NAME"}[command]
    if arguments and arguments[0] in ("-h", "--help"):
        parser.print_help()
        print(f"\noptions: concord {command} {what} --help")
        raise SystemExit(0)
    known = PROBLEMS if command == "run" else tuple(ANALYSES)
    allowed = ", ".join(known) + (", or module:function" if command == "run" else "")
    if not arguments or arguments[0].startswith("-"):
        found = arguments[0] if arguments else "nothing"
        raise Refused(f"{what}: found {found}; allowed: {allowed}")
    name, *rest = arguments
    if name not in known and not (command == "run" and ":" in name):
        raise Refused(f"{what}: found {name!r}; allowed: {allowed}{_meant(name, known)}")
    if command == "run":
        _check_run_flags(name, rest)
    return argparse.Namespace(command=command, name=name, rest=rest)


def _check_run_flags(name: str, arguments: Sequence[str]) -> None:
    """Refuse flags and choices that are wrong whatever the problem is."""
    for flag in flags_in(arguments):
        section, dot, _ = flag.partition(".")
        if section not in (RUN_SECTIONS if dot else RUN_FLAGS):
            known = [*RUN_FLAGS, *(f"{section}.OPTION" for section in RUN_SECTIONS)]
            refuse_flag(flag, known, f"concord run {name}")
    chosen = _backends_in(arguments)
    for value in chosen:
        if value not in BACKENDS:
            allowed = ", ".join(BACKENDS) + _meant(value, BACKENDS)
            raise Refused(f"backend: found {value!r}; allowed: {allowed}")
    if chosen or "config" not in flags_in(arguments):  # which may name another
        require_options_of([BACKENDS[0], *chosen][-1], arguments)


def require_options_of(backend: str, arguments: Iterable[str]) -> None:
    """Refuse flags of a backend that does not run, which would be ignored.

    Raises
    ------
    Refused
    """
    for flag in flags_in(arguments):
        section, dot, _ = flag.partition(".")
        if dot and section in BACKENDS and section != backend:
            raise Refused(f"--{flag}: an option of {section}, and the backend is {backend}")


def _backends_in(arguments: Sequence[str]) -> list[str]:
    """Values of `--backend` among arguments."""
    values = []
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag == "--backend" and (equals or index + 1 < len(arguments)):
            values.append(value if equals else arguments[index + 1])
    return values


def flags_in(arguments: Iterable[str]) -> list[str]:
    """Names of the flags among arguments, without dashes before, with dashes within."""
    flags = (a.partition("=")[0] for a in arguments if a.startswith("--") and a != "--")
    return [flag.removeprefix("--").replace("_", "-") for flag in flags]


def refuse_flag(flag: str, known: Iterable[str], command: str) -> NoReturn:
    """Refuse an unknown flag; name those that are closest to it.

    Raises
    ------
    Refused
    """
    close = difflib.get_close_matches(flag, list(known), n=3, cutoff=0.5)
    meant = f"; closest: {', '.join(f'--{name}' for name in close)}" if close else ""
    raise Refused(f"--{flag}: no such flag{meant} (see {command} --help)")


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; closest: {close[0]}" if close else ""
