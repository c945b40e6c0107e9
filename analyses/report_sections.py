"""The sections of a report: values for the template, one function each."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from analyses import figures
from analyses.compare import comparison_table, draw_comparison, sampled_among, typicality
from analyses.functionals import (
    alike,
    answers_of,
    bits_saved,
    configuration_of,
    functionals_of,
    is_maximum,
    right_answers,
    scalar_functionals,
)
from analyses.summary import evidence
from analyses.typical import place_all
from generative import InvalidInput, problems
from inference import Run

Runs = Mapping[str, Run]
Embed = Callable[[Callable[[Any], None]], str]
Section = dict[str, Any]

_MAX_PICTURES = 24
_WRONG = "held_out_wrong"
_ATYPICAL = 3.0


def problem_of(run: Run) -> str:
    """Return the problem's name, as the configuration has it."""
    return str(configuration_of(run).get("problem", "a model of one's own"))


def described(run: Run) -> str:
    """Return the problem's one line, if it can be built again."""
    problem = _problem(run)
    return "" if problem is None else problem.description


def verdict(runs: Runs) -> list[dict[str, str]]:
    """Return what the runs say, in a few sentences."""
    lines = []
    for name, run in runs.items():
        usable = run.result.is_usable
        failed = "; ".join(f"{c.name}: {c.message}" for c in run.checks if not c.passed)
        what = "maximum" if is_maximum(run) else "draws"
        text = (
            f"the {what} may be used: all checks passed."
            if usable
            else (f"the {what} must not be used. {failed or run.result.value}.")
        )
        if run.usable == ("log_evidence",):
            text += " The log evidence may: its independent runs agree."
        lines.append(
            {
                "mark": "good" if usable else "bad",
                "head": f"{name}: {run.result.value};",
                "text": text,
            }
        )
    sampled = sampled_among(runs)
    main = sampled or next(iter(runs.values()))
    if main.bits_saved is not None:
        where = "at the maximum" if sampled is None else "on posterior average"
        text = f"Agreement of the two heads saves {bits_saved(main)} bits {where}."
        lines.append({"mark": "", "text": text})
    lines += [{"mark": "", "text": text} for text in _honesty(main)]
    lines += [{"mark": "", "text": text} for text in _maximum_in_words(runs)]
    return lines


def _honesty(run: Run) -> list[str]:
    right = right_answers(run.tree)
    if right is None or _WRONG not in right:
        return []
    first = right[_WRONG].sel(head="first").values
    text = (
        f"Where the labeller errs, the first head gives the true answer with probability "
        f"{first.mean():.3f}"
    )
    if first.size > 1:
        text += f" (posterior standard deviation {first.std():.3f}); "
        text += f"it does so more often than not in {np.mean(first > 0.5):.0%} of the draws"
    return [text + "."]


def _maximum_in_words(runs: Runs) -> list[str]:
    sampled = sampled_among(runs)
    found = []
    for name, run in runs.items():
        if is_maximum(run) and sampled is not None and alike(run, sampled):
            placed = place_all(run.tree, sampled.tree)
            far = [p for p in placed if abs(p.z_score) > _ATYPICAL]
            found.append(
                f"{name} is {'not ' if far else ''}like a draw: {len(far)} of {len(placed)} "
                "functionals lie more than three posterior standard deviations away"
                + (f", {max(far, key=lambda p: abs(p.z_score)).name} farthest." if far else ".")
            )
    return found


def what_was_run(runs: Runs) -> Section:
    """Backends, seeds and estimates."""
    rows = []
    for name, run in runs.items():
        configuration = configuration_of(run)
        rows.append(
            [
                name,
                configuration.get("backend", "?"),
                str(configuration.get("seed", "?")),
                run.result.value,
                evidence(run),
                bits_saved(run),
            ]
        )
    header = ["run", "backend", "seed", "result", "log p(data)", "bits saved"]
    first = configuration_of(next(iter(runs.values())))
    options = first.get("problem_options") or {}
    asked = ", ".join(f"{key} = {value}" for key, value in sorted(options.items()))
    paragraphs = [f"Problem options: {asked}."] if asked else []
    return {"title": "What was run", "paragraphs": paragraphs, "table": _table(header, rows)}


def bits(runs: Runs, embed: Embed) -> Section | None:
    """Return the ledger along a maximum's path, where there is one."""
    found = []
    for name, run in runs.items():
        if "ledger" in run.tree.children:
            account = run.tree["ledger"].to_dataset()
            caption = f"{name}: bits saved by agreement along the ascent, ± two standard errors"
            source = embed(partial(figures.ledger, account))
            found.append({"source": source, "caption": caption})
    if not found:
        return None
    paragraphs = [
        "Bits saved are -log2 Z(theta_1): how much less likely it is that theta_2 agrees by chance."
        " They can pay for a costly honest head, up to what that head cost."
    ]
    return {"title": "Bits ledger", "paragraphs": paragraphs, "figures": found}


def maximum_beside_draws(runs: Runs, embed: Embed) -> Section | None:
    """One table and one figure of all runs, and why a maximum is or is not like a draw."""
    if len(runs) < 2:
        return None
    header, rows = comparison_table(runs)
    sampled = sampled_among(runs)
    items, shown = (
        [],
        [
            {
                "source": embed(lambda target: draw_comparison(runs, target)),
                "caption": "Functionals by run; with draws, in posterior standard deviations",
            }
        ],
    )
    for name, run in runs.items():
        if is_maximum(run) and sampled is not None and alike(run, sampled):
            items += [f"{name}: {line}" for line in typicality(run, sampled)]
            shown.append(_distances(name, run, sampled, embed))
    paragraphs = [
        "The maximum of a density in many dimensions is where no draw is: volume grows with "
        "distance. Shifts of theta_1 and theta_2 show it best: at the maximum they are nearly 0 "
        "wherever the data are silent, in a draw as long as the stages' scales make them."
    ]
    return {
        "title": "Maximum beside draws" if items else "Runs side by side",
        "paragraphs": paragraphs if items else [],
        "table": _table(header, rows),
        "points": items,
        "figures": shown,
    }


