"""The log densities that the kernels share, in nats, of single parameter vectors."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from generative import TwoStageModel

Vector = Float[Array, " d"]
Scalar = Float[Array, ""]


def log_first(model: TwoStageModel, theta_1: Vector) -> Scalar:
    """Log p1(theta_1)."""
    return model.first_stage.around(model.space.origin).log_prob(theta_1)


@partial(jax.jit, static_argnums=2)
def first_draws(key: jax.Array, model: TwoStageModel, number: int) -> Float[Array, "number d"]:
    """Draw theta_1 from p1."""
    return model.first_stage.around(model.space.origin).sample(key, (number,))


def log_second(model: TwoStageModel, theta_1: Vector, theta_2: Vector) -> Scalar:
    """Log p2(theta_2 | theta_1), on the coordinates that the second stage moves."""
    return model.second_stage.around(theta_1).log_prob(theta_2)


def log_agreeing(model: TwoStageModel, theta_1: Vector, theta_2: Vector) -> Scalar:
    """Log f(theta_2 | theta_1) = log p2(theta_2 | theta_1) - lambda C(theta_2)."""
    return log_second(model, theta_1, theta_2) + model.agreement.log_factor(theta_2)


def log_joint(model: TwoStageModel, theta_1: Vector, theta_2: Vector) -> Scalar:
    """Log joint density of parameters and data, without - log Z(theta_1)."""
    return (
        log_first(model, theta_1)
        + log_agreeing(model, theta_1, theta_2)
        + model.log_likelihood(theta_2)
    )


def share(model: TwoStageModel, theta_1: Vector, theta_2: Vector) -> Vector:
    """theta_2 with the coordinates that the second stage fixes taken from theta_1."""
    if model.moving_2.all():
        return theta_2
    return jnp.where(model.moving_2, theta_2, theta_1)


def describe(model: TwoStageModel, theta_1: jax.Array, theta_2: jax.Array) -> dict[str, jax.Array]:
    """Statistics of one draw; log densities in nats."""
    statistics = {
        "lp": log_joint(model, theta_1, theta_2),
        "disagreement": model.agreement.disagreement(theta_2),
        "disagreement_theta_1": model.agreement.disagreement(theta_1),
        "log_likelihood": model.log_likelihood(theta_2),
    }
    if model.agreement.log_normalizer is not None:
        statistics["log_normalizer"] = model.agreement.log_normalizer(theta_1)
    return statistics


def describe_pair(model: TwoStageModel, pair: tuple[Vector, Vector]) -> dict[str, jax.Array]:
    """Statistics of one draw, given as a pair; for maps over points."""
    return describe(model, *pair)


def log_normalizer_at(model: TwoStageModel, theta_1: Vector) -> Scalar:
    """Log Z(theta_1), nats, of a model that has it in closed form."""
    exact = model.agreement.log_normalizer
    assert exact is not None
    return exact(theta_1)
