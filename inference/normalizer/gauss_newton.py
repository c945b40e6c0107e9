"""log Z(theta_1) by importance sampling from the Gauss-Newton Gaussian.

Linearised residuals make q(. | theta_1) Gaussian, by m x m algebra: an importance proposal without
noise where the residuals are linear. Elsewhere a tenth of the draws comes from p2 itself, which
bounds the weights (T. Hesterberg, Technometrics 37 (1995), doi:10.1080/00401706.1995.10484303). It
can still miss other modes, and its weights would not tell. So chains that start all over the second
stage look for places that q has and the draws have not.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import GaussianConditional, InvalidInput, TwoStageModel
from inference.annealing.path import Path
from inference.averages import lower_bracket
from inference.estimate import Estimate
from inference.gaussians.linearized import attached, detached, linearize_at_mode
from inference.gaussians.surrogate import agreement_potential, fit, flat
from inference.normalizer.dispersed import dispersed_chains
from inference.normalizer.importance import error_of_mean, is_hopeless, log_sums

_NUM_DRAWS, _NUM_CHAINS = 250, 128
_DEFENSIVE_SHARE = 0.1
# So large a share of the chains may end where no draw of the proposal has as large a weight.
MAX_UNCOVERED = 0.03
_ROUNDING = 1e-6  # nats
NEARLY_EQUAL = 0.5  # nats
_ENOUGH_TO_MISS = 2048
_LARGE_DIMENSION = 1000
_NUM_FIT_CHAINS, _NUM_FIT_POINTS = 64, 16
_NUM_PLAIN = 256  # draws of the second stage, for Jensen's bound


def gauss_newton(
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "batch d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    """Average f over the Gauss-Newton Gaussian, and check that nothing of q was missed.

    Where only C is given, the Gaussian is fitted to the mean curvature and gradient of lambda C
    over a first set of chains. The error is infinite where fewer than 50 draws carry the average,
    where more than 3 % of the chains end beyond all draws, where the chains do not settle, and
    where C shows no curvature.

    Raises
    ------
    InvalidInput
        If the second stage is not Gaussian.
    """
    if not model.second_stage.is_gaussian:
        raise InvalidInput(
            "method", "gauss_newton for a second stage that is not Gaussian", "GaussianStage"
        )
    theta_1 = jnp.asarray(theta_1)
    num_points = len(theta_1)
    key_start, key_trial, key_draws = jax.random.split(key, 3)
    bases, penalties, ends, cost = _prepare(jax.random.split(key_start, num_points), model, theta_1)
    size = _NUM_DRAWS if model.dimension > _LARGE_DIMENSION else 4 * _NUM_DRAWS
    spent = int(cost.sum()) + num_points * _NUM_DRAWS

    def weights(key: jax.Array, number: int, share: float) -> np.ndarray:
        keys = jax.random.split(key, num_points)
        return np.asarray(_weights(keys, model, theta_1, bases, number, share), np.float64)

    trial = weights(key_trial, _NUM_DRAWS, 0.0)
    share = 0.0 if _are_nearly_equal(trial, np.asarray(ends.pure)) else _DEFENSIVE_SHARE
    known = np.asarray(ends.pure if share == 0 else ends.mixed, np.float64)
    is_flat = _is_flat(bases)
    max_draws = max(size, (max_evaluations - spent) // num_points)
    sums = np.full((2, num_points), -np.inf)
    largest = np.full((num_points, 1), -np.inf)
    num_draws = 0
    while True:
        log_weights = weights(jax.random.fold_in(key_draws, num_draws), size, share)
        sums = np.logaddexp(sums, log_sums(log_weights))
        largest = np.maximum(largest, log_weights.max(axis=1, keepdims=True))
        num_draws += size
        value, error = sums[0] - np.log(num_draws), error_of_mean(sums, num_draws)
        is_missed = np.mean(~(known <= largest + _ROUNDING), axis=1) > MAX_UNCOVERED
        error = np.where(is_missed | is_flat, np.inf, error)
        # More draws seldom reach what so many have missed.
        hopeless = is_hopeless(sums, num_draws, max_draws) | is_flat
        hopeless |= is_missed & (num_draws >= _ENOUGH_TO_MISS)
        met = np.all((error <= target_standard_error) | hopeless)
        if met or num_draws >= max_draws:
            spent += num_points * num_draws
            lower = lower_bracket(-np.asarray(penalties, np.float64))
            return Estimate(value, error, lower, np.zeros(num_points), "gauss_newton", spent)


def _are_nearly_equal(*log_weights: Float[np.ndarray, "point _"]) -> bool:
    """Whether the Gaussian alone will do: no weight differs much from any other of its point."""
    together = np.concatenate(log_weights, axis=1)
    return bool(np.all(np.ptp(together, axis=1) < NEARLY_EQUAL))


@jax.jit
def proposal(
    key: jax.Array, model: TwoStageModel, theta_1: Float[Array, " d"]
) -> tuple[GaussianConditional, Array]:
    """Return a Gaussian stand-in for q(. | theta_1), and its cost in evaluations of C."""
    if model.agreement.residuals is not None:
        return linearize_at_mode(model, theta_1)
    key_chains, key_fit = jax.random.split(key)
    chains = dispersed_chains(key_chains, Path(model, theta_1, flat(model)), _NUM_FIT_CHAINS)
    potential = agreement_potential(model)
    surrogate = fit(key_fit, model, potential, chains.draws, _NUM_FIT_POINTS)
    num_products = surrogate.A.shape[0] * _NUM_FIT_POINTS
    return surrogate, chains.num_evaluations + num_products + _NUM_FIT_CHAINS


class _Ends(NamedTuple):
    """Log weights where the chains end, under the Gaussian alone and with p2's share."""

    pure: Float[Array, "point n"]
    mixed: Float[Array, "point n"]


