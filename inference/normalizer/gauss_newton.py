"""log Z(theta_1) by a bridge between the Gauss-Newton Gaussian and q(. | theta_1).

Linearised residuals make q(. | theta_1) Gaussian, by m x m algebra. Draws of that Gaussian and
draws of q, from Markov chains that start at draws of the second stage, meet in Bennett's ratio:
without any noise where the residuals are linear. The chains look where the linearisation does not,
so other modes and heavy tails show as missing overlap.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from generative import GaussianConditional, GaussianStage, InvalidInput, TwoStageModel
from inference.estimate import Estimate
from inference.kernels.surrogate import agreement_potential, fit, flat
from inference.normalizer.annealing import Schedule
from inference.normalizer.bidirectional import acceptance_ratio, forward_work, reverse_work
from inference.normalizer.dispersed import dispersed_chains
from inference.normalizer.linearized import linearize_at_mode
from inference.normalizer.path import Path
from inference.normalizer.spread import lower_bracket

NUM_BLOCKS = 16
_NUM_FORWARD, _NUM_REVERSE = 16, 8  # a block
# Forward draws alone give another estimate; if it differs by more, q has parts that they miss.
_MAX_CONTRADICTION = 4.0
_NUM_FIT_CHAINS, _NUM_FIT_POINTS = 64, 16
_NUM_PLAIN = 256  # draws of the second stage, for Jensen's bound


def gauss_newton(
    model: TwoStageModel,
    theta_1: Float[Array, "batch d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    """Bridge from the linearised conditional law to the true one.

    Where only C is given, the Gaussian is fitted to the mean curvature and gradient of lambda C
    over a first set of chains. The error is infinite where the two ends do not overlap, where draws
    of the Gaussian alone say something else than both ends together, where the chains do not
    settle (the value is NaN then), and where C shows no curvature.

    Raises
    ------
    InvalidInput
        If the second stage is not Gaussian.
    """
    if not isinstance(model.second_stage, GaussianStage):
        raise InvalidInput(
            "method", "gauss_newton for a second stage that is not Gaussian", "GaussianStage"
        )
    theta_1 = jnp.asarray(theta_1)
    key, key_base = jax.random.split(key)
    keys = jax.random.split(key_base, len(theta_1))
    bases, penalties, cost = _bases(keys, model, theta_1)
    spent = int(cost.sum())
    roots = np.asarray(bases.inverse_root)
    is_flat = np.all(roots == np.eye(roots.shape[-1]), axis=(1, 2))
    rounds: list[tuple[np.ndarray, np.ndarray]] = []
    while True:
        keys = jax.random.split(jax.random.fold_in(key, len(rounds)), len(theta_1))
        *work, cost = _work(keys, model, theta_1, bases)
        spent += int(cost.sum())
        rounds.append(tuple(np.asarray(x, np.float64) for x in work))
        forward, reverse = (np.concatenate(x, axis=2) for x in zip(*rounds, strict=True))
        value, error = np.array([_finish(*x) for x in zip(forward, reverse, strict=True)]).T
        error = np.where(is_flat, np.inf, error)
        hopeless = ~np.isfinite(error)
        if (
            np.all((error <= target_standard_error) | hopeless)
            or spent + int(cost.sum()) > max_evaluations
        ):
            break
    lower = lower_bracket(-np.asarray(penalties, np.float64))
    return Estimate(value, error, lower, np.zeros_like(value), "gauss_newton", spent)


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


@partial(jax.jit, static_argnums=(1,))
def _bases(
    keys: jax.Array, model: TwoStageModel, theta_1: Float[Array, "point d"]
) -> tuple[GaussianConditional, Array, Array]:
    """Stand-in per point, lambda C at draws of the second stage, and cost."""

    def one(x: tuple[jax.Array, Array]) -> tuple:
        key_base, key_starts = jax.random.split(x[0])
        base, cost = proposal(key_base, model, x[1])
        draws = model.second_stage.around(x[1]).sample(key_starts, (_NUM_PLAIN,))
        penalties = model.agreement.strength * jax.vmap(model.agreement.disagreement)(draws)
        return base, penalties, cost + _NUM_PLAIN

    return jax.lax.map(one, (keys, theta_1))


@partial(jax.jit, static_argnums=(1,))
def _work(
    keys: jax.Array, model: TwoStageModel, theta_1: Float[Array, "point d"], bases: Array
) -> tuple[Array, Array, Array]:
    """Log weights of both directions, shape (point, block, n), and cost."""
    ones = jnp.ones(1)
    direct = Schedule(ones, ones, jnp.asarray(1))

    def one(x: tuple) -> tuple[Array, Array, Array]:
        key, theta_1, base = x
        path = Path(model, theta_1, base)
        key_forward, key_draws, key_reverse = jax.random.split(key, 3)
        there = forward_work(key_forward, path, direct, NUM_BLOCKS * _NUM_FORWARD)
        chains = dispersed_chains(key_draws, path, NUM_BLOCKS * _NUM_REVERSE)
        back = reverse_work(key_reverse, path, direct, chains.draws)
        reverse = jnp.where(chains.settled, back.log_weights, jnp.nan)
        return (
            there.log_weights.reshape(NUM_BLOCKS, _NUM_FORWARD),
            reverse.reshape(NUM_BLOCKS, _NUM_REVERSE),
            there.num_evaluations + back.num_evaluations + chains.num_evaluations,
        )

    return jax.lax.map(one, (keys, theta_1, bases))


def _finish(forward: np.ndarray, reverse: np.ndarray) -> tuple[float, float]:
    if not np.all(np.isfinite(reverse)):
        return np.nan, np.inf
    value, error = acceptance_ratio(forward, reverse)
    flat = forward.ravel()
    alone = float(logsumexp(flat)) - np.log(flat.size)
    relative = np.exp(np.clip(flat - alone, None, 50.0))
    alone_error = relative.std() / np.sqrt(flat.size)
    limit = _MAX_CONTRADICTION * np.hypot(error, alone_error) + 1e-9 * (1 + abs(value))
    return value, error if abs(value - alone) <= limit else np.inf
