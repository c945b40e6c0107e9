"""Exact forward simulation of the generative process."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from generative.agreement import REJECTION_CAP, AgreementConditioned
from generative.errors import AgreementNotReached, InvalidInput
from generative.model import TwoStageModel
from generative.values import require_integer, require_key


class Simulation(NamedTuple):
    """Exact draws from the two-stage prior.

    Attributes
    ----------
    theta_1, theta_2 : arrays, shape (n, d)
    tries : int array, shape (n,)
        Proposals until the heads agreed, whose mean estimates E[1 / Z(theta_1)]; 1 where the
        closed form was used.
    """

    theta_1: Float[Array, "n d"]
    theta_2: Float[Array, "n d"]
    tries: Int[Array, " n"]


def simulate(
    model: TwoStageModel, key: jax.Array, num_draws: int, cap: int = REJECTION_CAP
) -> Simulation:
    """Draw (theta_1, theta_2) from the two-stage prior exactly.

    Parameters
    ----------
    model : TwoStageModel
    key : PRNG key
    num_draws : int
    cap : int
        Proposals per draw, at most.

    Returns
    -------
    Simulation

    Raises
    ------
    InvalidInput
        If an argument cannot be used.
    AgreementNotReached
        If a draw needed more than `cap` proposals. Dropping such draws would bias
        theta_1 towards where agreement is easy, so none are returned.
    """
    if not isinstance(model, TwoStageModel):
        raise InvalidInput("model", type(model).__name__, "a TwoStageModel")
    require_key(key)
    require_integer("num_draws", num_draws, least=1)
    require_integer("cap", cap, least=1)
    theta_1, theta_2, tries = _simulate(key, model, num_draws, jnp.asarray(cap))
    failed = int(np.sum(~np.isfinite(np.asarray(theta_2)).all(-1)))
    if failed:
        raise AgreementNotReached(
            f"{failed} of {num_draws} draws found no agreement in {cap} proposals, so "
            f"Z(theta_1) is below about {1 / cap:.0e} there: rejection cannot work; "
            "lower agreement_strength, or use LinearResiduals, whose conditional is exact"
        )
    return Simulation(theta_1, theta_2, tries)


def simulate_data(
    model: TwoStageModel, key: jax.Array, theta_2: Float[ArrayLike, "n d"]
) -> dict[str, np.ndarray]:
    """Draw data from the model's observation program, one set per theta_2.

    Parameters
    ----------
    model : TwoStageModel
        Its own data, if it has any, are not looked at.
    key : PRNG key
    theta_2 : array, shape (n, d)

    Returns
    -------
    dict
        By site, arrays with a leading axis of length n; each may be handed to
        ``model.replace(data=...)``.

    Raises
    ------
    InvalidInput
        If an argument cannot be used, or the model has no observation program to draw from.
    """
    if not isinstance(model, TwoStageModel):
        raise InvalidInput("model", type(model).__name__, "a TwoStageModel")
    require_key(key)
    if model.observation is None:
        raise InvalidInput("model", "one without an observation", "one with a NumPyro program")
    points = jnp.asarray(theta_2)
    if points.ndim != 2 or points.shape[1] != model.dimension:
        found, allowed = f"shape {points.shape}", f"shape (n, {model.dimension})"
        raise InvalidInput("theta_2", found, allowed)
    drawn = _simulate_data(key, model, points)
    return {name: np.asarray(x) for name, x in drawn.items()}


@jax.jit
def _simulate_data(key: jax.Array, model: TwoStageModel, theta_2: Array) -> dict[str, Array]:
    assert model.observation is not None
    sample = model.observation.sample

    def one(key: jax.Array, theta: Array) -> dict[str, Array]:
        return sample(key, model.space.unravel(theta))

    return jax.vmap(one)(jax.random.split(key, len(theta_2)), theta_2)


@partial(jax.jit, static_argnums=2)
def _simulate(
    key: jax.Array, model: TwoStageModel, num_draws: int, cap: Int[Array, ""]
) -> tuple[Array, Array, Array]:
    key_1, key_2 = jax.random.split(key)
    theta_1 = model.first_stage.around(model.space.origin).sample(key_1, (num_draws,))
    conditioned = AgreementConditioned(model.second_stage.around(theta_1), model.agreement)
    theta_2, tries = conditioned.sample_with_tries(key_2, cap=cap)
    return theta_1, theta_2, tries
