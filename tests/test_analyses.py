"""Analyses: which function a head is, and every analysis from configuration to conclusion."""

import json

import numpy as np
import pytest
import xarray as xr

from analyses.__main__ import main
from analyses.alternating import Alternating
from analyses.analysis import perform
from analyses.bit_ledger import BitLedger
from analyses.bits_saved import BitsSaved
from analyses.cells import on_dask, one_by_one
from analyses.comparisons import Comparisons
from analyses.first_posterior import FirstPosterior
from analyses.head_pairs import HeadPairs
from analyses.label_errors import LabelErrors
from analyses.roles import pair_probabilities, scores
from analyses.routing import Routing
from analyses.sensitivity import Sensitivity
from analyses.worlds import difference, verdict
from generative import InvalidInput, problems
from generative.ledger import FUNCTIONS, Assumptions
from inference import HMC, MaximumAPosteriori, Run, TemperedSMC, infer

TINY = {"num_small": 6, "num_held_out": 8, "scene": 1, "human": 1, "hidden": 1}
DRAW = HMC(
    kernel="exchange", num_warmup=60, num_draws=60, num_chains=2, max_doublings=0,
    evidence_particles=0,
)  # fmt: skip
CLIMB = MaximumAPosteriori(num_warmup=160, num_steps=160, num_starts=2, num_ledger_points=0)
SMC = TemperedSMC(
    num_particles=16, max_particles=16, num_draws=16, num_runs=2, num_moves=2, max_doublings=0
)


@pytest.fixture(scope="module")
def run():
    return infer(problems.get("jevons", **TINY).model, DRAW, progress=False)


@pytest.fixture(scope="module")
def runner(run):
    """Give one run to all cells: what analyses do with runs costs no runs."""

    def give(cells, folder, seed):
        return {cell.name: run for cell in cells}

    return give


def tree_of(answers):
    """A tree whose heads answer `answers[head]` to the questions of both kinds, in all draws."""
    labels = {
        "wrong": {"alice_label": [1, 0, 1], "kept_label": [1, 0, 1], "bob_label": [0, 1, 0]},
        "deceived": {"alice_label": [1, 0], "kept_label": [0, 1], "bob_label": [0, 1]},
    }
    constants = {
        f"{column}_held_out_{kind}": (f"question_held_out_{kind}", np.array(values))
        for kind, columns in labels.items()
        for column, values in columns.items()
    }
    coords = {"head": ["first", "second"]}
    predictive = {}
    for kind, columns in labels.items():
        name = {"intended": "alice_label", "complex": "kept_label", "simple": "bob_label"}
        yes = np.array([columns[name[function]] for function in answers], float)
        drawn = np.broadcast_to(0.1 + 0.8 * yes, (2, 50, *yes.shape))
        dims = ("chain", "draw", "head", f"question_held_out_{kind}")
        predictive[f"held_out_{kind}"] = (dims, drawn)
    lp = np.random.default_rng(0).normal(size=(2, 50))
    return xr.DataTree.from_dict(
        {
            "posterior_predictive": xr.Dataset(predictive, coords=coords),
            "constant_data": xr.Dataset(constants),
            "sample_stats": xr.Dataset({"lp": (("chain", "draw"), lp)}),
        }
    )


@pytest.mark.parametrize("first", FUNCTIONS)
@pytest.mark.parametrize("second", FUNCTIONS)
def test_heads_count_as_the_functions_they_are(first, second):
    tree = tree_of((first, second))
    found = pair_probabilities(tree)
    assert float(found["pair"].sel(first=first, second=second)) == 1
    assert float(found["pair"].sum()) == 1
    assert 0 < float(found["pair_se"].max()) < 1
    own = scores(tree).sel(head="first", function=first)
    np.testing.assert_allclose(own, np.log(0.9))


def test_mixtures_of_functions_have_errors():
    tree, other = tree_of(("intended", "simple")), tree_of(("complex", "simple"))
    for name in tree["posterior_predictive"].data_vars:
        mixed = tree["posterior_predictive"][name].copy(deep=True)
        mixed[:, ::2] = other["posterior_predictive"][name][:, ::2]
        tree["posterior_predictive"][name] = mixed
    found = pair_probabilities(tree).sel(second="simple")
    np.testing.assert_allclose(found["pair"], [0.5, 0.5, 0])
    assert np.all(found["pair_se"] > 0)


def test_saying_yes_is_no_function():
    """The wrong kind has more yes than no: a plain mean would call a yes-sayer honest."""
    tree = tree_of(("intended", "simple"))
    for name, answers in tree["posterior_predictive"].data_vars.items():
        tree["posterior_predictive"][name] = xr.full_like(answers, 0.9)
    found = scores(tree)
    np.testing.assert_allclose(found, np.log([0.1, 0.9]).mean())
    # What ties is shared: no function is preferred, above all not the first in order.
    np.testing.assert_allclose(pair_probabilities(tree)["pair"], 1 / 9)
    np.testing.assert_allclose(pair_probabilities(tree)["share_questions"], 0, atol=1e-9)


def test_roles_need_both_kinds_of_cases():
    tree = tree_of(("intended", "simple"))
    del tree["posterior_predictive"]["held_out_deceived"]
    with pytest.raises(InvalidInput, match="held_out_deceived"):
        scores(tree)