def _distances(name: str, maximum: Run, sampled: Run, embed: Embed) -> dict[str, str]:
    chosen = ["|theta_1 - theta_0|^2", "|theta_2 - theta_1|^2", "log joint"]
    draws = functionals_of(sampled.tree)[chosen]
    marks = {key: float(functionals_of(maximum.tree)[key]) for key in chosen}
    return {
        "source": embed(partial(figures.distributions, draws, marks)),
        "caption": f"{name} (line) among the draws (density)",
    }


def predictions(runs: Runs, embed: Embed) -> Section | None:
    """Both heads' answers to questions that the labeller gets wrong, with the pictures."""
    main = sampled_among(runs) or next(iter(runs.values()))
    answers = answers_of(main.tree)
    if _WRONG not in answers:
        return None
    pictures = _pictures(main).get(_WRONG)
    probability = answers[_WRONG]
    over = [d for d in probability.dims if d in ("chain", "draw")]
    mean, spread = probability.mean(over), probability.std(over)
    labels = main.tree.children["constant_data"].dataset[f"label_{_WRONG}"].values
    maximum = next(
        (r for r in runs.values() if is_maximum(r) and r is not main and alike(r, main)), None
    )
    cases: list[dict[str, Any]] = []
    for index in range(min(len(labels), _MAX_PICTURES)):
        lines = [f"true answer: {'yes' if labels[index] else 'no'}"]
        for head in ("first", "second"):
            value, error = (float(x.sel(head=head)[index]) for x in (mean, spread))
            lines.append(f"{head}: P(yes) {value:.2f}" + (f" ± {error:.2f}" if over else ""))
        if maximum is not None:
            value = float(answers_of(maximum.tree)[_WRONG].sel(head="first")[index])
            lines.append(f"first, maximum: {value:.2f}")
        cases.append({"number": index, "lines": lines, "source": ""})
        if pictures is not None:
            cases[-1]["source"] = embed(partial(figures.picture, pictures[index]))
    paragraph = (
        f"Held-out questions on which the labeller errs, {len(cases)} of {len(labels)}; the "
        "labeller's answer is the opposite of the true one. An honest first head gives the true "
        "answer, one that imitates the labeller the other."
    )
    section: Section = {"title": "Where the labeller errs", "paragraphs": [paragraph]}
    if pictures is not None:
        return section | {"cases": cases}
    rows = [[str(case["number"]), *case["lines"]] for case in cases]
    return section | {"table": _table(["question", *[""] * (len(rows[0]) - 1)], rows)}


def diagnostics(runs: Runs, embed: Embed) -> Section | None:
    """ArviZ's summary and plots of the first sampled run."""
    sampled = sampled_among(runs)
    if sampled is None:
        return None
    varying = {
        name: x
        for name, x in scalar_functionals(sampled.tree).items()
        if x.ndim == 2 and np.ptp(x.values) > 0
    }
    size = max(x.sizes["draw"] for x in varying.values())
    alike = {n: x for n, x in varying.items() if x.sizes["draw"] == size}
    data = xr.Dataset({n: (("chain", "draw"), x.values) for n, x in alike.items()})
    summary = az.summary(figures.as_tree(data), round_to="none")
    header = ["", *(str(c) for c in summary.columns)]
    rows = [
        [str(name), *(f"{float(x):.4g}" for x in row)]
        for name, row in zip(summary.index, summary.to_numpy(), strict=True)
    ]
    judged = data[[n for n in ("log joint", "C(theta_2)", "L(theta_2)") if n in data]]
    shown = [
        {
            "source": embed(partial(figures.rank, judged)),
            "caption": "Rank plots: chains that agree stay inside the envelope",
        },
        {
            "source": embed(partial(figures.ess_evolution, judged)),
            "caption": "Effective sample size as draws accumulate",
        },
    ]
    items = [f"{'passed' if c.passed else 'FAILED'}: {c.name}: {c.message}" for c in sampled.checks]
    return {
        "title": "Diagnostics",
        "paragraphs": [],
        "table": _table(header, rows),
        "figures": shown,
        "points": items,
    }


def provenance(runs: Runs) -> Section:
    """Notes, versions and configurations."""
    items = [f"{name}: {note}" for name, run in runs.items() for note in run.notes]
    attributes = {str(k): v for k, v in next(iter(runs.values())).tree.attrs.items()}
    versions = {
        key.removesuffix("_version"): str(value)
        for key, value in attributes.items()
        if key.endswith("_version")
    }
    items.append("versions: " + ", ".join(f"{k} {v}" for k, v in sorted(versions.items())))
    code = {name: configuration_of(run) for name, run in runs.items()}
    return {
        "title": "Provenance",
        "paragraphs": [],
        "points": items,
        "code": json.dumps(code, indent=2, sort_keys=True),
    }


def _pictures(run: Run) -> dict[str, np.ndarray]:
    problem = _problem(run)
    return {} if problem is None else problem.pictures


def _problem(run: Run) -> problems.Problem | None:
    """Build a named problem again; code that a folder names is never imported."""
    configuration = configuration_of(run)
    if configuration.get("problem") not in problems.names():
        return None
    try:
        return problems.get(configuration["problem"], **configuration.get("problem_options", {}))
    except InvalidInput:  # another version's options
        return None


def _table(header: list[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"header": header, "rows": rows}
