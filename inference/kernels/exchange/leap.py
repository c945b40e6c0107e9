"""Moves of theta_2 given theta_1 that may go anywhere, whatever separates the basins of agreement.

What is proposed is as close to q(. | theta_1) as negative samples get: draws of q where these are
exact, accepted by L alone; draws of a library where they borrow from one; and draws of p2.
"""

import jax
from jaxtyping import Array, Bool, Float, Int

from generative import TwoStageModel
from inference.kernels.exchange.state import ExchangeState, Tuning
from inference.kernels.negative import NegativeSampler, PersistentNegative
from inference.moves.independence import independence_step, offer


def leap(
    key: jax.Array, model: TwoStageModel, negative: NegativeSampler, state: ExchangeState
) -> Float[Array, " d"]:
    """Move theta_2, leaving q(. | theta_1) exp(L) invariant.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    negative : NegativeSampler
    state : ExchangeState
    """
    theta_1, theta_2 = state.z["theta_1"], state.z["theta_2"]
    if negative.is_exact:
        key_draw, key_accept = jax.random.split(key)
        settings = (state.tuning, theta_1, theta_2, state.num_moves)
        drawn, _, found = moved_negative(key_draw, model, negative, *settings)
        return offer(key_accept, model, theta_2, drawn, found)

    def log_weight(theta: Array) -> Array:
        return model.log_likelihood(theta) + model.agreement.log_factor(theta)

    theta_2 = independence_step(key, model, theta_1, theta_2, log_weight)
    if isinstance(negative, PersistentNegative) and negative.library is not None:
        library, key = negative.library, jax.random.fold_in(key, 1)
        theta_2 = library.move(key, model, theta_1, theta_2, library.num_rows_2)
    return theta_2


def moved_negative(
    key: jax.Array,
    model: TwoStageModel,
    sampler: NegativeSampler,
    tuning: Tuning,
    at: Float[Array, " d"],
    start: Float[Array, " d"],
    num_moves: Int[Array, ""],
) -> tuple[Float[Array, " d"], Float[Array, ""], Bool[Array, ""]]:
    """Call a sampler with what warm-up chose for it; see :class:`NegativeSampler`."""
    settings = (tuning.metric_negative, tuning.step_negative.value, num_moves)
    return sampler(key, model, at, start, *settings)