@pytest.mark.parametrize(
    "analysis",
    [
        HeadPairs(options=TINY),
        BitsSaved(options=TINY, sizes=[5, 6]),
        LabelErrors(options=TINY, errors=[1, 2]),
        Comparisons(options=TINY, num_unclear=4),
        Routing(options=TINY),
        Sensitivity(options=TINY),
        FirstPosterior(),
        BitLedger(),
        Alternating(problems=["linear_gaussian"], backend=CLIMB),
    ],
    ids=lambda a: a.name,
)
def test_from_configuration_to_conclusion(analysis, runner, tmp_path):
    out = tmp_path / "analysis"
    perform(analysis, out, runner)
    tree = xr.open_datatree(out / "tree.nc", engine="h5netcdf")
    assert json.loads(tree.attrs["configuration"])["analysis"] == analysis.name
    assert (out / "figure.png").stat().st_size > 5_000
    text = (out / "conclusion.md").read_text()
    assert "nan" not in text.replace("finance", "")
    for cell in analysis.cells():
        assert f"runs/{cell.name}" in text
    assert len({cell.name for cell in analysis.cells()}) == len(analysis.cells())
    with pytest.raises(InvalidInput, match="resume"):
        perform(analysis, out, runner)
    perform(analysis, out, runner, resume=True)
    other = analysis.model_copy(update={"seed": 1})
    with pytest.raises(InvalidInput, match="other seed"):
        perform(other, out, runner, resume=True)


def test_a_figure_that_fails_leaves_nothing_half_written(runner, tmp_path):
    class Failing(Routing):
        def draw(self, tree, target):
            target.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(Failing(options=TINY), tmp_path / "out", runner)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"config.json", "tree.nc"}
    perform(Routing(options=TINY), tmp_path / "out", runner, resume=True)
    assert (tmp_path / "out" / "conclusion.md").exists()


class Two(HeadPairs):
    """Two of the set-ups, by maxima: quick."""

    def cells(self):
        return super().cells()[-2:]


@pytest.mark.slow
def test_runs_are_resumed_and_alike_on_dask(tmp_path):
    analysis = Two(options=TINY, maximum=CLIMB)
    cells = analysis.cells()

    def interrupted(cells, folder, seed):
        one_by_one(cells[:1], folder, seed)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(analysis, tmp_path / "alone", interrupted)
    runs = tmp_path / "alone" / "runs"
    finished = {p: p.stat().st_mtime_ns for p in (runs / cells[0].name).iterdir()}
    perform(analysis, tmp_path / "alone", one_by_one, resume=True)
    assert finished == {p: p.stat().st_mtime_ns for p in (runs / cells[0].name).iterdir()}
    here = {cell.name: Run.load(runs / cell.name) for cell in cells}
    there = on_dask("local")(cells, tmp_path / "dask", 0)
    for name in here:
        xr.testing.assert_equal(
            here[name].tree["map"].to_dataset(), there[name].tree["map"].to_dataset()
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "analysis",
    [
        HeadPairs(options=TINY, populations=SMC, maximum=CLIMB),
        BitsSaved(options=TINY, populations=SMC, sizes=[5, 6], hidden=[1]),
        LabelErrors(options=TINY, populations=SMC, errors=[1]),
        Comparisons(options=TINY, populations=SMC, num_unclear=4),
        Routing(options=TINY, populations=SMC),
        Sensitivity(options=TINY, hmc=DRAW),
    ],
    ids=lambda a: a.name,
)
def test_small_analyses(analysis, tmp_path):
    tree = perform(analysis, tmp_path / "analysis", one_by_one)
    if "log_evidence" in tree.data_vars and analysis.name != "sensitivity":
        assert np.isfinite(tree["log_evidence"].values).sum() >= 2


def test_command_line(tmp_path, capsys):
    out = tmp_path / "ledger"
    assert main(["analyse", "bit_ledger", "--out", str(out), "--assumptions.intended", "8000"]) == 0
    assert "N + 8,000" in capsys.readouterr().out
    bad = [
        (["analyse", "nothing"], "bit_ledger"),
        (["analyse", "bit_ledger"], "--out DIR"),
        (["analyse", "bit_ledger", "--out", str(out)], "other assumptions"),
        (["analyse", "routing", "--out", str(tmp_path / "r"), "--options", "x", "1"], "problem.x"),
        (["analyse", "routing", "--out", str(tmp_path / "r"), "--world", "moon"], "world"),
        (["analyse", "routing", "--out", str(tmp_path / "r"), "--seed", "-1"], "seed"),
        (
            ["analyse", "bit_ledger", "--out", str(tmp_path / "r"), "--assumptions.world", "5"],
            "11010",
        ),
    ]
    for arguments, message in bad:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    (out / "config.json").write_text("{")
    assert main(["analyse", "bit_ledger", "--out", str(out), "--resume"]) == 2
    assert "damaged" in capsys.readouterr().err


def test_many_bits_are_counted_with_fewer_states():
    costs = Assumptions(world=10**9, intended=3_000_000, language=2_000_000)
    account = BitLedger(assumptions=costs).reduce({})["account"].to_dataset()
    fits = account.sel(first=["intended", "complex"])
    # Costs and savings are integers; counting adds their logarithms.
    np.testing.assert_allclose(fits["total_counted"], fits["total"], rtol=0, atol=1e-2)


def test_differences_and_words():
    data = xr.Dataset(
        {"x": ("case", [3.0, 1.0, np.nan]), "x_se": ("case", [0.3, 0.4, np.nan])},
        coords={"case": ["a", "b", "c"]},
    )
    np.testing.assert_allclose(difference(data, "x", "a", "b"), (2.0, 0.5))
    assert verdict(*difference(data, "x", "a", "b")) == "more (+2.00 ± 0.50 bits)"
    assert verdict(*difference(data, "x", "b", "a")) == "less (-2.00 ± 0.50 bits)"
    assert verdict(0.9, 0.5).startswith("not told from none")
    assert verdict(*difference(data, "x", "a", "c")) == "not estimated"


def test_dask_addresses_are_checked():
    with pytest.raises(InvalidInput, match="dask"):
        on_dask("tcp://127.0.0.1:1")
