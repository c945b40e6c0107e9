"""Wrong command lines: exit code 2, one line, no traceback, nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses import command_line
from analyses.__main__ import main
from analyses.configuration import RunOptions
from generative import problems
from inference.backends.registry import BACKENDS

ROOT = Path(__file__).parent.parent
FEW = settings(max_examples=25, deadline=None, derandomize=True)

MINE = '''
import sys
import jax.numpy as jnp
import numpy as np
from generative import problems

value = 3
calls = []


def well(d: int = 3, table: np.ndarray = None, _hidden: int = 1):
    return problems.get("double_well")


def needs(n: int, path):
    return problems.get("double_well")


def untyped(n=object()):
    return problems.get("double_well")


def by_position(n, /):
    return problems.get("double_well")


def fails():
    return 1 / 0


def exits():
    sys.exit(0)


def other():
    return 3


def late():
    """Fails when it is computed away from theta_0 only."""

    def log_likelihood(theta):
        calls.append(1)
        if len(calls) > 4:
            sys.exit(0)
        return -theta[0] ** 2

    return problems.get("double_well").model.replace(log_likelihood=log_likelihood)


def negative():
    return problems.get("double_well").model.replace(disagreement=lambda t: t[0])
'''


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Return a function that runs a command which must be refused, and returns its one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("mine", "syntax", "raises", "leaves", "imports"):
        sys.modules.pop(name, None)

    def run(command: str | list[str]) -> str:
        before = sorted(tmp_path.rglob("*"))
        arguments = command.split() if isinstance(command, str) else command
        assert main(arguments) == 2, command
        found = capsys.readouterr()
        (line,) = found.err.strip().splitlines()
        assert line.startswith("concord: ") and "Traceback" not in line and not found.out
        after = [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts]
        assert after == [path for path in before if "__pycache__" not in path.parts]
        return line

    return run


def lines_with(text: str) -> int:
    return next(i for i, line in enumerate(MINE.splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "COMMAND"),
        ("nothing", "run"),
        ("--colour", "COMMAND"),
        ("problems --colour", "--colour"),
        ("run", "PROBLEM"),
        ("run double_well --smc.num-runs 4", "backend is hmc"),
        ("run double_well --backend=sgld --smc.num_runs 4", "backend is sgld"),
        ("run double_well --hmc.num-draws 4 --backend smc", "backend is smc"),
        ("run --backend hmc", "PROBLEM"),
        ("run nothing", "double_well"),
        ("run double_wel", "closest: double_well"),
        ("run double_well --bakend hmc", "--backend"),
        ("run double_well --backend hmcc", "hmc"),
        ("run double_well --backend=guess", "hmc"),
        ("run double_well --backend", "--backend"),
        ("run double_well --setup three", "two-stages"),
        ("run double_well --hmc.num-drws 3", "--hmc.num-draws"),
        ("run double_well --hmc.num_drws=3", "--hmc.num-draws"),
        ("run double_well --hcm.num-draws 3", "--hcm.num-draws"),
        ("run double_well --sgld.schedule.x 3", "--sgld.schedule"),
        (
            "run double_well --backend sgld sgld.schedule:polynomial --sgld.schedule.power 2",
            "less than",
        ),
        ("run double_well --problem.d 3", "--problem.d"),
        ("run double_well stray", "stray"),
        ("run double_well --hmc.num-draws", "--hmc.num-draws"),
        ("run double_well --hmc.num-draws many", "many"),
        ("run double_well --hmc.num-draws 2.5", "2.5"),
        ("run double_well --hmc.num-draws 1", "num_draws"),
        ("run double_well --hmc.num-chains 0", "num_chains"),
        ("run double_well --hmc.num-chains 1", "one chain"),
        ("run double_well --backend sgld --sgld.num-chains 1", "one chain"),
        ("run double_well --hmc.num-chains 1000000000", "memory"),
        ("run double_well --hmc.num-draws 1000000000000", "memory"),
        ("run double_well --hmc.kernel leapfrog", "nuts"),
        ("run double_well --hmc.target-acceptance 1.5", "target_acceptance"),
        ("run double_well --problem.form x", "residuals"),
        ("run rotated_wells --problem.d 2.5", "2.5"),
        ("run rotated_wells --problem.d -1", "problem.d"),
        ("run rotated_wells --problem.d 0", "found 0"),
        ("run rotated_wells --problem.d x", "'x'"),
        ("run linear_gaussian --problem.noise nan", "noise"),
        ("run linear_gaussian --problem.closed-form perhaps", "perhaps"),
        ("run double_well --seed -1", "seed"),
        ("run double_well --seed x", "seed"),
        ("run double_well --checkpoint-seconds nan", "checkpoint_seconds"),
        ("run double_well --checkpoint-seconds -1", "checkpoint_seconds"),
        ("run double_well --config", "config"),
        ("run double_well --config missing.toml", "missing.toml"),
        ("run double_well --config .", "config"),
        (f"run double_well --out {__file__}", "other files"),
        (f"run double_well --out {__file__}/below", "out"),
        (f"run double_well --resume --out {__file__}/below", "directory"),
        ("run double_well --out /proc/nothing/here", "out"),
        ("run :f", "module:function"),
        ("run mine:", "module:function"),
        ("run no.module:f", "no"),
        ("run ../mine:well", "module"),
        ("compare", "DIR"),
        ("compare a", "two or more"),
        ("compare a b", "a"),
        ("compare a b --figure x.pdf", ".png"),
        ("compare a b --figure .", ".png"),
        (f"compare a b --figure {__file__}/x.png", "figure"),
        ("compare a b --figre x.png", "--figre"),
        ("report", "DIR"),
        ("report a", "a"),
        (f"report . --out {__file__}/x.html", "out"),
        ("report . --out .", "out"),
        ("analyse", "NAME"),
        ("analyse nothing", "bit_ledger"),
        ("analyse bit_ledger", "--out"),
        ("analyse bit_ledger --colour 3", "--colour"),
        (f"analyse bit_ledger --out {__file__}/x", "out"),
        ("benchmark", "name"),
        ("benchmark nothing", "price"),
        (f"benchmark price --out {__file__}/x.md", "out"),
        ("benchmark price --out .", "out"),
    ],
)
def test_commands(command, words, refused):
    assert words in refused(command)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run mine:nothing", "no 'nothing'"),
        ("run mine:value", "int"),
        ("run mine:other", "int"),
        ("run mine:fails", "ZeroDivisionError: division by zero"),
        ("run mine:exits", "SystemExit: 0"),
        ("run mine:late", "SystemExit: 0"),
        ("run mine:negative", "at theta = ("),
        ("run mine:needs --problem.n 3", "--problem.path: no value"),
        ("run mine:needs --problem.n x --problem.path y", "'x'"),
        ("run mine:needs --problem.n 3 --problem.path y --hmc.num-chains 1", "one chain"),
        ("run mine:well --problem.d 4 --hmc.num-chains 1", "one chain"),
        ("run mine:well --problem.table 4", "--problem.table"),
        ("run mine:untyped --hmc.num-chains 1", "one chain"),
        ("run mine:by_position", "by position"),
    ],
)
def test_a_module_of_ones_own(command, words, refused, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    assert words in refused(command)


@pytest.mark.parametrize(
    ("command", "text"),
    [("mine:fails", "1 / 0"), ("mine:exits", "    sys.exit(0)"), ("mine:late", "     sys.exit(0)")],
)
def test_where_ones_own_error_is(command, text, refused, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    assert f"({path}, line {lines_with(text)})" in refused(f"run {command}")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("syntax", "x = (\n", "SyntaxError"),
        ("raises", "\n\nraise RuntimeError('no\\nsuch luck')\n", "RuntimeError: no"),
        ("leaves", "raise SystemExit(0)\n", "SystemExit: 0"),
        ("imports", "import no_such_module\n", "no_such_module"),
    ],
)
def test_modules_that_cannot_be_imported(name, text, words, refused, tmp_path):
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    line = refused(f"run {name}:f")
    assert words in line and f"({path}, line " in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 1\n", "colour"),
        ("backend = 3\n", "backend"),
        ("[hmc]\ncolour = 1\n", "colour"),
        ("[hmc]\nnum_draws = 'many'\n", "num_draws"),
        ("hmc = 3\n", "hmc"),
        ("[problem]\nd = 3\n", "problem"),
        ("backend = \n", "run.toml"),
        ("\0", "run.toml"),
        ("seed = -1\n", "seed"),
    ],
)
def test_configurations(text, words, refused, tmp_path):
    (tmp_path / "run.toml").write_text(text)
    assert words in refused("run double_well --config run.toml")


def test_options_of_another_backend_than_the_configuration_has(refused, tmp_path):
    (tmp_path / "run.toml").write_text("backend = 'sgld'\n")
    line = refused("run double_well --config run.toml --smc.num-runs 4")
    assert "--smc.num-runs" in line and "backend is sgld" in line


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", "3", "null", "{}", json.dumps({"config.json": "0"})]
)
def test_damaged_run_folders(manifest, refused, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(manifest)
    refused("compare one two")
    refused("report one")
    refused("run double_well --out one")
    refused("run double_well --out one --resume")


@FEW
@given(st.text(alphabet="abcdehmnrsw-._", min_size=1, max_size=12), st.sampled_from(["", "x"]))
def test_flags_that_do_not_exist(flag, value):
    known = {*command_line.RUN_FLAGS, "no-resume"}
    if flag.replace("_", "-") not in known and not flag.startswith("-"):
        assert main(["run", "double_well", f"--{flag}", *([value] if value else [])]) == 2


@FEW
@given(st.sampled_from(list(BACKENDS)), st.data())
def test_values_that_are_no_numbers(section, data):
    fields = BACKENDS[section].model_fields
    numbers = [n for n, f in fields.items() if f.annotation in (int, float)]
    flag = data.draw(st.sampled_from(numbers)).replace("_", "-")
    value = data.draw(st.sampled_from(["x", "1,5", "nan", "inf", "-1", "", "1e", "None", "0x"]))
    command = ["run", "double_well", "--backend", section, f"--{section}.{flag}={value}"]
    assert main(command) == 2


def test_help_and_refusals_import_nothing_that_is_slow():
    program = (
        "import sys\n"
        "from analyses.__main__ import main\n"
        "try:\n"
        "    code = main(sys.argv[1:])\n"
        "except SystemExit as stop:\n"
        "    code = stop.code\n"
        "slow = {'jax', 'numpyro', 'numpy', 'arviz'} & set(sys.modules)\n"
        "assert not slow, slow\n"
        "sys.exit(code)\n"
    )
    expected = {"--help": 0, "run --help": 0, "": 2, "run double_well --bakend hmc": 2}
    for command, code in expected.items():
        arguments = [sys.executable, "-c", program, *command.split()]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr


def test_what_the_grammar_knows_is_what_there_is():
    assert list(command_line.PROBLEMS) == problems.names()
    assert list(command_line.BACKENDS) == list(BACKENDS)
    assert RunOptions.model_fields["backend"].default == command_line.BACKENDS[0]
    fields = [name.replace("_", "-") for name in RunOptions.model_fields]
    assert set(fields) == {*command_line.RUN_FLAGS} - {"config", "help"}
