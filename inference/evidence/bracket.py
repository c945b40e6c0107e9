"""log p(data) from both sides, where the parameters that made the data are known.

Populations that come from the prior estimate p(data) without bias, so that the mean of their logs
is too small (Jensen). Parameters that made the data are one exact draw of their posterior:
populations that start there, and return to the prior by the same powers, estimate 1 / p(data)
without bias, so that their log evidence is too large. They start where the other ones end. Between
both lies log p(data), whatever the powers and however slow the moves, and where they meet no mode
that holds much of the posterior was missed: data come from a mode as often as it has posterior
mass. R. B. Grosse, Z. Ghahramani and R. P. Adams, arXiv:1511.02543 (2015).

The moves must leave each power's law as it is: exactly with negative samples that are exact, up to
what their moves leave of where they were with persistent ones.
"""

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import AgreementConditioned, AgreementNotReached, InvalidInput, TwoStageModel
from generative.values import as_array, require_integer, require_key
from inference import prng
from inference.averages import mean_of_runs
from inference.estimate import Estimate
from inference.evidence.planned import Planned, plan_populations
from inference.evidence.population import Particles, Recipe, populate
from inference.evidence.prior import MOVES_TO_FORGET
from inference.evidence.tempered import by_run, carry, run
from inference.kernels.negative_choice import choose
from inference.running.progress import SILENT, Monitor

_REJECTION_CAP, _MAX_NUM_STEPS = 20_000, 32


class Bracket(NamedTuple):
    """Log evidence of independent runs in both directions.

    Attributes
    ----------
    forward : array, shape (run,)
        Of populations that come from the prior; on average too small; nats.
    reverse : array, shape (run,)
        Of populations that come from the parameters that made the data; too large on average over
        data and over these; nats.
    """

    forward: Float[np.ndarray, " run"]
    reverse: Float[np.ndarray, " run"]

    @property
    def lower(self) -> Estimate:
        """Stochastic lower bound of log p(data)."""
        return _mean(self.forward, "populations from the prior")

    @property
    def upper(self) -> Estimate:
        """Stochastic upper bound of log p(data).

        Its error is that over runs, which all have the same true parameters.
        """
        return _mean(self.reverse, "populations from the true parameters")

    @property
    def gap(self) -> Estimate:
        """Upper less lower bound.

        Its mean over data bounds the Jeffreys divergence between the posterior and what a run
        draws; R. B. Grosse, S. Ancha and D. M. Roy, NeurIPS (2016), arXiv:1606.02275.
        """
        lower, upper = self.lower, self.upper
        error = float(np.hypot(lower.standard_error, upper.standard_error))
        return Estimate(float(upper.value - lower.value), error, method="upper less lower bound")


def bracket_evidence(
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, " d"],
    theta_2: Float[Array | np.ndarray, " d"],
    key: jax.Array,
    num_runs: int = 8,
    num_particles: int = 128,
    monitor: Monitor = SILENT,
) -> Bracket:
    """Bracket log p(data) of data that the model has made.

    Parameters
    ----------
    model : TwoStageModel
        With the data.
    theta_1, theta_2 : arrays, shape (d,)
        The parameters that the data were made from: one draw of :func:`generative.simulate`, whose
        data :func:`generative.simulate_data` made. Any others give another number, without notice.
    key : PRNG key
    num_runs : int
        In each direction.
    num_particles : int
        Of each run.
    monitor : Monitor

    Returns
    -------
    Bracket

    Raises
    ------
    InvalidInput
        If an argument cannot be used.
    AgreementNotReached
        If no negative sample can be drawn by rejection at theta_1.
    """
    at_1, at_2 = _vector(model, "theta_1", theta_1), _vector(model, "theta_2", theta_2)
    require_key(key)
    require_integer("num_runs", num_runs, least=2)
    require_integer("num_particles", num_particles, least=8)
    if model.is_null:
        raise InvalidInput("model", "one without data", "one whose data come from theta_2")
    key_negative, key_plan, key_reverse = prng.split(key, 3)
    negative, _ = choose(model, "auto", _REJECTION_CAP, _MAX_NUM_STEPS, MOVES_TO_FORGET)
    recipe = Recipe(model, negative, _MAX_NUM_STEPS)
    planned = plan_populations(recipe, np.asarray(at_2), key_plan, None, monitor)
    prior, stages, effort, key_run = planned
    forward = run(prior, key_run, stages, num_runs, num_particles, effort, monitor)
    if forward.num_failed:
        raise _not_reached(f"{forward.num_failed} negative samples of the populations")
    particles = _at_truth(key_negative, model, at_1, at_2, num_runs, num_particles)
    return Bracket(forward.log_evidence, reverse_runs(planned, key_reverse, particles, monitor))


