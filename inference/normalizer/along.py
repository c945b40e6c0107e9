"""log Z along a recorded path of theta_1, relative to its first point.

Particles that start in q(. | first point) are carried from point to point: shifted by the
Gauss-Newton map, weighed by f there over f here, resampled and moved. They are independent of the
path: negative samples that *drove* theta_1 would be biased by having done so. Sequential Monte
Carlo, as P. Del Moral, A. Doucet and A. Jasra, J. R. Stat. Soc. B 68 (2006),
doi:10.1111/j.1467-9868.2006.00553.x; the shift is that of C. Jarzynski, Phys. Rev. E 65 (2002),
doi:10.1103/PhysRevE.65.046122.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.resampling import systematic
from jax.scipy.special import logsumexp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from generative import GaussianConditional, InvalidInput, TwoStageModel
from inference.annealing.anneal import anneal
from inference.annealing.path import Path
from inference.averages import log_of_mean
from inference.batches import in_flight, over_points
from inference.estimate import Estimate
from inference.gaussians.surrogate import flat
from inference.moves.density import log_agreeing, log_normalizer_at
from inference.moves.independence import independence_step
from inference.normalizer.gauss_newton import proposal
from inference.normalizer.log_normalizer import check_disagreement, finite_vector
from inference.precision import require_float64

# Annealed draws of q at the first point, before they count.
_NUM_SETTLING = 4
# The middle point is where the map is linearised.
_CENTRE = 0.5


def log_normalizer_along(
    model: TwoStageModel,
    path: Float[Array | np.ndarray, "t d"],
    seed: int = 0,
    num_runs: int = 8,
    num_particles: int = 64,
    num_moves: int = 2,
) -> Estimate:
    """Estimate log Z(path[t]) - log Z(path[0]) for all t, nats.

    Parameters
    ----------
    model : TwoStageModel
    path : array, shape (t, d)
        Values of theta_1, such as a trajectory; the closer they lie, the smaller the error.
    seed : int
    num_runs : int
        Independent runs, whose spread gives the error.
    num_particles : int
        Per run.
    num_moves : int
        Trajectories of each particle at each point.

    Returns
    -------
    Estimate
        Arrays of shape (t,), 0 at first, by method `along_path` or `closed_form`. The standard
        error is infinite from where runs differ by more than a nat.

    Raises
    ------
    InvalidInput
        If the path is not an array of shape (t, d) of finite numbers, or a count is too small.
    """
    require_float64("log normalisers along a path")
    points = finite_vector(model, path, "path")
    if points.ndim != 2 or len(points) < 2:
        raise InvalidInput("path", f"shape {points.shape}", f"shape (t, {model.dimension}), t >= 2")
    for name, count, least in (
        ("num_runs", num_runs, 2),
        ("num_particles", num_particles, 2),
        ("num_moves", num_moves, 1),
    ):
        if count < least:
            raise InvalidInput(name, count, f"an integer >= {least}")
    points = jnp.asarray(points)
    if model.agreement.is_tractable:
        exact = Partial(log_normalizer_at, model)
        values = np.asarray(over_points(exact, points), np.float64)
        return Estimate(values - values[0], np.zeros(len(values)), method="closed_form")
    check_disagreement(model, np.asarray(points[:1]), seed)
    key_map, key_runs = jax.random.split(jax.random.key(seed))
    centre = points[int(_CENTRE * len(points))]
    base, cost = proposal(key_map, model, centre)
    keys = jax.random.split(key_runs, num_runs)
    increments, spent = _runs(keys, model, points, base, num_particles, num_moves)
    sums = np.cumsum(np.asarray(increments, np.float64), axis=1).T
    value, error = log_of_mean(sums)
    return Estimate(
        np.append(0.0, value),
        np.append(0.0, error),
        method="along_path",
        num_evaluations=int(cost) + int(spent.sum()),
    )


@partial(jax.jit, static_argnums=(4, 5))
def _runs(
    keys: jax.Array,
    model: TwoStageModel,
    points: Float[Array, "t d"],
    base: GaussianConditional,
    num_particles: int,
    num_moves: int,
) -> tuple[Float[Array, "run t1"], Array]:
    """Logs of mean weights between neighbouring points, and their cost."""

    def one(key: jax.Array) -> tuple[Array, Array]:
        increments: Array
        key_start, key_settle, key_path = jax.random.split(key, 3)
        found = anneal(key_start, model, points[0], num_particles)
        step_size = found.schedule.step_sizes[found.schedule.length - 1]

        def move(key: jax.Array, theta_1: Array, w: Array, number: int) -> tuple[Array, Array]:
            return _moved(key, model, theta_1, w, step_size, number)

        w, cost = move(key_settle, points[0], found.particles, _NUM_SETTLING)

        def advance(carry: tuple, x: tuple) -> tuple:
            w, cost = carry
            key, here, there = x
            key_resample, key_move = jax.random.split(key)
            carried = w + base.gain(there - here)

            def log_weight(old: Array, new: Array) -> Array:
                ratio = log_agreeing(model, there, new) - log_agreeing(model, here, old)
                return ratio.astype(jnp.result_type(float))

            log_w = jax.vmap(log_weight)(w, carried)
            chosen = systematic(key_resample, jax.nn.softmax(log_w), num_particles)
            w, spent = move(key_move, there, carried[chosen], num_moves)
            spent += 2 * num_particles
            return (w, cost + spent), logsumexp(log_w) - jnp.log(num_particles)

        steps = (jax.random.split(key_path, len(points) - 1), points[:-1], points[1:])
        (_, cost), increments = jax.lax.scan(advance, (w, cost + found.num_evaluations), steps)
        return increments, cost

    batch_size = in_flight(len(keys), num_particles * model.dimension)
    return jax.lax.map(one, keys, batch_size=batch_size)


def _moved(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array, " d"],
    w: Float[Array, "n d"],
    step_size: Float[Array, ""],
    num_moves: int,
) -> tuple[Float[Array, "n d"], Array]:
    """Move particles under theta_1, by fresh proposals and trajectories."""
    path = Path(model, theta_1, flat(model))

    def one(key: jax.Array, w: Array) -> tuple[Array, Array]:
        key_fresh, key_move = jax.random.split(key)
        w = independence_step(key_fresh, model, theta_1, w, model.agreement.log_factor)
        w, info = path.move(key_move, w, jnp.ones(()), step_size)
        return w, info.num_steps + 4

    def again(index: Array, carry: tuple) -> tuple:
        w, cost = carry
        keys = jax.random.split(jax.random.fold_in(key, index), len(w))
        w, spent = jax.vmap(one)(keys, w)
        return w, cost + spent.sum()

    return jax.lax.fori_loop(0, num_moves, again, (w, jnp.zeros((), int)))
