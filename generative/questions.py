"""Checks of heads, questions, labels and columns, and of the names that a run's tree takes."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import ArrayLike

from generative.errors import InvalidInput
from generative.user_code import require_callable, traced
from generative.values import require_mapping

if TYPE_CHECKING:
    from generative.model import TwoStageModel

# Dims, coordinates and variables of every run's tree.
_TAKEN = (
    *("theta_0", "theta_1", "theta_2", "theta_2_fixed", "chain", "draw", "sample", "parameter"),
    *("head", "block", "start", "step", "functional", "squared_distance_1", "squared_distance_2"),
)
_HEADS = "a callable (theta, inputs) -> (2, question, ...)"


def check_mappings(
    questions: Mapping[str, Any] | None,
    labels: Mapping[str, ArrayLike | Sequence] | None,
    columns: Mapping[str, Mapping[str, ArrayLike | Sequence]] | None,
) -> None:
    """Refuse what is no mapping from names, before it is read.

    Raises
    ------
    InvalidInput
    """
    for name, given in (("questions", questions), ("labels", labels), ("columns", columns)):
        if given is not None:
            require_mapping(name, given)
    for name, given in (columns or {}).items():
        require_mapping(f"columns[{name!r}]", given)


def check_questions(model: "TwoStageModel", sites: Iterable[str]) -> None:
    """Check heads, questions, labels and columns against each other; nothing is computed.

    Parameters
    ----------
    model : TwoStageModel
    sites : iterable of str
        Sample sites of the model's observation.

    Raises
    ------
    InvalidInput
    """
    if model.heads is not None:
        require_callable("heads", model.heads, "(theta, inputs) -> (2, question, ...)")
        if not model.questions:
            allowed = "sets of inputs, questions={name: inputs}, for the heads to answer"
            raise InvalidInput("questions", "none beside heads", allowed)
    elif model.questions:
        found = f"{_listed(model.questions)} without heads"
        raise InvalidInput("questions", found, f"with heads, {_HEADS}")
    for field, given in (("labels", model.labels), ("columns", model.columns)):
        for name in given:
            if name not in model.questions:
                allowed = f"sets of questions: {_listed(model.questions)}"
                raise InvalidInput(field, f"{name!r}", allowed)
    _check_names(model, sites)
    for name, inputs in model.questions.items():
        _check_set(model, name, _answered(model, name, inputs))


def _answered(model: "TwoStageModel", name: str, inputs: Any) -> tuple[int, ...]:
    """Shape of the heads' answers to a set."""
    shape = traced("heads", lambda theta: model.answers(theta, inputs), model.theta_0).shape
    if len(shape) < 2 or shape[0] != 2:
        found = f"answers of shape {shape} to questions[{name!r}]"
        raise InvalidInput("heads", found, "shape (2, question, ...): the first and second head's")
    if shape[1] == 0:
        raise InvalidInput(f"questions[{name!r}]", "no questions", "at least one")
    if 0 in shape:
        raise InvalidInput("heads", f"answers of shape {shape}", "at least one number an answer")
    return shape


def _check_set(model: "TwoStageModel", name: str, shape: tuple[int, ...]) -> None:
    number = shape[1]
    for column, values in model.columns.get(name, {}).items():
        field = f"columns[{name!r}][{column!r}]"
        if values.shape != (number,):
            raise InvalidInput(field, f"shape {values.shape}", f"shape ({number},)")
        if values.dtype.kind not in "biufU":
            raise InvalidInput(field, f"dtype {values.dtype}", "numbers or strings")
    if name not in model.labels:
        return
    labels, field = model.labels[name], f"labels[{name!r}]"
    if len(shape) > 2:
        allowed = (
            "labels where each head answers with one number, the probability of yes, as (2, "
            "question); without labels the shape of an answer is free"
        )
        raise InvalidInput(field, f"labels, and answers of shape {shape}", allowed)
    if labels.shape != (number,):
        raise InvalidInput(field, f"shape {labels.shape}", f"shape ({number},)")
    if labels.dtype.kind not in "biuf":
        raise InvalidInput(field, f"dtype {labels.dtype}", "0 or 1 for every question")
    bad = labels[~np.isin(labels, (0, 1))]
    if len(bad):
        raise InvalidInput(field, bad[0], "0 or 1 for every question")


def _check_names(model: "TwoStageModel", sites: Iterable[str]) -> None:
    """Refuse names that netCDF cannot hold, and those that would stand for two things."""
    sites = list(sites)
    for name in sites:
        _check_name("observation", name)
    for name in sorted(set(sites) & set(model.questions)):
        raise InvalidInput("questions", f"{name!r}", "names that are no sites of observation")
    for name in model.questions:
        _check_name("questions", name)
    for name, columns in model.columns.items():
        for column in columns:
            _check_name(f"columns[{name!r}]", column)
    count = Counter([*_TAKEN, *sites, *names_of(model)])
    for field, names in (("observation", sites), ("questions", names_of(model))):
        for name in names:
            if count[name] > 1:
                found = f"{name!r} for two things in the run's tree"
                raise InvalidInput(field, found, "other names of sets, columns and sites")


def names_of(model: "TwoStageModel") -> list[str]:
    """Names that sets of questions take in a run's tree, as variables and as dims."""
    names = [n for name in model.questions for n in (name, f"question_{name}")]
    names += [f"label_{name}" for name in model.labels]
    for name, columns in model.columns.items():
        names += [f"{'kept_label' if c == 'label' else c}_{name}" for c in columns]
    return names


def _check_name(field: str, name: str) -> None:
    if not name.strip() or name != name.strip():
        found = f"{name!r}, an empty name" if not name.strip() else repr(name)
        raise InvalidInput(field, found, "names without blanks around them")
    if "/" in name or name in (".", "..") or not name.isprintable():
        raise InvalidInput(field, repr(name), "names of printable characters without '/'")
    if re.search(r"_dim_\d+$", name):
        raise InvalidInput(field, repr(name), "names that do not end with _dim_ and a number")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