@jax.jit
def _prepare(
    keys: jax.Array, model: TwoStageModel, theta_1: Float[Array, "point d"]
) -> tuple[GaussianConditional, Array, _Ends, Array]:
    """Per point: proposal, lambda C at draws of the second stage, log weights of chains, cost."""

    def one(x: tuple[jax.Array, Array]) -> tuple:
        key, theta_1 = x
        key_base, key_plain, key_chains = jax.random.split(key, 3)
        base, cost = proposal(key_base, model, theta_1)
        plain = model.second_stage.around(theta_1).sample(key_plain, (_NUM_PLAIN,))
        penalties = -jax.vmap(model.agreement.log_factor)(plain)
        path = Path(model, theta_1, base)
        chains = dispersed_chains(key_chains, path, _NUM_CHAINS)
        ends = _Ends(*(_log_weight(path, chains.draws, share) for share in (0.0, _DEFENSIVE_SHARE)))
        ends = jax.tree.map(lambda w: jnp.where(chains.settled, w, jnp.nan), ends)
        cost += _NUM_PLAIN + chains.num_evaluations + _NUM_CHAINS
        return detached(base), penalties, ends, cost

    return jax.lax.map(one, (keys, theta_1))


@partial(jax.jit, static_argnums=(4, 5))
def _weights(
    keys: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array, "point d"],
    bases: GaussianConditional,
    num_draws: int,
    share: float,
) -> Float[Array, "point n"]:
    def one(x: tuple) -> Array:
        key, theta_1, base = x
        path = Path(model, theta_1, attached(model, base))
        key_plain, key_base = jax.random.split(key)
        num_plain = int(share * num_draws)
        plain = model.second_stage.around(theta_1).sample(key_plain, (num_plain,))
        draws = jnp.concatenate([plain, path.sample(key_base, num_draws - num_plain)])
        return _log_weight(path, draws, share)

    return jax.lax.map(one, (keys, theta_1, bases))


def _log_weight(path: Path, draws: Float[Array, "n d"], share: float) -> Float[Array, " n"]:
    """Log of f over the mixture of the Gaussian and a share of p2, nats."""

    def one(theta: Array) -> Array:
        of_gaussian = -path.base.potential(theta) - path.log_base_normalizer
        mixture = jnp.logaddexp(jnp.log1p(-share) + of_gaussian, jnp.log(share))
        return path.model.agreement.log_factor(theta) - mixture

    return jax.vmap(one)(draws)


def _is_flat(bases: GaussianConditional) -> np.ndarray:
    """Whether a point's proposal knows no more than the second stage itself."""
    roots = np.asarray(bases.inverse_root)
    return np.all(roots == np.eye(roots.shape[-1]), axis=(1, 2))
