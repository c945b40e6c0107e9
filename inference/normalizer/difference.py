"""log Z(theta_1') - log Z(theta_1) without either of them.

Draws of q at both ends are carried to the other by the Gauss-Newton map, w -> w + G (theta_1' -
theta_1), and weighed; Bennett's ratio joins the two directions (C. Jarzynski, Phys. Rev. E 65
(2002), doi:10.1103/PhysRevE.65.046122; see :mod:`inference.annealing.bidirectional`). For linear
residuals there is no noise. Where one jump is too far, points between the ends bridge it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from generative import GaussianConditional, InvalidInput, TwoStageModel
from inference.annealing.anneal import Annealed, anneal
from inference.annealing.bidirectional import acceptance_ratio
from inference.annealing.path import Path
from inference.averages import LARGEST_SPREAD
from inference.batches import in_flight
from inference.estimate import Estimate
from inference.gaussians.surrogate import flat
from inference.moves.density import log_agreeing
from inference.normalizer.gauss_newton import proposal
from inference.normalizer.importance import MARGIN
from inference.normalizer.log_normalizer import (
    BLIND,
    ONE_VALUE,
    check_budget,
    check_disagreement,
    finite_vector,
    log_normalizer,
)
from inference.precision import require_float64

_NUM_BLOCKS, _NUM_PARTICLES = 16, 64
_MAX_BRIDGES = 256

UNSTEADY = "annealed runs at an end differ by more than a nat: their draws cannot be trusted"


def log_normalizer_difference(
    model: TwoStageModel,
    theta_1: PyTree,
    other: PyTree,
    seed: int = 0,
    target_standard_error: float = 0.1,
    max_evaluations: int = 2_000_000,
) -> Estimate:
    """Estimate log Z(other) - log Z(theta_1), nats.

    Parameters
    ----------
    model : TwoStageModel
    theta_1, other : pytrees like theta_0, or arrays of shape (d,)
    seed : int
    target_standard_error : float
        Nats.
    max_evaluations : int
        Of C; one round is made in any case.

    Returns
    -------
    Estimate
        By method `bridge`, with no bracket; or `closed_form`.

    Raises
    ------
    InvalidInput
        As :func:`log_normalizer`.
    """
    require_float64("a difference of log normalisers")
    check_budget(target_standard_error, max_evaluations)
    ends = [finite_vector(model, x, name) for x, name in ((theta_1, "theta_1"), (other, "other"))]
    if any(x.ndim != 1 for x in ends):
        raise InvalidInput("theta_1", "a batch", "one point (loop over the batch)")
    if model.agreement.is_tractable:
        first, second = (log_normalizer(model, x, "closed_form") for x in ends)
        return Estimate(second.value - first.value, 0.0, method="closed_form")
    points = jnp.stack([jnp.asarray(x) for x in ends])
    check_disagreement(model, np.asarray(points), seed)
    key_base, key_draws, key_work = jax.random.split(jax.random.key(seed), 3)
    base, draws, step_size, cost, is_blind = _prepare(key_base, key_draws, model, points)
    if is_blind:
        return Estimate(0.0, np.inf, method="bridge", num_evaluations=int(cost), note=BLIND)
    if not np.all(np.isfinite(draws)):
        return Estimate(np.nan, np.inf, method="bridge", num_evaluations=int(cost), note=UNSTEADY)
    spent, num_bridges = int(cost), 1
    while True:
        key = jax.random.fold_in(key_work, num_bridges)
        forward, reverse, cost = _work(key, model, points, base, draws, step_size, num_bridges)
        spent += int(cost)
        value, error = acceptance_ratio(np.asarray(forward), np.asarray(reverse))
        met = error <= target_standard_error
        if met or spent + 2 * int(cost) > max_evaluations or num_bridges >= _MAX_BRIDGES:
            return Estimate(value, error, method="bridge", num_evaluations=spent)
        num_bridges *= 2


@jax.jit
def _prepare(
    key_base: jax.Array, key_draws: jax.Array, model: TwoStageModel, points: Float[Array, "2 d"]
) -> tuple[GaussianConditional, Array, Array, Array, Array]:
    """Map between the ends, draws at either (2, block, n, d), a step size, cost, and blindness."""
    base, cost = proposal(key_base, model, points.mean(axis=0))
    keys = jax.random.split(key_draws, (2, _NUM_BLOCKS))
    batch_size = in_flight(_NUM_BLOCKS, _NUM_PARTICLES * model.dimension)

    def runs(x: tuple[jax.Array, Array]) -> tuple[Array, Array, Array, Array]:
        def one(key: jax.Array) -> Annealed:
            return anneal(key, model, x[1], _NUM_PARTICLES)

        found = jax.lax.map(one, x[0], batch_size=batch_size)
        last = jnp.take_along_axis(
            found.schedule.step_sizes, found.schedule.length[:, None] - 1, axis=1
        )
        # Runs that differ widely have not found the same masses: their draws are no draws of q.
        usable = found.reached.all() & (found.log_normalizer.std() <= LARGEST_SPREAD)
        draws = jnp.where(usable, found.particles, jnp.nan)
        is_one = jnp.ptp(found.means[:, :2]) <= ONE_VALUE * (1 + jnp.abs(found.means[0, 0]))
        log_z = found.log_normalizer.mean()
        is_blind = is_one & (log_z < MARGIN - jnp.log(_NUM_BLOCKS * _NUM_PARTICLES))
        return draws, last.mean(), found.num_evaluations.sum(), is_blind

    draws, steps, costs, blind = jax.lax.map(runs, (keys, points))
    return base, draws, steps.min(), cost + costs.sum(), blind.any()


@jax.jit
def _work(
    key: jax.Array,
    model: TwoStageModel,
    points: Float[Array, "2 d"],
    base: GaussianConditional,
    draws: Float[Array, "2 block n d"],
    step_size: Array,
    num_bridges: Int[Array, ""],
) -> tuple[Float[Array, "block n"], Float[Array, "block n"], Array]:
    """Log weights of both directions, of the second point over the first."""
    start, end = points
    shift = base.gain(end - start) / num_bridges

    def at(rung: Array) -> Array:
        return start + (rung / num_bridges).astype(start.dtype) * (end - start)

    def weigh(rung: Array, theta: Array) -> Array:
        """Of rung + 1 over rung, for draws held at rung."""

        def one(theta: Array) -> Array:
            there = log_agreeing(model, at(rung + 1), theta + shift)
            return there - log_agreeing(model, at(rung), theta)

        return jax.vmap(one)(theta)

    def move(key: jax.Array, rung: Array, theta: Array) -> tuple[Array, Array]:
        path = Path(model, at(rung), flat(model))
        keys = jax.random.split(key, len(theta))
        theta, info = jax.vmap(path.move, (0, 0, None, None))(keys, theta, 1.0, step_size)
        return theta, jnp.sum(info.num_steps + 2)

    def carry(key: jax.Array, theta: Array, forward: bool) -> tuple[Array, Array]:
        # Held at `rung`, forward draws are moved there after they were shifted up; reverse draws
        # are shifted down first, weighed, and moved where they arrived.
        def advance(i: Array, state: tuple) -> tuple:
            theta, log_weights, cost = state
            rung = i if forward else num_bridges - i
            theta = theta + shift if forward else theta
            theta, spent = move(jax.random.fold_in(key, i), rung, theta)
            if not forward:
                theta, rung = theta - shift, rung - 1
            return theta, log_weights + weigh(rung, theta), cost + spent

        theta = theta if forward else theta - shift
        first = jnp.asarray(0) if forward else num_bridges - 1
        state = (theta, weigh(first, theta), jnp.asarray(2 * len(theta)))
        _, log_weights, cost = jax.lax.fori_loop(1, num_bridges, advance, state)
        return log_weights, cost

    key_forward, key_reverse = jax.random.split(key)
    shape = draws.shape[1:3]
    flattened = draws.reshape(2, -1, draws.shape[-1])
    forward, cost_forward = carry(key_forward, flattened[0], True)
    reverse, cost_reverse = carry(key_reverse, flattened[1], False)
    return forward.reshape(shape), reverse.reshape(shape), cost_forward + cost_reverse
