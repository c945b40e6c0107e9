"""What a run says, in a short table."""

import arviz as az
import numpy as np
import xarray as xr

from analyses.tables import text_table
from inference import Run


def functionals_of(tree: xr.DataTree) -> xr.Dataset:
    """Scalar functionals of every draw of a saved run, dims (chain, draw).

    Returns
    -------
    Dataset
        The log joint and L in nats, C of both stages, and the squared distance between them.
    """
    stats, posterior = tree["sample_stats"], tree["posterior"]
    shift = posterior["theta_2"] - posterior["theta_1"]
    return xr.Dataset(
        {
            "log joint": stats["lp"],
            "C(theta_2)": stats["disagreement"],
            "C(theta_1)": stats["disagreement_theta_1"],
            "L(theta_2)": stats["log_likelihood"],
            "|theta_2 - theta_1|^2": (shift**2).sum("parameter"),
        }
    )


def right_answers(tree: xr.DataTree) -> xr.Dataset | None:
    """Probability that each head gives the true answer, by set of questions; None without labels.

    Returns
    -------
    Dataset
        One variable per set, dims (chain, draw, head).
    """
    if "posterior_predictive" not in tree.children or "constant_data" not in tree.children:
        return None
    answers, constants = tree["posterior_predictive"], tree["constant_data"]
    right = {}
    for name in answers.data_vars:
        if f"label_{name}" in constants:
            label = constants[f"label_{name}"]
            probability = xr.where(label == 1, answers[name], 1 - answers[name])
            right[name] = probability.mean(f"question_{name}").transpose("chain", "draw", "head")
    return xr.Dataset(right) if right else None


def with_error(draws: xr.DataArray) -> str:
    """Mean and Monte Carlo standard error."""
    values = draws.values
    if np.ptp(values) == 0:
        return f"{values.flat[0]:.4g} (constant)"
    return f"{values.mean():.4g} +- {float(np.asarray(az.mcse(values))):.2g}"


def evidence(run: Run) -> str:
    """Log p(data) in nats and in bits, with its standard error."""
    estimate = run.log_evidence
    if estimate is None:
        return "not estimated"
    return f"{estimate.value:.3f} +- {estimate.standard_error:.2g} nats ({estimate.bits:.3f} bits)"


def summarize(run: Run) -> str:
    """Return a run's estimates, functionals, right answers and checks."""
    tree = run.tree
    rows = [[name, with_error(draws)] for name, draws in functionals_of(tree).items()]
    if run.bits_saved is not None:
        error = run.bits_saved.standard_error / np.log(2)
        rows.insert(0, ["bits saved by agreement", f"{run.bits_saved.bits:.4g} +- {error:.2g}"])
    if run.log_evidence is not None:
        rows.insert(0, ["log evidence", evidence(run)])
    right = right_answers(tree)
    for head in ("first", "second") if right is not None else ():
        for name, draws in right.items():
            label = f"P({head} head right), {name.replace('_', ' ')}"
            rows.append([label, with_error(draws.sel(head=head))])
    table = text_table(["posterior mean", "value"], [[str(cell) for cell in row] for row in rows])
    verdicts = [
        f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.message}"
        for check in run.checks
    ]
    return "\n".join(
        [
            table,
            "",
            *verdicts,
            "",
            *(f"note: {note}" for note in run.notes),
            "",
            f"result: {run.result.value}",
        ]
    )
