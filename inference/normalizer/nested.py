"""log Z(theta_1) by BlackJAX's nested slice sampling, with p2 as prior and -lambda C as likelihood.

J. Skilling, Bayesian Analysis 1 (2006), doi:10.1214/06-BA127; D. Yallup, N. Kroupa and W. Handley
(2026), arXiv:2601.23252. An auxiliary coordinate breaks ties, so plateaus of C lose volume at the
right rate (A. Fowlie, W. Handley and L. Su, MNRAS 503 (2021), doi:10.1093/mnras/stab590).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.ns import adaptive, nss
from blackjax.ns.base import init_state_strategy
from jaxtyping import Array, Bool, Float, Int

from generative import TwoStageModel
from inference.averages import lower_bracket, mean_of_runs
from inference.estimate import Estimate
from inference.moves.density import log_second

_NUM_RUNS = 8
# Fewer live points leave the slices' covariance noisy, and fewer slices leave a new point near an
# old one: with 5 live points and 5 slices a dimension log Z came out 0.4 nats too low at d = 20.
_FEWEST_LIVE, _LIVE_PER_DIMENSION = 100, 10
_SLICES_PER_DIMENSION = 8
_SHARE_DELETED = 0.1
# Share of the evidence that may be left among the live points.
_LOG_SHARE_LEFT = np.log(1e-3)
# Evaluations of C that one slice takes, about; bounds a run by its share of the budget.
_EVALUATIONS_PER_SLICE = 5
# A run may take so many times its share of the budget before it is stopped.
_PATIENCE = 2
_TIE_BREAK = 1e-6  # nats, far below any error
_WORTHLESS = 1e12  # nats

STOPPED = "stopped by max_evaluations before the evidence had been collected"


class _NestedRun(NamedTuple):
    log_normalizer: Float[Array, ""]
    penalty: Float[Array, ""]  # mean lambda C of the first live points, draws of p2
    reached: Bool[Array, ""]
    num_evaluations: Int[Array, ""]


def nested(
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "batch d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    """Average independent runs of nested slice sampling until the error is met.

    Eight runs at a time; each has 10 live points a dimension, 100 at least, of which a tenth is
    replaced at a time by 8 slices a dimension. The spread over runs gives the error, infinite
    where a run took twice its share of the budget. `lower` is Jensen's bound, as in importance
    sampling.
    """
    theta_1 = jnp.asarray(theta_1)
    num_points = len(theta_1)
    sizes = _sizes(model)
    cost_of_step = sizes.num_delete * sizes.num_slices * _EVALUATIONS_PER_SLICE
    max_steps = max(1, _PATIENCE * max_evaluations // (num_points * _NUM_RUNS * cost_of_step))
    rounds: list[_NestedRun] = []
    spent = 0
    while True:
        keys = jax.random.split(jax.random.fold_in(key, len(rounds)), (num_points, _NUM_RUNS))
        found = jax.tree.map(np.asarray, _runs(keys, model, theta_1, max_steps))
        rounds.append(found)
        cost = int(found.num_evaluations.sum())
        spent += cost
        log_z, penalty, reached, _ = (np.concatenate(x, axis=1) for x in zip(*rounds, strict=True))
        value, error = mean_of_runs(log_z)
        error = np.where(reached.all(axis=1) & np.isfinite(value), error, np.inf)
        hopeless = ~np.isfinite(error)
        met = np.all((error <= target_standard_error) | hopeless)
        if met or spent + cost > max_evaluations:
            lower = lower_bracket(-penalty)
            note = STOPPED if hopeless.any() else ""
            return Estimate(value, error, lower, np.zeros(num_points), "nested", spent, note)


class _Sizes(NamedTuple):
    num_live: int
    num_delete: int
    num_slices: int


def _sizes(model: TwoStageModel) -> _Sizes:
    dimension = int(model.moving_2.sum()) + 1
    num_live = max(_FEWEST_LIVE, _LIVE_PER_DIMENSION * dimension)
    return _Sizes(num_live, int(_SHARE_DELETED * num_live), _SLICES_PER_DIMENSION * dimension)


@jax.jit
def _runs(
    keys: jax.Array, model: TwoStageModel, theta_1: Float[Array, "point d"], max_steps: Array
) -> _NestedRun:
    def one_point(x: tuple[jax.Array, Array]) -> _NestedRun:
        return jax.vmap(lambda key: _one_run(key, model, x[1], max_steps))(x[0])

    return jax.lax.map(one_point, (keys, theta_1))


def _one_run(
    key: jax.Array, model: TwoStageModel, theta_1: Float[Array, " d"], max_steps: Array
) -> _NestedRun:
    index = np.flatnonzero(model.moving_2)

    def theta(position: Array) -> Array:
        return theta_1.at[index].set(position[:-1].astype(theta_1.dtype))

    def log_prior(position: Array) -> Array:
        return log_second(model, theta_1, theta(position)) - 0.5 * position[-1] ** 2

    def penalty(position: Array) -> Array:
        return -model.agreement.log_factor(theta(position)).astype(jnp.result_type(float))

    def log_likelihood(position: Array) -> Array:
        cost, tie = penalty(position), jax.nn.sigmoid(position[-1])
        # Points with an infinite C are worth nothing, but must still be told apart.
        return jnp.where(jnp.isinf(cost), -_WORTHLESS * (2 - tie), -cost + _TIE_BREAK * tie)

    init_one = partial(init_state_strategy, logprior_fn=log_prior, loglikelihood_fn=log_likelihood)
    num_live, num_delete, num_slices = _sizes(model)
    kernel = nss.build_kernel(init_one, num_slices, num_delete)
    key, key_theta, key_tie, key_init = jax.random.split(key, 4)
    draws = model.second_stage.around(theta_1).sample(key_theta, (num_live,))[:, index]
    ties = jax.random.normal(key_tie, (num_live, 1), draws.dtype)
    positions = jnp.concatenate([draws, ties], axis=1).astype(jnp.result_type(float))
    state = adaptive.init(
        positions,
        jax.vmap(init_one),
        update_inner_kernel_params_fn=nss.live_covariance_factor,
        rng_key=key_init,
    )

    def is_done(state: adaptive.AdaptiveNSState) -> Array:
        return state.integrator.logZ_live - state.integrator.logZ < _LOG_SHARE_LEFT

    def unfinished(carry: tuple) -> Array:
        _, state, count, _ = carry
        return ~is_done(state) & (count < max_steps)

    def step(carry: tuple) -> tuple:
        key, state, count, cost = carry
        key, key_step = jax.random.split(key)
        state, info = kernel(key_step, state)
        slices = info.update_info
        cost += jnp.sum(slices.num_expansions + slices.num_shrink)
        return key, state, count + 1, cost

    start = (key, state, jnp.asarray(0), jnp.asarray(num_live))
    _, state, _, cost = jax.lax.while_loop(unfinished, step, start)
    log_z = jnp.logaddexp(state.integrator.logZ, state.integrator.logZ_live)
    return _NestedRun(log_z, jax.vmap(penalty)(positions).mean(), is_done(state), cost)
