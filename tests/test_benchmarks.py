"""The benchmark of hard cases tells right runs from wrong ones."""

from functools import partial

import numpy as np
import pytest
import xarray as xr

from analyses.benchmarks import bracket, device, hard_cases
from analyses.benchmarks.hard_cases import bounded_row, judge, row, scores, scores_of, settled
from analyses.processes import NoResult, bounded
from generative import problems
from inference import HMC, Bracket, Estimate, NonFiniteState, Result, Run

MILD = problems.get("linear_gaussian", **hard_cases._MILD)


def run_of(seed, shift=0.0, stretch=1.0, result=Result.converged, size=4000, bits_error=0.0):
    """Return a run with independent exact draws, spoiled as asked for."""
    truth = MILD.truth
    v1, v2, vd = (float(c[0, 0]) for c in (truth.cov_1, truth.cov_2, truth.cov_difference))
    shared = (v1 + v2 - vd) / 2
    draws = np.random.default_rng(seed).multivariate_normal(
        [0.0, 0.0], [[v1, shared], [shared, v2]], size=(4, size)
    )
    draws = draws * stretch + shift + np.concatenate([truth.mean_1, truth.mean_2])
    values = {f"theta_{i + 1}": (("chain", "draw", "p"), draws[..., i : i + 1]) for i in (0, 1)}
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(values)})
    bits = Estimate(truth.bits_saved * np.log(2) + bits_error, 0.01)
    return Run(tree, result, Estimate(truth.log_evidence + 0.01, 0.01), bits)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "right"),
        ({"shift": 0.1}, "WRONG"),
        ({"stretch": 1.1}, "WRONG"),
        ({"stretch": 1.1, "result": Result.not_converged}, "-"),
        ({"stretch": 1.01}, "right"),
        ({"stretch": 1.04, "size": 100}, "unclear"),
        ({"bits_error": 0.05}, "WRONG"),
    ],
)
def test_verdicts(changes, expected):
    run = run_of(0, **changes)
    assert judge(run, scores_of(MILD, run), MILD.truth) == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([("right", 0.01, 0.04), ("unclear", 0.06, 0.04), ("right", 0.02, 0.04)], "right"),
        ([("unclear", 0.08, 0.04), ("unclear", 0.09, 0.04), ("right", 0.03, 0.04)], "unclear"),
        ([("unclear", 0.06, 0.02), ("unclear", 0.07, 0.02), ("unclear", 0.06, 0.02)], "WRONG"),
        ([("right", 0.01, 0.04), ("WRONG", 0.02, 0.04), ("right", 0.02, 0.04)], "WRONG"),
        ([("-", 0.9, 0.04), ("right", 0.01, 0.02), ("-", 0.02, 0.04)], "right"),
        ([("right", 0.01, 0.05), ("right", 0.02, 0.05), ("right", 0.02, 0.05)], "unclear"),
        ([("-", 0.9, 0.04)], "unclear"),
    ],
)
def test_more_seeds_settle_what_is_unclear(more, expected):
    shown, verdict = settled(more)
    assert verdict == expected
    assert ("of 3 converged" in shown) == (len(more) > 1 and more[0][0] == "-")


def test_without_data_only_theta_1_is_compared():
    kept = np.random.default_rng(0).normal(size=(4, 4000, 4))
    values = {"theta_1": kept, "theta_2": np.full_like(kept, 7.0)}
    found = scores(problems.get("singular_product"), values)
    assert found.largest_z < hard_cases._LARGEST_Z


def test_a_row_has_a_cell_per_column(monkeypatch):
    monkeypatch.setattr(hard_cases, "infer", lambda *_, **__: run_of(0))
    cells = row(MILD, HMC())
    assert len(cells) == len(hard_cases._HEADER)
    assert cells[:5] == ["linear_gaussian", "1", "HMC", "converged", "-"]
    assert cells[-1] == "right"


