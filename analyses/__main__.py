"""The command line: problems, run, compare, report, analyse, benchmark."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from generative import AgreementNotReached, IntractableNormalizer, InvalidInput, problems
from inference import NonFiniteState, Result, infer

_BENCHMARKS = ("price", "posteriors", "normalizer", "evidence", "sgld")
_ANALYSES = {
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0 for a usable result, 1 for a failed one, 2 for bad input.

    An analysis that was made returns 0: its conclusion names the runs whose checks failed.
    """
    jax.config.update("jax_enable_x64", True)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except InvalidInput as error:
        print(f"concord: {error}", file=sys.stderr)
        return 2
    except (NonFiniteState, AgreementNotReached, IntractableNormalizer) as error:
        print(f"concord: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("concord: interrupted; what has --out goes on with --resume", file=sys.stderr)
        return 1


def _dispatch(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="concord", description="Two-stage models of honest and human-imitating heads."
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
    analyse.add_argument("name", metavar="NAME", help=", ".join(_ANALYSES))
    benchmark = commands.add_parser("benchmark", help="a benchmark by name")
    benchmark.add_argument("name", choices=_BENCHMARKS)
    benchmark.add_argument("--out", type=Path, default=None, help="Markdown file to write")
    if arguments[:1] == ["run"]:
        return _run(arguments[1:], run)
    if arguments[:1] == ["analyse"]:
        return _analyse(arguments[1:], analyse)
    parsed = parser.parse_args(arguments)
    if parsed.command == "problems":
        return _problems()
    if parsed.command == "compare":
        from analyses.compare import compare as compare_runs

        print(compare_runs(parsed.directories, parsed.figure))
        print(f"figure: {parsed.figure}")
        return 0
    if parsed.command == "report":
        from analyses.report import report as write_report

        print(f"report: {write_report(parsed.directories, parsed.out)}")
        return 0
    module = importlib.import_module(f"analyses.benchmarks.{parsed.name}")
    return module.main(parsed.out)


def _analyse(arguments: list[str], parser: argparse.ArgumentParser) -> int:
    from analyses.analysis import CONCLUSION, perform
    from analyses.cells import on_dask, one_by_one
    from analyses.configuration import parse_analysis

    if arguments[:1] in (["-h"], ["--help"]):
        parser.print_help()
        print("\noptions: concord analyse NAME --help")
        return 0
    name, *rest = arguments or ["nothing"]
    if name not in _ANALYSES:
        raise InvalidInput("NAME", name, ", ".join(_ANALYSES))
    chosen = getattr(importlib.import_module(f"analyses.{name}"), _ANALYSES[name])
    analysis, options = parse_analysis(chosen, rest)
    runner = one_by_one if options.dask is None else on_dask(options.dask)
    perform(analysis, options.out, runner, options.resume)
    print((options.out / CONCLUSION).read_text())
    print(f"folder: {options.out}")
    return 0


def _problems() -> int:
    for name in problems.names():
        problem = problems.get(name)
        known = ", ".join(problem.truth.known) or "nothing"
        print(f"{name}: {problem.description}\n    d = {problem.model.dimension}; exact: {known}")
    return 0


def _run(arguments: list[str], parser: argparse.ArgumentParser) -> int:
    from analyses.cells import provenance
    from analyses.configuration import parse_run
    from analyses.summary import summarize
    from generative.setups import set_up

    if arguments[:1] in (["-h"], ["--help"]):
        parser.print_help()
        print("\noptions: concord run PROBLEM --help")
        return 0
    if not arguments or arguments[0].startswith("-"):
        parser.print_usage(sys.stderr)
        raise InvalidInput(
            "PROBLEM", arguments[:1] or "nothing", f"{', '.join(problems.names())}, module:function"
        )
    name, *rest = arguments
    sys.path.insert(0, "")  # a user's own problem may lie in the working directory
    options = parse_run(name, rest)
    chosen = options.problem.model_dump()
    problem = problems.get(name, **chosen)
    run = infer(
        set_up(problem.model, options.setup),
        options.chosen,
        seed=options.seed,
        directory=options.out,
        resume=options.resume,
        checkpoint_seconds=options.checkpoint_seconds,
        provenance=provenance(name, chosen, options.setup),
    )
    print(summarize(run))
    if options.out is not None:
        print(f"run folder: {options.out}")
    return 0 if run.result is Result.converged else 1


if __name__ == "__main__":
    raise SystemExit(main())
