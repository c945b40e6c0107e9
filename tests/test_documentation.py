"""What the documentation shows is so: code runs and prints what it says, and flags exist."""

import ast
import contextlib
import doctest
import importlib
import io
import itertools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from analyses import command_line
from analyses.__main__ import main
from analyses.command_line import Refused
from analyses.configuration import parse_analysis, parse_run
from analyses.roles import pair_probabilities
from generative import InvalidInput
from inference import Run
from inference.backends.registry import BACKENDS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    str(path.relative_to(ROOT))
    for path in (
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
        *sorted([*DOCS.glob("*.md"), *DOCS.glob("benchmarks/*.md")]),
    )
]
# Pages, and modules with examples, whose programs take more than ten seconds to compile and run.
SLOW = {
    *("README.md", "docs/inference.md", "docs/maximum.md", "docs/results.md"),
    *("docs/your_own_problem.md", "inference.kernels.exchange.transported"),
}
# What a page takes for granted, from another page or from the sentence before.
_QUICK = """
from generative import problems
from inference import RejectionGibbs, infer
model = problems.get("double_well").model
backend = RejectionGibbs(evidence_particles=0)
"""
GIVEN = {
    "docs/conventions.md": "import jax.numpy as jnp; theta_0 = {'weight': jnp.zeros(3)}",
    "docs/long_runs.md": _QUICK,
    "docs/maximum.md": f"{_QUICK}run = infer(model, backend, progress=False)",
    "docs/results.md": f"""{_QUICK}
from gauge import gauge
infer(gauge(), backend, progress=False, directory="runs/gauge")
""",
}
# Needs a package that is not installed beside the tests.
LEFT_OUT = "to_anesthetic"
# Words and whole numbers must be those of the page. Other numbers may differ by a tenth: draws on
# another machine are others, and effective sample sizes the more so.
TOLERANCE = 0.1
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_REAL = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*(?:e[-+]?\d+)?|e[-+]?\d+)")


def text_of(page):
    return (ROOT / page).read_text()


def python_of(page):
    """Each Python block, padded to its line, with the text block that comes next and is printed."""
    blocks = list(_BLOCK.finditer(text_of(page)))
    for block, following in itertools.zip_longest(blocks, blocks[1:]):
        if block[1] == "python":
            line = block.string.count("\n", 0, block.start(2))
            expected = following[2] if following and following[1] == "text" else None
            yield "\n" * line + block[2], expected if "print(" in block[2] else None


def marked(names):
    return [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in names]


WITH_PYTHON = [page for page in PAGES if any(python_of(page))]


def commands_of(page):
    """Arguments of every `concord` and `make`, in blocks of shell and in the lines of text."""
    shell = "\n".join(block[2] for block in _BLOCK.finditer(text_of(page)) if block[1] == "sh")
    lines = shell.replace("\\\n", " ").splitlines()
    prose = _BLOCK.sub("", text_of(page))
    lines += [span for span in re.findall(r"`(concord [^`]+)`", prose) if not _is_pattern(span)]
    words = [shlex.split(line, comments=True) for line in lines]
    return [[Path(first).name, *rest] for first, *rest in filter(None, words)]


def _is_pattern(command):
    return re.search(r"\b[A-Z]{3,}\b|\.\.\.|mymodule", command) or len(command.split()) == 2


def parse(arguments):
    """Parse a command as `concord` does, and stop there."""
    parsed = command_line.parse(arguments)
    if parsed.command == "run":
        parse_run(parsed.name, parsed.rest)
    if parsed.command == "analyse":
        module = importlib.import_module(f"analyses.{parsed.name}")
        parse_analysis(getattr(module, command_line.ANALYSES[parsed.name]), parsed.rest)


def refusal(arguments):
    """Return what is wrong with a command, or nothing."""
    try:
        parse(arguments)
    except (Refused, InvalidInput) as error:
        return str(error)
    except SystemExit as stop:  # --help
        return str(stop.code or "")
    return ""


def printed_by(code, namespace, where):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, where, "exec"), namespace)
    return output.getvalue()