def test_a_run_that_breaks_down_has_a_row(monkeypatch):
    def break_down(*_, **__):
        raise NonFiniteState("theta_1 is NaN")

    monkeypatch.setattr(hard_cases, "infer", break_down)
    cells = row(MILD, HMC())
    assert len(cells) == len(hard_cases._HEADER)
    assert cells[3] == "NonFiniteState"


def test_a_row_that_takes_too_long_is_stopped_and_shown():
    cells = bounded_row("double_well", {}, HMC(), 0.1)
    assert len(cells) == len(hard_cases._HEADER)
    assert cells[:4] == ["double_well", "1", "HMC", "stopped after 0 minutes"]


def test_every_case_has_a_truth_to_compare_with():
    for name, options, _ in hard_cases.CASES:
        problem = problems.get(name, **options)
        assert {"mean_1", "cov_1", "bits_saved", "log_evidence"} <= set(problem.truth.known)
        assert problem.model.is_null or "cov_difference" in problem.truth.known


def test_a_device_that_is_absent_or_too_slow_has_no_ratio():
    rows = {"accelerator chains": [20.0, 40.0], "cpu chains": [10.0]}
    lines = [([str(i)], "chains", partial(device._chain_cells, i)) for i in range(2)]
    table = device._table(rows, {"accelerator": "A", "cpu": "B"}, ["chains"], ["rate"], lines)
    assert table.splitlines()[2:] == ["| 0 | 20 | 10 | 2 |", "| 1 | 40 | - | - |"]


def test_work_in_a_process_returns_or_says_why_not():
    assert bounded(abs, (-2,), 60.0) == 2
    with pytest.raises(NoResult, match="no result"):
        bounded(abs, ("text",), 60.0)


def bounds(lower, upper, error):
    """Bounds from eight runs each, with about such a standard error."""
    spread = error * np.linspace(-2, 2, 8)
    return Bracket(lower + spread, upper + spread, "a note")


@pytest.mark.parametrize(
    ("value", "error", "upper", "expected"),
    [
        (-1.5, 0.1, -1.0, "right"),
        (-1.0, 0.1, -1.0, "right"),
        (-2.1, 0.1, -1.0, "right"),
        (-3.5, 0.1, -1.0, "WRONG"),
        (0.5, 0.1, -1.0, "WRONG"),
        (-1.5, np.inf, -1.0, "-"),
        (-1.5, 0.1, 0.0, "-"),
        (-9.0, 0.1, 0.0, "-"),
        (-1.5, 0.1, np.nan, "-"),
    ],
)
def test_estimates_are_held_against_bounds_that_are_near(value, error, upper, expected):
    assert bracket.judge(Estimate(value, error), bounds(-2.0, upper, 0.05)) == expected


def test_the_bracket_is_of_data_that_the_parameters_made(monkeypatch):
    seen, made_from, simulate_data = [], [], bracket.simulate_data

    def instead(model, theta_1, theta_2, key):
        seen.append((model, np.asarray(theta_1), np.asarray(theta_2)))
        return bounds(-2.0, -1.0, 0.05)

    def recorded(model, key, theta_2):
        made_from.append((np.asarray(theta_2[0]), made := simulate_data(model, key, theta_2)))
        return made

    monkeypatch.setattr(bracket, "simulate_data", recorded)
    monkeypatch.setattr(bracket, "bracket_evidence", instead)
    monkeypatch.setattr(bracket, "infer", lambda *_, **__: run_of(0))
    rows = [bracket._rows("jevons", index) for index in (0, 1)]
    assert [len(x) for x in rows] == [2, 1]
    assert all(len(row) == len(bracket._HEADER) for found in rows for row in found)
    for (model, theta_1, theta_2), (origin, made) in zip(seen, made_from, strict=True):
        np.testing.assert_array_equal(theta_2, origin)
        assert not np.array_equal(theta_1, theta_2)
        for name, values in made.items():
            np.testing.assert_array_equal(model.data[name], values[0])
    first, second = (made for _, made in made_from)
    assert any(np.any(first[name] != second[name]) for name in first)
