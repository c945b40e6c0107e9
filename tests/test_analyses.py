"""Every analysis from configuration to conclusion."""

import json

import jax
import jax.numpy as jnp
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
from analyses.routing import Routing, routes_of
from analyses.sensitivity import Sensitivity
from analyses.worlds import difference, verdict
from generative import InvalidInput, problems
from generative.ledger import FUNCTIONS, Assumptions
from inference import HMC, MaximumAPosteriori, Run, infer
from tests.statistical import z_limit

SENSES = {"num_held_out": 8, "scene": 1, "human": 1}
TINY = SENSES | {"num_small": 6, "hidden": 1}
DRAW = HMC(
    kernel="exchange", num_warmup=60, num_draws=60, num_chains=2, max_doublings=0,
    evidence_particles=0,
)  # fmt: skip
CLIMB = MaximumAPosteriori(num_warmup=160, num_steps=160, num_starts=2, num_ledger_points=0)
# With an evidence, where the populations agree with chains as short.
FULL = DRAW.model_copy(update={"evidence_particles": 16})


@pytest.fixture(scope="module")
def run():
    return infer(problems.get("jevons", **TINY).model, DRAW, progress=False)


@pytest.fixture(scope="module")
def runner(run):
    """Give one run to all cells: what analyses do with runs costs no runs."""

    def give(cells, folder, seed):
        return {cell.name: run for cell in cells}

    return give