def reverse_runs(
    planned: Planned, key: jax.Array, particles: Particles, monitor: Monitor = SILENT
) -> Float[np.ndarray, " run"]:
    """Carry populations from posterior draws to the prior; return each run's log evidence, nats.

    Parameters
    ----------
    planned : Planned
    key : PRNG key
    particles : Particles
        Each with the law of the posterior, and its negative sample with that of q(. | theta_1);
        those of one run may depend on each other, or be the same. Leading axes (run, particle).
    monitor : Monitor

    Returns
    -------
    array, shape (run,)
        exp of minus each is unbiased for 1 / p(data), if the moves are exact.

    Raises
    ------
    AgreementNotReached
        If a negative sample was not found by rejection.
    """
    # Moves at power 1 come first: particles of one run may all begin at one point.
    path = [planned.stages[-1], *reversed(planned.stages)]
    log_evidence = np.zeros(len(particles.log_likelihood))
    with monitor.bar(len(path) - 1, "powers back") as bar:
        for index, (old, new) in enumerate(pairwise(path)):
            key_stage = prng.fold_in(key, index)
            settings = (old, new, planned.effort)
            particles, step, info = carry(planned.prior, key_stage, particles, *settings)
            if int(info.num_failed):
                raise _not_reached(f"{int(info.num_failed)} negative samples on the way back")
            log_evidence -= np.asarray(step.log_increment)
            bar.update(1)
    return log_evidence


def _at_truth(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Array,
    theta_2: Array,
    num_runs: int,
    num_particles: int,
) -> Particles:
    """Copies of one posterior draw, of which each run has a negative sample of its own."""
    drawn = _agreeing(key, model, jnp.tile(theta_1, (num_runs, 1)))
    if not np.isfinite(np.asarray(drawn)).all():
        raise _not_reached("a negative sample at the true theta_1")
    number = num_runs * num_particles
    copies = (np.tile(x, (number, 1)) for x in (theta_1, theta_2))
    negative = np.repeat(np.asarray(drawn), num_particles, axis=0)
    return by_run(populate(model, *copies, negative), num_runs)


@jax.jit
def _agreeing(key: jax.Array, model: TwoStageModel, theta_1: Array) -> Array:
    return AgreementConditioned(model.second_stage.around(theta_1), model.agreement).sample(key)


def _not_reached(what: str) -> AgreementNotReached:
    return AgreementNotReached(f"{what} not found by rejection; lower agreement_strength")


def _vector(model: TwoStageModel, name: str, value: Float[Array | np.ndarray, " d"]) -> Array:
    found = as_array(name, value)
    if found.shape != (model.dimension,) or not np.isfinite(np.asarray(found)).all():
        shape = f"shape {found.shape}" if found.shape != (model.dimension,) else "no finite numbers"
        raise InvalidInput(name, shape, f"finite numbers, shape ({model.dimension},)")
    return found.astype(model.space.origin.dtype)


def _mean(log_evidence: Float[np.ndarray, " run"], method: str) -> Estimate:
    value, error = mean_of_runs(log_evidence[None])
    return Estimate(float(value[0]), float(error[0]), method=method)
