"""The commands themselves, each from its parsed command line to an exit code."""

import argparse
import importlib
import json
import sys
from collections.abc import Callable

import jax

from analyses.cells import on_dask, one_by_one, provenance
from analyses.command_line import ANALYSES
from analyses.configuration import parse_analysis, parse_run
from analyses.files import require_figure, require_file
from analyses.summary import summarize
from generative import AgreementNotReached, IntractableNormalizer, InvalidInput, problems
from generative.setups import set_up
from generative.user_code import blame, place_of
from inference import NonFiniteState, Result, infer
from inference.running.folder import refuse_occupied, require_writable


def execute(parsed: argparse.Namespace) -> int:
    """Run a command; return its exit code, see :func:`analyses.__main__.main`."""
    jax.config.update("jax_enable_x64", True)
    try:
        return _COMMANDS[parsed.command](parsed)
    except InvalidInput as error:
        print(f"concord: {error}", file=sys.stderr)
        return 2
    except (NonFiniteState, AgreementNotReached, IntractableNormalizer) as error:
        print(f"concord: {error}", file=sys.stderr)
        return 1


def _problems(parsed: argparse.Namespace) -> int:
    for name in problems.names():
        problem = problems.get(name)
        known = ", ".join(problem.truth.known) or "nothing"
        print(f"{name}: {problem.description}\n    d = {problem.model.dimension}; exact: {known}")
    return 0


def _run(parsed: argparse.Namespace) -> int:
    name = parsed.name
    sys.path.insert(0, "")  # a user's own problem may lie in the working directory
    options = parse_run(name, parsed.rest)
    if options.out is not None and not options.resume:
        refuse_occupied(options.out)
        require_writable(options.out, "out")
    chosen = options.problem.model_dump()
    recorded = json.loads(json.dumps(chosen, default=str))
    problem = problems.get(name, **chosen)
    try:
        run = infer(
            set_up(problem.model, options.setup),
            options.chosen,
            seed=options.seed,
            directory=options.out,
            resume=options.resume,
            checkpoint_seconds=options.checkpoint_seconds,
            provenance=provenance(name, recorded, options.setup),
        )
    except (Exception, SystemExit) as error:
        if isinstance(error, NonFiniteState) or place_of(error) is None:
            raise
        with blame("problem", f"functions of {name} that can be computed at any theta"):
            raise
    print(summarize(run))
    if options.out is not None:
        print(f"run folder: {options.out}")
    return 0 if run.result is Result.converged else 1


def _compare(parsed: argparse.Namespace) -> int:
    from analyses.compare import compare

    require_figure("figure", parsed.figure)
    print(compare(parsed.directories, parsed.figure))
    print(f"figure: {parsed.figure}")
    return 0


def _report(parsed: argparse.Namespace) -> int:
    from analyses.report import report

    require_file("out", parsed.out or parsed.directories[0] / "report.html")
    print(f"report: {report(parsed.directories, parsed.out)}")
    return 0


def _analyse(parsed: argparse.Namespace) -> int:
    from analyses.analysis import CONCLUSION, perform

    chosen = getattr(importlib.import_module(f"analyses.{parsed.name}"), ANALYSES[parsed.name])
    analysis, options = parse_analysis(chosen, parsed.rest)
    require_writable(options.out, "out")
    runner = one_by_one if options.dask is None else on_dask(options.dask)
    perform(analysis, options.out, runner, options.resume)
    print((options.out / CONCLUSION).read_text())
    print(f"folder: {options.out}")
    return 0


def _benchmark(parsed: argparse.Namespace) -> int:
    if parsed.out is not None:
        require_file("out", parsed.out)
    module = importlib.import_module(f"analyses.benchmarks.{parsed.name}")
    return module.main(parsed.out)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "problems": _problems,
    "run": _run,
    "compare": _compare,
    "report": _report,
    "analyse": _analyse,
    "benchmark": _benchmark,
}
