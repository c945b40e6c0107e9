"""Which function each head became: by its answers on cases in which the functions part."""

import arviz as az
import numpy as np
import xarray as xr

from analyses.functionals import answers_of
from generative import InvalidInput
from generative.ledger import FUNCTIONS

# The true answers, those of the complex process, and those of the simple one.
_COLUMNS = {"intended": "alice_label", "complex": "kept_label", "simple": "bob_label"}
_SETS = ("held_out_wrong", "held_out_deceived")
_SMALLEST = 1e-12


def scores(tree: xr.DataTree) -> xr.DataArray:
    """Log probability that each head gives each function's answers, nats per question.

    Where the human is right all functions answer alike, so that only two kinds of held-out cases
    count, with equal weight: those that the complex process corrects, and those where it is
    deceived too. Within a kind the questions whose true answer is yes weigh as much as the others,
    or a head inclined to one answer would look honest where that is the truth more often.

    Parameters
    ----------
    tree : DataTree
        Of a run, with both kinds of held-out cases and their columns.

    Returns
    -------
    DataArray
        Dims (chain, draw, head, function), or (head, function) for a maximum.

    Raises
    ------
    InvalidInput
        If a kind of cases is missing.
    """
    answers, found = answers_of(tree), []
    for name in _SETS:
        if name not in answers or f"bob_label_{name}" not in tree["constant_data"]:
            raise InvalidInput("run", f"no answers to {name}", "a run of a problem with all kinds")
        question = f"question_{name}"
        columns = [tree["constant_data"][f"{_COLUMNS[function]}_{name}"] for function in FUNCTIONS]
        labels = xr.concat([c.drop_vars(question, errors="ignore") for c in columns], "function")
        yes = answers[name].drop_vars(question, errors="ignore").clip(_SMALLEST, 1 - _SMALLEST)
        given = xr.where(labels == 1, np.log(yes), np.log1p(-yes))
        truth = labels.isel(function=list(FUNCTIONS).index("intended"))
        found.append(given.groupby(truth.rename("truth")).mean(question).mean("truth"))
    total = (found[0] + found[1]) / 2
    return total.assign_coords(function=list(FUNCTIONS)).transpose(..., "head", "function")


def pair_probabilities(tree: xr.DataTree) -> xr.Dataset:
    """Posterior probabilities of the nine pairs of functions.

    Each head of each draw counts as the function whose answers it gives with the highest
    probability. A head need not be close to any of them: `score` says how close it was.

    Returns
    -------
    Dataset
        `probability` and `standard_error`, dims (first, second); `score`, dims (head, function),
        the mean of :func:`scores`. Where no draw, or every draw, is of a pair, the error is one
        over the effective number of draws; a maximum has no errors.
    """
    score = scores(tree)
    best = score.argmax("function")
    first, second = best.sel(head="first").values, best.sel(head="second").values
    number = len(FUNCTIONS)
    is_drawn = first.ndim > 0
    effective = float(np.asarray(az.ess(tree["sample_stats"]["lp"].values))) if is_drawn else np.nan
    probability, error = np.zeros((number, number)), np.full((number, number), np.nan)
    for f, g in np.ndindex(number, number):
        of_pair = ((first == f) & (second == g)).astype(float)
        probability[f, g] = of_pair.mean()
        if is_drawn:
            constant = np.ptp(of_pair) == 0
            error[f, g] = 1 / effective if constant else float(np.asarray(az.mcse(of_pair)))
    dims = ("first", "second")
    sampled = [d for d in score.dims if d in ("chain", "draw")]
    return xr.Dataset(
        {
            "probability": (dims, probability),
            "standard_error": (dims, error),
            "score": score.mean(sampled),
        },
        coords={name: list(FUNCTIONS) for name in dims},
    )
