"""Maxima among draws, and the page about them."""

import re

import numpy as np
import pytest
import xarray as xr

from analyses.__main__ import main
from analyses.functionals import alike, functionals_of, right_answers, scalar_functionals
from analyses.typical import place, place_answers
from generative import problems
from inference import HMC, MaximumAPosteriori, Run, infer

TINY = {"num_small": 6, "num_held_out": 8, "scene": 2, "human": 1, "hidden": 1}
CLIMB = MaximumAPosteriori(num_warmup=160, num_steps=160, num_starts=2, num_ledger_points=0)
DRAW = HMC(
    kernel="exchange", num_warmup=60, num_draws=60, num_chains=2, max_doublings=0,
    evidence_particles=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A maximum and a sampled run of a small `digits`."""
    root = tmp_path_factory.mktemp("runs")
    problem = problems.get("digits", **TINY)
    provenance = {"problem": "digits", "problem_options": TINY}
    for name, backend in (("map", CLIMB), ("hmc", DRAW)):
        infer(problem.model, backend, progress=False, directory=root / name, provenance=provenance)
    return root


def test_functionals_of_a_maximum_are_those_of_draws(folders):
    drawn, maximum = (Run.load(folders / name).tree for name in ("hmc", "map"))
    of_draws, of_maximum = functionals_of(drawn), functionals_of(maximum)
    assert set(of_draws) <= set(of_maximum)
    assert all(x.dims == ("chain", "draw") for x in of_draws.values())
    assert all(x.ndim == 0 for x in scalar_functionals(maximum).values())
    model = problems.get("digits", **TINY).model
    a, b = (maximum["map"][n].values for n in ("theta_1", "theta_2"))
    stages = model.first_stage.around(model.space.origin).log_prob(a)
    stages += model.second_stage.around(a).log_prob(b)
    np.testing.assert_allclose(of_maximum["log p1 + log p2"], stages, rtol=1e-9)
    np.testing.assert_allclose(of_maximum["|theta_1 - theta_0|^2"], np.sum(a**2), rtol=1e-9)
    answers = np.asarray(model.answers(b, model.questions["large"]))[0]
    expected = np.where(model.labels["large"] == 1, answers, 1 - answers).mean()
    found = right_answers(maximum)["large"].sel(head="first")
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_runs_of_other_posteriors_are_told_apart(folders):
    drawn, maximum = (Run.load(folders / name) for name in ("hmc", "map"))
    assert alike(drawn, maximum)
    other = problems.get("digits", **TINY | {"seed": 1}).model
    quick = infer(other, CLIMB, progress=False)
    assert not alike(drawn, quick)
    maximum.tree.attrs["configuration"] = '{"setup": "z-omitted"}'
    assert not alike(drawn, maximum)


def test_place_counts_ranks():
    draws = np.arange(100.0)
    middle, outside = place("x", 49.5, draws), place("x", 500.0, draws)
    assert middle.tail == 1.0
    assert abs(middle.z_score) < 1e-9
    assert outside.tail == 0.0
    assert outside.z_score > 10
    assert place("x", 1.0, np.ones(5)).z_score == 0
    assert place("x", 2.0, np.ones(5)).z_score == np.inf


def test_answers_like_a_draw_are_typical_and_others_are_not(seed):
    rng = np.random.default_rng(seed)
    draws = rng.normal(size=(2, 500, 2, 6))
    dims = ("chain", "draw", "head", "question_q")
    coords = {"head": ["first", "second"]}
    tree = xr.DataTree.from_dict(
        {"posterior_predictive": xr.Dataset({"q": (dims, draws)}, coords=coords)}
    )

    def maximum(values):
        data = xr.Dataset({"answers_q": (dims[2:], values)}, coords=coords)
        return xr.DataTree.from_dict({"map": data})

    like, unlike = rng.normal(size=(2, 6)), rng.normal(size=(2, 6)) + np.array([[6.0], [0.0]])
    assert all(x.tail > 0.01 for x in place_answers(maximum(like), tree))
    first, second = place_answers(maximum(unlike), tree)
    assert first.tail == 0.0
    assert second.tail > 0.01


def test_compare_and_report(folders, tmp_path, capsys):
    figure, page = tmp_path / "figure.png", tmp_path / "page.html"
    arguments = [str(folders / "map"), str(folders / "hmc")]
    assert main(["compare", *arguments, "--figure", str(figure)]) == 0
    table = capsys.readouterr().out
    assert re.search(r"log joint .*\(z = ", table)
    assert "of draws answer at least as far" in table
    assert figure.stat().st_size > 10_000
    assert main(["report", str(folders), "--out", str(page)]) == 0
    html = page.read_text()
    # Self-contained, with pictures, and nothing but the data in it.
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    assert html.count("data:image/png;base64,") > 8
    assert "Where the labeller errs" in html
    assert "theta_1 - theta_0" in html


def test_report_shows_the_ledger_of_a_path(tmp_path):
    model = problems.get("linear_gaussian", d=2).model
    backend = CLIMB.model_copy(update={"num_ledger_points": 5})
    infer(model, backend, progress=False, directory=tmp_path / "map")
    assert main(["report", str(tmp_path / "map")]) == 0
    html = (tmp_path / "map" / "report.html").read_text()
    assert "bits saved by agreement along the ascent" in html


def test_report_of_one_run_and_bad_folders(folders, tmp_path, capsys):
    assert main(["report", str(folders / "map"), "--out", str(tmp_path / "one.html")]) == 0
    assert "Maximum beside draws" not in (tmp_path / "one.html").read_text()
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert "no finished run" in capsys.readouterr().err
    other = tmp_path / "other"
    model = problems.get("double_well").model
    infer(model, DRAW, progress=False, directory=other, provenance={"problem": "double_well"})
    assert main(["report", str(folders), str(other), "--out", str(tmp_path / "no.html")]) == 2
    assert "runs of one problem" in capsys.readouterr().err
    assert not (tmp_path / "no.html").exists()