def assert_alike(found, expected):
    """Compare words and whole numbers exactly, and other numbers with a tolerance."""
    texts = [" ".join(_REAL.sub(" # ", text).split()) for text in (found, expected)]
    assert texts[0] == texts[1], f"{found}\n{expected}"
    numbers = [np.array(_REAL.findall(text), float) for text in (found, expected)]
    np.testing.assert_allclose(*numbers, rtol=TOLERANCE)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Someone who keeps the examples and the configurations of a page in their folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(DOCS / "examples"))


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("page", marked(WITH_PYTHON))
def test_python_runs_and_prints_what_the_page_says(page):
    namespace = {"__name__": "__main__"}
    exec(GIVEN.get(page, ""), namespace)
    for code, expected in python_of(page):
        if LEFT_OUT in code:
            continue
        found = printed_by(code, namespace, page)
        if expected is not None:
            assert_alike(found, expected)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_of_every_page_compiles_and_finds_its_imports(page):
    for code, _ in python_of(page):
        imports = (ast.Import, ast.ImportFrom)
        body = [node for node in ast.parse(code, page).body if isinstance(node, imports)]
        exec(compile(ast.Module(body, []), page, "exec"), {})


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)])
def test_commands_of_every_page_are_understood(page):
    for block in _BLOCK.finditer(text_of(page)):
        if block[1] == "toml":
            Path(block[2].splitlines()[0].removeprefix("# ")).write_text(block[2])
    targets = (ROOT / "Makefile").read_text().partition(".PHONY:")[2].splitlines()[0].split()
    for program, *arguments in commands_of(page):
        if program == "make":
            assert set(arguments) <= set(targets)
        if program == "concord":
            assert refusal(arguments) == ""


@pytest.mark.parametrize("page", PAGES)
def test_flags_in_the_text_exist(page):
    for flag in re.findall(r"`(--[a-z-]+\.[a-z-]+)[^`]*`", _BLOCK.sub("", text_of(page))):
        assert "no such flag" not in refusal(["run", "digits", flag])


def test_kinds_of_the_example_of_a_world(reader):
    """The human reads the float, and the pipes tell the truth also where both are deceived."""
    days = importlib.import_module("tank").cases(1000, sticks=0.3, seed=0)
    assert not days.tampered[days.of_kind("wrong")].any()
    assert days.tampered[days.of_kind("deceived")].all()
    np.testing.assert_array_equal(days.inputs[:, 0] > 0, days.bob_label)
    assert ((days.inputs[:, 3] > 0) == days.alice_label).mean() > 0.9


@pytest.mark.slow
def test_the_example_of_a_world_is_run_and_reported(reader, capsys):
    options = "--problem.num-small 6 --problem.num-held-out 8 --problem.scene 1 --problem.hidden 1"
    sampler = "--backend rejection-gibbs --rejection-gibbs.num-warmup 20"
    sampler += " --rejection-gibbs.num-draws 20 --rejection-gibbs.num-chains 2 --out tank"
    assert main(["run", "tank:Tank", *options.split(), *sampler.split()]) in (0, 1)
    assert "P(first right), held out deceived" in capsys.readouterr().out
    pairs = pair_probabilities(Run.load("tank").tree)["pair"]
    assert pairs.shape == (3, 3) and np.isclose(pairs.sum(), 1)
    assert main(["report", "tank"]) == 0
    assert "held out deceived" in Path("tank/report.html").read_text()


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_is_documented(name):
    assert f"`{name}`" in text_of("docs/choosing_a_backend.md")
    title = rf"^\.\. autoclass:: {BACKENDS[name].__name__}$"
    assert re.search(title, text_of("docs/api.md"), re.MULTILINE)


def modules_with_examples():
    for package in ("generative", "inference", "analyses"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if ">>> " in path.read_text():
                parts = path.relative_to(ROOT).with_suffix("").parts
                yield ".".join(parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", marked(modules_with_examples()))
def test_examples_in_docstrings(name):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert found.attempted > 0 and found.failed == 0


@pytest.mark.parametrize(
    ("found", "alike"),
    [
        ("mean 0.59, of 4 chains", True),
        ("mean  0.59, of\n4 chains", True),
        ("mean 0.70, of 4 chains", False),
        ("mean -0.59, of 4 chains", False),
        ("mean 0.59, of 5 chains", False),
        ("median 0.59, of 4 chains", False),
        ("mean 0.59, of 4 chains, 0.59", False),
        ("", False),
    ],
)
def test_other_output_is_told_apart(found, alike):
    with contextlib.nullcontext() if alike else pytest.raises(AssertionError):
        assert_alike(found, "mean 0.6, of 4 chains")


@pytest.mark.parametrize(
    "command",
    [
        "rnu double_well",
        "run double_wel",
        "run double_well --hmc.num-drawz 3",
        "run double_well --problem.stage laplace",
        "analyse routing --option x --out y",
        "benchmark postriors",
    ],
)
def test_other_commands_are_told_apart(command):
    assert refusal(command.split())
