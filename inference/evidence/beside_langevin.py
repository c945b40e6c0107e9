"""log p(data) by Langevin chains at a ladder of powers of the likelihood.

d log p / d beta = E_beta[L], which increases with beta: thermodynamic integration, with Hermite's
quadrature (N. Friel, M. Hurn and J. Wyse, Stat. Comput. 24 (2014), doi:10.1007/s11222-013-9397-1).
Chains at all powers start where the posterior's chains ended. In a network they stay in that
region at high powers, so that the result is *local*: the evidence of what the chains could reach.
"""

from dataclasses import replace
from typing import NamedTuple

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from inference.averages import SIGMAS_OF_A_BRACKET
from inference.estimate import Estimate
from inference.kernels.langevin.chains import read
from inference.kernels.langevin.dynamics import LangevinState, LangevinTuning, Metric
from inference.kernels.langevin.steps import Langevin
from inference.kernels.langevin.tuning import tempered_metric
from inference.quadrature import hermite
from inference.running.loop import Loop
from inference.running.progress import Monitor

NUM_CHAINS = 2
_SHARE_OF_BURN_IN = 0.25
# Powers close to 0 matter most, where L differs most between draws.
_CONCENTRATION = 5
# Fewer tell nothing of the error of their quadrature.
_FEWEST_POWERS = 4


class _Ladder(NamedTuple):
    """Chains of all powers; leading axes (power, chain)."""

    chain: LangevinState
    rng_key: jax.Array
    tuning: LangevinTuning


def log_evidence_by_langevin(
    kernel: Langevin,
    key: jax.Array,
    chain: LangevinState,
    tuning: LangevinTuning,
    num_powers: int,
    num_draws: int,
    thinning: int,
    monitor: Monitor,
) -> Estimate:
    """Integrate the mean of L over its power.

    Parameters
    ----------
    kernel : Langevin
    key : PRNG key
    chain : LangevinState
        Of the posterior's chains, two at least; leading axis: chains.
    tuning : LangevinTuning
        Of the posterior.
    num_powers, num_draws, thinning : int
        Draws of each of two chains at each power, and steps per draw.
    monitor : Monitor
    """
    powers = (np.arange(1, num_powers + 1) / num_powers) ** _CONCENTRATION
    traced = jnp.asarray(powers, chain.theta_1.dtype)

    def spread(x: Array) -> Array:
        return jnp.broadcast_to(x[:NUM_CHAINS], (num_powers, NUM_CHAINS, *x.shape[1:]))

    metrics = _tempered(tuning.metric, traced)
    keys = jax.random.split(key, (num_powers, NUM_CHAINS))
    state = _Ladder(jax.tree.map(spread, chain), keys, tuning._replace(metric=metrics))
    step, collect = Partial(_stepped, kernel, traced), Partial(_collected, kernel)
    loop = Loop(step, collect, thinning, monitor)
    burn_in = max(1, int(_SHARE_OF_BURN_IN * num_draws))
    state, _ = loop.run(state, burn_in, "powers, burn-in")
    state, values = loop.run(state, num_draws, "powers")
    return integrate_powers(powers, np.swapaxes(values["log_likelihood"], 1, 2))


def integrate_powers(
    powers: Float[np.ndarray, " p"], draws: Float[np.ndarray, "p chain draw"]
) -> Estimate:
    """Integrate the mean of L, from draws at powers in (0, 1], over [0, 1].

    The standard error joins Monte Carlo errors with the quadrature's, from every second power, the
    odd or the even ones, and with what the value lies outside of its bounds; it is infinite for
    fewer than four powers. `lower` and `upper` are left and right sums, widened by four Monte Carlo
    errors; below the first power the mean is taken for constant, and `lower` is no bound there.
    """
    means, variances = draws.mean(axis=(1, 2)), draws.var(axis=(1, 2))
    errors = np.array([float(np.asarray(az.mcse(x))) if np.ptp(x) > 0 else 0.0 for x in draws])
    value = means[0] * powers[0] + hermite(powers, means, variances)
    steps = np.diff(powers, prepend=-powers[0], append=1.0)
    weights = 0.5 * (steps[:-1] + steps[1:])
    steps = np.diff(powers, prepend=0.0)
    left = np.append(means[:1], means[:-1]) @ steps
    margin = SIGMAS_OF_A_BRACKET * np.sqrt(np.sum((steps * errors) ** 2))
    lower, upper = left - margin, means @ steps + margin
    outside = max(0.0, lower - value, value - upper)
    last, missed = len(powers) - 1, []
    for first in (last, last - 1):
        chosen = np.unique([0, *range(first, 0, -2), last])
        coarse = means[0] * powers[0] + hermite(powers[chosen], means[chosen], variances[chosen])
        missed.append(abs(coarse - value))
    error = np.linalg.norm([*(weights * errors), max(missed), outside])
    is_known = np.isfinite(value) and len(powers) >= _FEWEST_POWERS
    return Estimate(
        float(value),
        float(error) if is_known else np.inf,
        float(lower),
        float(upper),
        "thermodynamic, local",
    )


@jax.jit
def _tempered(metric: Metric, powers: Float[Array, " p"]) -> Metric:
    return jax.vmap(tempered_metric, (None, 0))(metric, powers)


def _stepped(kernel: Langevin, powers: Float[Array, " p"], state: _Ladder) -> _Ladder:
    shared = state.tuning

    def at_power(
        power: Array, metric: Metric, keys: jax.Array, chain: LangevinState
    ) -> tuple[jax.Array, LangevinState]:
        tempered = replace(kernel, model=kernel.model.temper(power))
        tuning = shared._replace(metric=metric)

        def one(key: jax.Array, chain: LangevinState) -> tuple[jax.Array, LangevinState]:
            key, key_step = jax.random.split(key)
            return key, tempered.step(key_step, chain, tuning)[0]

        return jax.vmap(one)(keys, chain)

    keys, chain = jax.vmap(at_power)(powers, shared.metric, state.rng_key, state.chain)
    return _Ladder(chain, keys, shared)


def _collected(kernel: Langevin, state: _Ladder) -> dict[str, Array]:
    def one(key: jax.Array, chain: LangevinState, tuning: LangevinTuning) -> Array:
        return kernel.model.log_likelihood(read(kernel, key, chain, tuning).theta_2)

    def at_power(keys: jax.Array, chain: LangevinState, metric: Metric) -> Array:
        tuning = state.tuning._replace(metric=metric)
        return jax.vmap(one, (0, 0, None))(keys, chain, tuning)

    values = jax.vmap(at_power)(state.rng_key, state.chain, state.tuning.metric)
    # At low powers L may be -infinity at a draw, which is no failure of the chain.
    return {"log_likelihood": values, "lp": jnp.where(jnp.isneginf(values), 0, values)}