@pytest.mark.parametrize(
    "analysis",
    [
        HeadPairs(options=TINY),
        BitsSaved(options=SENSES, sizes=[5, 6]),
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
    assert "nan" not in text and "inf)" not in text and "± inf" not in text
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


def measured(shares, questions):
    """What is measured of runs whose first head is nearest to functions with these shares."""
    share = np.array(list(shares.values()))
    size = len(share)
    scalars = ("log_evidence", "bits_saved", "disagreement")
    sets = [f"held_out_{kind}" for kind in ("right", "wrong", "deceived")]
    dims, pairs = ("case", "set", "head"), ("case", "first", "second")
    values = {name: ("case", np.ones(size)) for n in scalars for name in (n, f"{n}_se")}
    values |= {n: (dims, np.full((size, 3, 2), 0.5)) for n in ("right", "right_se")}
    values |= {"right_questions": (dims, np.full((size, 3, 2), 0.05))}
    values |= {n: (pairs, share[..., None] / np.ones(3) / 3) for n in ("pair", "pair_se")}
    values |= {"share": (pairs[:2], share), "share_se": (pairs[:2], np.full_like(share, 0.01))}
    values |= {"share_questions": (pairs[:2], np.full_like(share, questions))}
    values |= {"usable": ("case", np.ones(size)), "chance": ("first", np.ones(3) / 3)}
    names = {"first": list(FUNCTIONS), "second": list(FUNCTIONS)}
    coords = {"case": list(shares), "set": sets, "head": ["first", "second"]} | names
    return xr.DataTree(xr.Dataset(values, coords=coords))


@pytest.mark.parametrize(("questions", "number"), [(0.05, 5), (0.18, 10)])
def test_label_errors_say_what_tips(questions, number):
    predictable = [(0.2, 0.6, 0.2), (0.05, 0.35, 0.6), (0.0, 0.1, 0.9)]
    shares = {"no errors": (0.2, 0.7, 0.1)}
    shares |= {f"{n} predictable errors": s for n, s in zip((2, 5, 10), predictable, strict=True)}
    shares |= {f"{n} random errors": (0.3, 0.6, 0.1) for n in (2, 5, 10)}
    text = LabelErrors().conclude(measured(shares, questions))
    assert "Without errors it is likeliest complex" in text
    # Few questions, so that shares could be others: it takes more to be sure.
    assert f"{number} predictable errors tip it to simple" in text
    assert "No number tried of random errors tips it" in text


def test_cells_are_what_their_names_say():
    for cell in LabelErrors(options=SENSES).cells():
        number = 0 if cell.case == "no errors" else int(cell.case.split()[0])
        model = problems.get(cell.problem, **cell.options).model
        large = model.columns["large"]
        wrong = model.data["answers"] != large["alice_label"]
        assert wrong.sum() == number
        human = np.asarray(model.data["answers"])[wrong] == large["bob_label"][wrong]
        assert human.all() if "predictable" in cell.case else not human.any()
    setups = {cell.case: (cell.options, cell.setup) for cell in HeadPairs().cells()}
    assert setups["two stages"] == setups["maximum"] == ({}, "two-stages")
    assert setups["one stage (tied heads)"] == ({}, "one-stage")
    assert setups["two stages, Z omitted"] == ({}, "z-omitted")
    assert setups["single instrumental head"] == ({"first_head": "instrumental"}, "one-stage")
    swapped = ({"first_head": "instrumental"}, "two-stages")
    assert setups["labels for the instrumental head"] == swapped
    assert setups["two stages, L1"][0] == {"stage": "laplace"}
    assert setups["two stages, split"][0]["setting"] == "split"
    assert setups["no corrections"][0] == {"corrected_fraction": 0.0}
    evidence = {c.case: c.options.get("evidence") for c in Comparisons().cells()}
    assert list(evidence.values()) == [None, "labels", "comparisons", "both"]
    sizes = {c.case: (c.options["num_small"], c.options["hidden"]) for c in BitsSaved().cells()}
    assert sizes["40 questions, 6 hidden"] == (40, 6)


def test_options_that_an_analysis_varies_are_refused(runner, tmp_path):
    bad = [
        (LabelErrors(options={"num_errors": 5}), "num_errors"),
        (HeadPairs(options={"stage": "laplace"}), "stage"),
        (BitsSaved(options={"num_small": 9}), "num_small"),
        (Routing(world="room", options={"num_videos": 100, "num_small": 10}), "one true answer"),
    ]
    for analysis, message in bad:
        with pytest.raises(InvalidInput, match=message):
            perform(analysis, tmp_path / "out", runner)
    assert not (tmp_path / "out").exists()


def test_fresh_parts_raise_what_agreed(seed):
    """Draws without agreement stay as they are in law; heads that agree exactly do not."""
    model = problems.get("jevons", **TINY, setting="intended-fixed").model
    keys = jax.random.split(jax.random.key(seed), 3)
    theta_1 = model.first_stage.around(model.space.origin).sample(keys[0], (2, 500))
    theta_2 = model.second_stage.around(theta_1).sample(keys[1])

    def routes(theta_2):
        draws = {"theta_1": theta_1, "theta_2": theta_2}
        posterior = {n: (("chain", "draw", "parameter"), np.asarray(x)) for n, x in draws.items()}
        tree = xr.DataTree.from_dict({"posterior": xr.Dataset(posterior)})
        return routes_of(model, tree, keys[2])

    free = routes(theta_2)
    assert float(free["rise"].sel(afresh="nothing")) == 0
    # The intended head does not move in stage 2.
    assert abs(float(free["rise"].sel(afresh="intended head"))) < 1e-12
    assert np.all(np.abs(free["rise"]) <= z_limit(6) * free["rise_se"] + 1e-12)
    instrumental = np.array([n.startswith("instrumental") for n in model.space.names])
    intended = np.array([n.startswith("intended") for n in model.space.names])
    agreed = routes(jnp.where(instrumental | intended, 0.0, theta_2))
    assert float(agreed["disagreement_afresh"].sel(afresh="nothing")) < 1e-12
    rise = agreed.sel(afresh="instrumental head")
    assert float(rise["rise"]) > 10 * float(rise["rise_se"])


class Two(HeadPairs):
    """Two of the set-ups, by maxima: quick."""

    def cells(self):
        return super().cells()[-2:]

    def conclude(self, tree):
        return self.tables(tree.to_dataset())


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
        HeadPairs(options=TINY, hmc=FULL, maximum=CLIMB),
        BitsSaved(options=SENSES, hmc=DRAW, sizes=[5, 6], hidden=[1]),
        LabelErrors(options=TINY, hmc=DRAW, errors=[1]),
        Comparisons(options=TINY, hmc=DRAW, num_unclear=4),
        Routing(options=TINY, hmc=DRAW),
        Sensitivity(options=TINY, hmc=DRAW),
    ],
    ids=lambda a: a.name,
)
def test_small_analyses(analysis, tmp_path):
    tree = perform(analysis, tmp_path / "analysis", one_by_one)
    if analysis.name == "head_pairs":
        sampled = tree["log_evidence"].values[:-2]  # without the two maxima
        assert np.isfinite(sampled).sum() >= 2


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
