"""Which function each head became: by its answers on cases in which the functions part."""

from collections.abc import Callable, Sequence

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Array, Float

from analyses.functionals import answers_of
from generative import InvalidInput, TwoStageModel
from generative.ledger import FUNCTIONS
from inference.batches import over_points

# What the functions answer: the truth, what the complex process keeps, what the simple one says.
_COLUMNS = {"intended": "alice_label", "complex": "kept_label", "simple": "bob_label"}
_SETS = ("held_out_wrong", "held_out_deceived")
_SMALLEST = 1e-12
_TIE = 1e-9
_NUM_RESAMPLED, _NUM_CHANCE = 200, 2000


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
        If a kind of cases is missing, or has one true answer only.
    """
    return _score(*_by_question(tree))


def pair_probabilities(tree: xr.DataTree) -> xr.Dataset:
    """Posterior probabilities of the nine pairs of functions.

    Each head of each draw counts as the function whose answers it gives with the highest
    probability, and as a share of each where some tie. A head need not be close to any of them:
    `score` says how close it was.

    Returns
    -------
    Dataset
        `pair`, dims (first, second), with its Monte Carlo error `pair_se`; `share`, dim first, of
        the first head alone, with `share_se`, and `share_questions`: its standard deviation over
        resampled questions of both kinds, a bootstrap of the held-out cases. `score`, dims (head,
        function), is the mean of :func:`scores`. Where no draw, or every draw, is of a pair, the
        error is one over the effective number of draws; a maximum has no Monte Carlo errors.
    """
    given, truth = _by_question(tree)
    score = _score(given, truth)
    near = _nearest(score)
    first = near.sel(head="first", drop=True).rename(function="first")
    second = near.sel(head="second", drop=True).rename(function="second")
    sampled = [d for d in near.dims if d in ("chain", "draw")]
    error = _monte_carlo(tree, sampled)
    return xr.Dataset(
        {
            "pair": (first * second).mean(sampled),
            "pair_se": error(first * second),
            "share": first.mean(sampled),
            "share_se": error(first),
            "share_questions": ("first", _over_questions(given.sel(head="first"), truth)),
            "score": score.mean(sampled),
        }
    )


def function_answers(model: TwoStageModel) -> list[np.ndarray]:
    """Return the functions' answers to both kinds of cases, each of shape (question, function).

    Raises
    ------
    InvalidInput
        If a kind of cases is missing, or has one true answer only.
    """
    found = []
    for name in _SETS:
        columns = model.columns.get(name, {})
        if not {"alice_label", "label", "bob_label"} <= set(columns):
            raise InvalidInput("problem", f"no {name}", "a problem with all kinds of cases")
        found.append(_stacked(name, columns["alice_label"], columns["label"], columns["bob_label"]))
    return found


def chance(model: TwoStageModel, key: jax.Array) -> Float[np.ndarray, " 3"]:
    """Shares of the functions that the first head is nearest to without labels or agreement."""
    labels = function_answers(model)
    weights = _weights([of_kind[:, 0] for of_kind in labels])
    key_1, key_2 = jax.random.split(key)
    theta_1 = model.first_stage.around(model.space.origin).sample(key_1, (_NUM_CHANCE,))
    theta_2 = model.second_stage.around(theta_1).sample(key_2)
    questions = jnp.concatenate([model.questions[n] for n in _SETS])
    yes = over_points(Partial(_first_head, model, questions), theta_2)
    given = _log_given(np.asarray(yes)[..., None], np.concatenate(labels))
    score = np.einsum("nqf,q->nf", given, weights)
    return _nearest(xr.DataArray(score, dims=("draw", "function"))).mean("draw").values


def _first_head(model: TwoStageModel, questions: Array, theta: Array) -> Array:
    return model.answers(theta, questions)[0]


def _by_question(tree: xr.DataTree) -> tuple[xr.DataArray, list[np.ndarray]]:
    """Log probability of each function's answer to each question, and true answers by kind."""
    answers, found, truth = answers_of(tree), [], []
    constants = tree.children["constant_data"].dataset
    for name in _SETS:
        if name not in answers or f"bob_label_{name}" not in constants:
            raise InvalidInput("run", f"no answers to {name}", "a run of a problem with all kinds")
        labels = _stacked(name, *(constants[f"{_COLUMNS[f]}_{name}"].values for f in FUNCTIONS))
        yes = answers[name].rename({f"question_{name}": "question"})
        yes = yes.drop_vars("question", errors="ignore")
        wide = yes.transpose(..., "head", "question").expand_dims(function=list(FUNCTIONS), axis=-1)
        found.append(wide.copy(data=_log_given(wide.values, labels)))
        truth.append(labels[:, 0])
    return xr.concat(found, "question"), truth


def _stacked(name: str, truth: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Answers of the functions, shape (question, function), in their order."""
    if np.ptp(truth) == 0:
        found = f"{len(truth)} cases with one true answer"
        raise InvalidInput(name, found, "both answers: a larger num_held_out, or more cases")
    return np.stack([truth, *others], axis=1)


def _log_given(yes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    yes = np.clip(yes, _SMALLEST, 1 - _SMALLEST)
    return np.where(labels == 1, np.log(yes), np.log1p(-yes))


def _weights(truth: Sequence[np.ndarray]) -> np.ndarray:
    """Weights of questions: kinds weigh alike, and both true answers within a kind."""
    share = 1 / (2 * len(truth))
    return np.concatenate([share / np.where(t == 1, (t == 1).sum(), (t == 0).sum()) for t in truth])


def _score(given: xr.DataArray, truth: list[np.ndarray]) -> xr.DataArray:
    return given.dot(xr.DataArray(_weights(truth), dims="question"), dim="question")


def _nearest(score: xr.DataArray) -> xr.DataArray:
    """Share of each function among those with the highest score."""
    near = (score >= score.max("function") - _TIE).astype(float)
    return near / near.sum("function")


def _over_questions(given: xr.DataArray, truth: list[np.ndarray]) -> np.ndarray:
    """Bootstrap standard deviation of the shares, over questions of a kind and a true answer."""
    rng = np.random.default_rng(0)
    strata = np.concatenate([2 * kind + t for kind, t in enumerate(truth)])
    counts = np.zeros((_NUM_RESAMPLED, len(strata)))
    for stratum in np.unique(strata):
        (of_stratum,) = np.nonzero(strata == stratum)
        size = len(of_stratum)
        counts[:, of_stratum] = rng.multinomial(size, np.full(size, 1 / size), _NUM_RESAMPLED)
    weights = xr.DataArray(counts * _weights(truth), dims=("resample", "question"))
    resampled = given.dot(weights, dim="question")
    sampled = [d for d in resampled.dims if d in ("chain", "draw")]
    return _nearest(resampled).mean(sampled).std("resample", ddof=1).values


def _monte_carlo(tree: xr.DataTree, sampled: list) -> Callable[[xr.DataArray], xr.DataArray]:
    """Return what gives the Monte Carlo error of a mean over draws; NaN without draws."""
    if not sampled:
        return lambda x: xr.full_like(x, np.nan)
    effective = float(np.asarray(az.ess(tree["sample_stats"]["lp"].values)))

    def one(draws: np.ndarray) -> float:
        return 1 / effective if np.ptp(draws) == 0 else float(np.asarray(az.mcse(draws)))

    return lambda x: xr.apply_ufunc(one, x, input_core_dims=[["chain", "draw"]], vectorize=True)
