"""log Z(theta_1) between a lower and an upper bound: annealing in both directions.

Forward work bounds log Z from below on average, and reverse work from *exact* draws of
q(. | theta_1) bounds it from above (R. B. Grosse, S. Ancha and D. M. Roy, *Measuring the
reliability of MCMC inference with bidirectional Monte Carlo*, 2016, arXiv:1606.02275).
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import AgreementConditioned, TwoStageModel
from inference.annealing.anneal import Annealed, Schedule, anneal, anneal_along
from inference.annealing.bidirectional import (
    acceptance_ratio,
    forward_work,
    missed_region,
    reverse_work,
)
from inference.annealing.conditional_smc import conditional_sweep
from inference.annealing.path import Path
from inference.averages import lower_bracket, upper_bracket
from inference.estimate import Estimate
from inference.gaussians.surrogate import flat

_NUM_BLOCKS = 16
_NUM_FORWARD, _NUM_REVERSE = 8, 4  # chains a block
_NUM_PILOT_PARTICLES = 64
# Of the conditional sweep by which an annealed draw comes to have the law of q(. | theta_1).
_NUM_SWEEP_PARTICLES = 32
# Of a second pilot, where the first missed a region.
_NUM_SECOND_PILOT_PARTICLES = 1024
# Exact draws by rejection may cost this share of the budget.
_SHARE_FOR_DRAWS = 0.5

MISSED = "reverse chains miss a region that forward chains find"
NOT_EXACT = (
    "reverse chains start at annealed draws, since exact ones by rejection are beyond the budget: "
    "upper is only Z <= 1"
)


def reverse_annealing(
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "batch d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    """Join forward and reverse annealed importance sampling by Bennett's ratio.

    `lower` is the mean forward log weight and `upper` the mean reverse one, widened by four of
    their standard errors. `upper` needs exact draws of q(. | theta_1), from the closed form or by
    rejection; where these cost too much, annealed draws stand in, `upper` is 0, and `note` says so.
    """
    points = [
        _one_point(
            model,
            point,
            jax.random.fold_in(key, index),
            target_standard_error,
            max_evaluations // len(theta_1),
        )
        for index, point in enumerate(jnp.asarray(theta_1))
    ]
    value, error, lower, upper = (
        np.array([getattr(e, name) for e in points])
        for name in ("value", "standard_error", "lower", "upper")
    )
    note = next((e.note for e in points if e.note), "")
    spent = sum(e.num_evaluations for e in points)
    return Estimate(value, error, lower, upper, "reverse_annealing", spent, note)


def _one_point(
    model: TwoStageModel,
    theta_1: Float[Array, " d"],
    key: jax.Array,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    spent = 0
    for index, size in enumerate((_NUM_PILOT_PARTICLES, _NUM_SECOND_PILOT_PARTICLES)):
        key_pilot, key_rounds = jax.random.split(jax.random.fold_in(key, index))
        pilot = anneal(key_pilot, model, theta_1, size)
        budget = max_evaluations - int(pilot.num_evaluations) - spent
        found = _joined(model, theta_1, key_rounds, pilot, target_standard_error, budget)
        spent += int(pilot.num_evaluations) + found.num_evaluations
        if found.note != MISSED:
            break
    return replace(found, num_evaluations=spent)


def _joined(
    model: TwoStageModel,
    theta_1: Float[Array, " d"],
    key: jax.Array,
    pilot: Annealed,
    target_standard_error: float,
    max_evaluations: int,
) -> Estimate:
    """Join rounds of work along a pilot's schedule until the target is met."""
    spent, exact = 0, _can_reject(model, pilot, max_evaluations)
    rounds: list[tuple[np.ndarray, np.ndarray]] = []
    while True:
        key_draws, key_work = jax.random.split(jax.random.fold_in(key, len(rounds)))
        draws, cost = _draws(key_draws, model, theta_1, pilot.schedule, exact)
        if exact and not np.all(np.isfinite(draws)):  # a rejection hit its cap: go on without
            spent, exact, rounds = spent + int(cost), False, []
            continue
        forward, reverse, more = _work(key_work, model, theta_1, pilot.schedule, draws)
        cost = int(cost) + int(more)
        spent += cost
        rounds.append((np.asarray(forward, np.float64), np.asarray(reverse, np.float64)))
        forward, reverse = (np.concatenate(x, axis=1) for x in zip(*rounds, strict=True))
        value, error = acceptance_ratio(forward, reverse)
        missed = missed_region(forward, value, error)
        if missed or error <= target_standard_error or spent + cost > max_evaluations:
            break
    usable = bool(pilot.reached) and not missed
    note = "" if exact else NOT_EXACT
    return Estimate(
        value,
        error if usable else np.inf,
        float(lower_bracket(forward.reshape(1, -1))[0]) if usable else -np.inf,
        float(upper_bracket(reverse.reshape(1, -1))[0]) if exact and usable else 0.0,
        "reverse_annealing",
        spent,
        MISSED if missed else note,
    )


def _can_reject(model: TwoStageModel, pilot: Annealed, max_evaluations: int) -> bool:
    if model.agreement.closed_form is not None:
        return True
    log_cost = np.log(_NUM_BLOCKS * _NUM_REVERSE) - float(pilot.log_normalizer)
    return bool(log_cost < np.log(max(_SHARE_FOR_DRAWS * max_evaluations, 1)))


@partial(jax.jit, static_argnums=4)
def _draws(
    key: jax.Array, model: TwoStageModel, theta_1: Array, schedule: Schedule, exact: bool
) -> tuple[Float[Array, "n d"], Array]:
    """Draws of q(. | theta_1), grouped by block, and their cost."""
    num_draws = _NUM_BLOCKS * _NUM_REVERSE
    if exact:
        conditioned = AgreementConditioned(model.second_stage.around(theta_1), model.agreement)
        draws, tries = conditioned.sample_with_tries(key, (num_draws,))
        return draws, tries.sum()
    key_start, key_sweep = jax.random.split(key)
    start = anneal_along(key_start, model, theta_1, num_draws, schedule)
    path = Path(model, theta_1, flat(model))

    def sweep(x: tuple[jax.Array, Array]) -> tuple[Array, Array]:
        return conditional_sweep(x[0], path, schedule, x[1], _NUM_SWEEP_PARTICLES)

    keys = jax.random.split(key_sweep, num_draws)
    draws, cost = jax.lax.map(sweep, (keys, start.particles), batch_size=_NUM_REVERSE)
    return draws, start.num_evaluations + cost.sum()


@jax.jit
def _work(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Array,
    schedule: Schedule,
    draws: Float[Array, "n d"],
) -> tuple[Array, Array, Array]:
    """Log weights of both directions, shape (block, n), and cost."""
    path = Path(model, theta_1, flat(model))
    key_forward, key_reverse = jax.random.split(key)
    forward = forward_work(key_forward, path, schedule, _NUM_BLOCKS * _NUM_FORWARD)
    reverse = reverse_work(key_reverse, path, schedule, draws)
    return (
        forward.log_weights.reshape(_NUM_BLOCKS, _NUM_FORWARD),
        reverse.log_weights.reshape(_NUM_BLOCKS, _NUM_REVERSE),
        forward.num_evaluations + reverse.num_evaluations,
    )
