"""Scalar functionals of a draw: what a posterior over networks is judged by.

A network's parameters have symmetries that its functions do not; convergence is therefore judged
on what a draw *does*.
"""

from typing import Any

import numpy as np

from generative import TwoStageModel
from inference.answers import answers
from inference.directions import agreement_directions, whitened_shift
from inference.reflections import in_one_copy

# Directions that are judged one by one.
_LEADING = 3


def functionals(
    model: TwoStageModel,
    values: dict[str, np.ndarray],
    answered: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Functionals of every draw, arrays of shape (chain, draw).

    Parameters
    ----------
    model : TwoStageModel
    values, answered : dict
        As `values` and `answers` in :class:`~inference.results.draws.Draws`.
    """
    origin = np.asarray(model.space.origin)
    names = ("lp", "disagreement", "disagreement_theta_1", "log_likelihood")
    result = _comparable(model, {name: values[name] for name in names if name in values})
    for name, start in (("theta_1", origin), ("theta_2", values["theta_1"])):
        by_block = values.get(f"squared_distance_{name[-1]}")
        squares = (values[name] - start) ** 2 if by_block is None else by_block
        result[f"distance_{name}"] = np.sum(squares, axis=-1)
    result |= where_z_acts(model, values)
    if "disagreement_negative" in values:
        result["disagreement_negative"] = values["disagreement_negative"]
    answered = answers(model, values["theta_2"]) if answered is None else answered
    for name, answer in answered.items():
        for index, head in enumerate(("first", "second")):
            result[f"{head}_{name}"] = answer[:, :, index].reshape(*answer.shape[:2], -1).mean(-1)
    return result


def where_z_acts(model: TwoStageModel, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """theta_1 along the directions in which C changes; shape (chain, draw).

    Where reflections of the model turn a direction, its sign alone means nothing: there it is the
    square, and products of directions that are turned together.
    Empty where C has no gradient, or where only a few draws are kept whole.

    Parameters
    ----------
    model : TwoStageModel
    values : dict
        As in :class:`~inference.results.draws.Draws`.
    """
    if values["theta_1"].shape[:2] != values["lp"].shape:
        return {}
    directions = agreement_directions(model)
    if not len(directions.rows):
        return {}
    along = whitened_shift(model, values["theta_1"]) @ directions.rows.T
    result = {}
    for i in range(min(_LEADING, along.shape[-1])):
        if not directions.is_turned[i]:
            result[f"theta_1_along_{i + 1}"] = along[..., i]
            continue
        result[f"theta_1_along_{i + 1}_squared"] = along[..., i] ** 2
        for j in range(i):
            if directions.group[j] == directions.group[i]:
                result[f"theta_1_along_{j + 1}_times_{i + 1}"] = along[..., j] * along[..., i]
    return result | {"theta_1_projected": np.sum(along**2, axis=-1)}


def bounded_cost(cost: Any) -> Any:
    """C / (1 + C) of numbers or arrays: C may be infinite where nobody asks the heads to agree."""
    return 1 - 1 / (1 + cost)


def _comparable(model: TwoStageModel, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return them with C bounded where it may be infinite: sets of draws are compared by means."""
    anywhere = ["disagreement_theta_1"] + ["disagreement"] * model.agreement.is_absent
    return {name: bounded_cost(x) if name in anywhere else x for name, x in found.items()}


def judged(
    model: TwoStageModel, values: dict[str, np.ndarray], answered: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return what convergence is judged on: C, L, the log joint, and answers or parameters.

    Where the model has heads these are its answers, question by question; else the parameters
    that are not constants (by design). C(theta_1), theta_1 where Z acts on it, and how far theta_2
    went from theta_1 are judged in either case: a wrong Z shows there and nowhere else.
    """
    names = ["disagreement", "lp"] + ([] if model.is_null else ["log_likelihood"])
    acts = not model.agreement.is_absent
    names += ["disagreement_theta_1"] if acts and "disagreement_theta_1" in values else []
    result = _comparable(model, {name: values[name] for name in names})
    if acts:
        result |= where_z_acts(model, values)
    kept = values["theta_1"].shape[:2] == values["lp"].shape
    if kept and model.moving_2.any():
        result["distance_theta_2"] = np.sum((values["theta_2"] - values["theta_1"]) ** 2, axis=-1)
    if answered:
        return result | {f"answers_{name}": answer for name, answer in answered.items()}
    if values["theta_1"].shape[1] < values["lp"].shape[1]:
        # Of a large model only a few draws are kept whole.
        return result | {n: values[n] for n in ("squared_distance_1", "squared_distance_2")}
    free = {"theta_1": model.moving_1, "theta_2": model.moving_1 | model.moving_2}
    pair = in_one_copy(model, values["theta_1"], values["theta_2"])
    for (name, mask), theta in zip(free.items(), pair, strict=True):
        if mask.any():
            result[name] = theta[..., mask]
    return result
