"""C, L and answers at draws of the stages: what theta_0 alone does not show."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative.errors import InvalidInput
from generative.model import TwoStageModel
from generative.reflections import random_signs
from generative.user_code import blame
from generative.values import rounding

Where = Callable[[int], str]

_NUM_POINTS, _FEWEST_POINTS = 32, 4
# Of larger models only a few points are affordable.
_LARGEST = 30_000
_SHOWN = 3
_NOT_NEGATIVE = "C >= 0 wherever the stages reach"


def check_points(model: TwoStageModel, seed: int = 0) -> None:
    """Evaluate C and L at some draws of theta_1 and of theta_2 before conditioning.

    Rejection takes exp(-lambda C) for a probability, and samplers reject where C or L is not a
    number: either would give draws of another posterior without a word. C may be +infinity (never
    agreed) and L -infinity (impossible data).

    Parameters
    ----------
    model : TwoStageModel
    seed : int
        Of the draws.

    Raises
    ------
    InvalidInput
        If C is negative beyond rounding or NaN, L is NaN or +infinity, the heads' answers to a
        labelled set are no probabilities, or a reflection changes a stage, C, L or an answer. The
        sentence names the point, where there is one.
    """
    number = _NUM_POINTS if model.dimension <= _LARGEST else _FEWEST_POINTS
    points = _draws(jax.random.key(seed), model, number)
    with blame("model", "C, L and heads that can be computed at any theta"):
        found = _evaluate(model, points)
    found = {name: np.asarray(value) for name, value in found.items()}
    coordinates = np.asarray(points)
    if len(model.reflections):
        _check_reflections(model, coordinates, found)

    def where(index: int) -> str:
        return _described(coordinates[index])

    penalty, likelihood = found.pop("disagreement"), found.pop("log_likelihood")
    refuse_negative("disagreement", penalty, where, model)
    bad = np.isnan(likelihood) | (likelihood == np.inf)
    _refuse("log_likelihood", likelihood, bad, where, "a number of nats, or -infinity")
    for name, outside in found.items():
        bad = ~(outside <= _tolerance(model))
        if bad.any():
            point = where(int(bad.argmax()))
            found = f"answers to questions[{name!r}] that are no probabilities, {point}"
            allowed = "probabilities of yes in [0, 1] where there are labels"
            raise InvalidInput("heads", found, allowed)


def _check_reflections(
    model: TwoStageModel, points: Float[np.ndarray, "n d"], found: dict[str, np.ndarray]
) -> None:
    """Compare stages, C, L and answers at the points with those at a reflection of each pair."""
    half = random_signs(model.reflections, np.random.default_rng(0), (len(points) // 4,))
    # With each product that of all other reflections, so that every one is a factor somewhere.
    signs = np.concatenate([half, half * np.prod(model.reflections, axis=0)])
    reflected = points * np.concatenate([signs, signs]).astype(points.dtype)
    before = found | {"stages": np.asarray(_log_stages(model, points))}
    with blame("model", "C, L and heads that can be computed at any theta"):
        after = _evaluate(model, reflected) | {"stages": _log_stages(model, reflected)}
    for name, x in before.items():
        y = np.asarray(after[name])
        least = _tolerance(model)  # nats
        if name == "disagreement":
            least /= max(float(model.agreement.strength), 1.0)
        bad = ~np.isclose(y, x, _tolerance(model), least, equal_nan=True)
        if bad.any():
            first = int(bad.argmax())
            where = "" if name == "stages" else f" {_described(points[first])}"
            change = f"{name} from {x[first]:.6g} to {y[first]:.6g}{where}"
            allowed = "signs that leave both stages, C, L and answers as they are"
            raise InvalidInput("reflections", f"a change of {change}", allowed)


def refuse_negative(
    name: str, values: Float[np.ndarray, " n"], where: Where, model: TwoStageModel
) -> None:
    """Refuse values of C that are NaN, or negative beyond rounding.

    Parameters
    ----------
    name : str
        Of the function or statistic.
    values : array, shape (n,)
    where : callable
        Describes a point, by its index.
    model : TwoStageModel

    Raises
    ------
    InvalidInput
    """
    finite = np.abs(values[np.isfinite(values)])
    # In nats: a billionth of what agreement typically costs, and of one nat.
    scale = (finite.mean() if finite.size else 0.0) + 1 / max(float(model.agreement.strength), 1.0)
    _refuse(name, values, ~(values >= -_tolerance(model) * scale), where, _NOT_NEGATIVE)


def _refuse(name: str, values: np.ndarray, bad: np.ndarray, where: Where, allowed: str) -> None:
    if bad.any():
        first = int(bad.argmax())
        value = "NaN" if np.isnan(values[first]) else f"{values[first]:.6g}"
        raise InvalidInput(name, f"{value} {where(first)}", allowed)


def _tolerance(model: TwoStageModel) -> float:
    return rounding(model.space.origin.dtype)


@partial(jax.jit, static_argnums=2)
def _draws(key: jax.Array, model: TwoStageModel, number: int) -> Float[Array, "n d"]:
    """Draws of theta_1, and of theta_2 around them."""
    key_1, key_2 = jax.random.split(key)
    theta_1 = model.first_stage.around(model.space.origin).sample(key_1, (number,))
    theta_2 = model.second_stage.around(theta_1).sample(key_2)
    return jnp.concatenate([theta_2, theta_1])


@jax.jit
def _evaluate(model: TwoStageModel, points: Float[Array, "n d"]) -> dict[str, Float[Array, " n"]]:
    def at(theta: Float[Array, " d"]) -> dict[str, Array]:
        found = {
            "disagreement": model.agreement.disagreement(theta),
            "log_likelihood": model.log_likelihood(theta),
        }
        # How far answers lie outside of [0, 1]; NaN stays NaN.
        return found | {
            name: jnp.max(jnp.abs(model.answers(theta, model.questions[name]) - 0.5)) - 0.5
            for name in model.labelled
        }

    # One after the other: a batch of points need not fit into memory.
    return jax.lax.map(at, points)


@jax.jit
def _log_stages(model: TwoStageModel, points: Float[Array, "n d"]) -> Float[Array, " pair"]:
    """Log p1 + log p2 of pairs as :func:`_draws` lays them out, nats."""
    theta_2, theta_1 = jnp.split(points, 2)
    first = model.first_stage.around(model.space.origin).log_prob(theta_1)
    return first + model.second_stage.around(theta_1).log_prob(theta_2)


def _described(point: np.ndarray) -> str:
    shown = ", ".join(f"{x:.4g}" for x in point[:_SHOWN])
    return f"at theta = ({shown}{', ...' if len(point) > _SHOWN else ''})"
