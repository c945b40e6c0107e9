"""log p(data) from both sides, where the parameters that made the data are known.

Populations that come from the prior estimate p(data) without bias, so that the mean of their logs
is too small (Jensen). Parameters that made the data are one exact draw of their posterior:
populations that start there, and return to the prior by the same powers, estimate 1 / p(data)
without bias, so that their log evidence is too large. R. B. Grosse, Z. Ghahramani and R. P. Adams,
arXiv:1511.02543 (2015).

That holds on average over data and the parameters behind them. On one data set the mean of the
reverse runs is below log p(data) by more than a nats with a probability of e^-a at most, that of
the forward runs above it likewise (Markov): both agree on a value that is too small by log 2 where
populations never leave the half of the posterior that the parameters are in. Over several data sets
they are in every mode as often as it holds posterior mass.

The moves must leave each power's law as it is: exactly with negative samples that are exact, up to
what their moves leave of where they were with persistent ones, in both directions alike; and where
the prior is annealed it is approximate.
"""

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

from generative import AgreementConditioned, AgreementNotReached, InvalidInput, TwoStageModel
from generative.values import as_array, require_integer, require_key
from inference import prng
from inference.averages import mean_of_runs
from inference.estimate import Estimate
from inference.evidence.planned import Planned, default_recipe, plan_populations
from inference.evidence.population import Particles, Recipe, populate
from inference.evidence.prior import MOVES_TO_FORGET, RejectionCapped, require_found
from inference.evidence.tempered import by_run, carry, run
from inference.kernels.negative_choice import without_rejection
from inference.running.progress import SILENT, Monitor


class Bracket(NamedTuple):
    """Log evidence of independent runs in both directions.

    Attributes
    ----------
    forward : array, shape (run,)
        Of populations that come from the prior; on average too small; nats.
    reverse : array, shape (run,)
        Of populations that come from the parameters that made the data; too large on average over
        data, these parameters and runs; nats.
    note : str
        How the prior and negative samples were drawn, which says how exact both are.
    """

    forward: Float[np.ndarray, " run"]
    reverse: Float[np.ndarray, " run"]
    note: str

    @property
    def lower(self) -> Estimate:
        """Stochastic lower bound of log p(data)."""
        return self._mean(self.forward, "populations from the prior")

    @property
    def upper(self) -> Estimate:
        """Stochastic upper bound of log p(data).

        Its error is that over runs, which all have the same true parameters.
        """
        return self._mean(self.reverse, "populations from the true parameters")

    @property
    def gap(self) -> Estimate:
        """Upper less lower bound; its mean over data bounds the mean error of either."""
        lower, upper = self.lower, self.upper
        error = float(np.hypot(lower.standard_error, upper.standard_error))
        return Estimate(float(upper.value - lower.value), error, method="upper less lower bound")

    def _mean(self, log_evidence: Float[np.ndarray, " run"], method: str) -> Estimate:
        value, error = mean_of_runs(log_evidence[None])
        return Estimate(float(value[0]), float(error[0]), method=method, note=self.note)


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
        If an argument cannot be used, or the powers run out before they reach the posterior.
    AgreementNotReached
        If no negative sample can be drawn by rejection at theta_1, where one has to be exact.
    """
    at_1, at_2 = _vector(model, "theta_1", theta_1), _vector(model, "theta_2", theta_2)
    require_key(key)
    require_integer("num_runs", num_runs, least=2)
    require_integer("num_particles", num_particles, least=8)
    if model.is_null:
        raise InvalidInput("model", "one without data", "one whose data come from theta_2")
    key_start, key_runs = prng.split(key)
    start = at_truth(key_start, model, at_1, at_2, num_runs, num_particles)
    recipe = default_recipe(model)
    try:
        return _both_ways(recipe, key_runs, start, monitor)
    except RejectionCapped:
        why = "rejection hit its cap"
        negative, _ = without_rejection(model, recipe.max_num_steps, MOVES_TO_FORGET, why)
        return _both_ways(replace(recipe, negative=negative), key_runs, start, monitor)


def _both_ways(recipe: Recipe, key: jax.Array, start: Particles, monitor: Monitor) -> Bracket:
    key_plan, key_reverse = prng.split(key)
    drawn = np.concatenate([start.theta_2[:, 0], start.negative[:, 0]])
    planned = plan_populations(recipe, drawn, key_plan, None, monitor)
    prior, stages, effort, key_run = planned
    if stages[-1].power < 1:
        found = f"one whose posterior {len(stages) - 1} powers of the likelihood do not reach"
        raise InvalidInput("model", found, "one that is nearer to its prior")
    num_runs, num_particles = start.log_likelihood.shape
    forward = run(prior, key_run, stages, num_runs, num_particles, effort, monitor)
    require_found(forward.num_failed)
    reverse = reverse_runs(planned, key_reverse, start, monitor)
    return Bracket(forward.log_evidence, reverse, planned.note)


def reverse_runs(
    planned: Planned, key: jax.Array, particles: Particles, monitor: Monitor = SILENT
) -> Float[np.ndarray, " run"]:
    """Carry populations from posterior draws to the prior; return each run's log evidence, nats.

    Parameters
    ----------
    planned : Planned
        Which must not depend on these particles.
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
    RejectionCapped
        If a negative sample was not found by rejection.
    """
    first, *others = planned.stages
    # Moves at power 1 come first: particles of one run may all begin at one point.
    path = [others[-1], *reversed(others)]
    log_evidence = np.zeros(len(particles.log_likelihood))
    with monitor.bar(len(path) - 1, "powers back") as bar:
        for index, (old, new) in enumerate(pairwise(path)):
            key_stage = prng.fold_in(key, index)
            settings = (old, new, planned.effort)
            particles, step, info = carry(planned.prior, key_stage, particles, *settings)
            require_found(int(info.num_failed))
            log_evidence -= np.asarray(step.log_increment)
            bar.update(1)
    last = (first.power - path[-1].power) * np.asarray(particles.log_likelihood)
    return log_evidence - logsumexp(last, axis=1) + np.log(last.shape[1])


def at_truth(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array, " d"],
    theta_2: Float[Array, " d"],
    num_runs: int,
    num_particles: int,
) -> Particles:
    """Copies of one posterior draw, of which each run has a negative sample of its own.

    Raises
    ------
    AgreementNotReached
        If rejection hit its cap at theta_1.
    """
    drawn = _agreeing(key, model, jnp.tile(theta_1, (num_runs, 1)))
    if not np.isfinite(np.asarray(drawn)).all():
        found = "no negative sample was found by rejection at the true theta_1"
        raise AgreementNotReached(f"{found}: lower agreement_strength")
    number = num_runs * num_particles
    copies = (np.tile(x, (number, 1)) for x in (theta_1, theta_2))
    negative = np.repeat(np.asarray(drawn), num_particles, axis=0)
    return by_run(populate(model, *copies, negative), num_runs)


@jax.jit
def _agreeing(key: jax.Array, model: TwoStageModel, theta_1: Array) -> Array:
    return AgreementConditioned(model.second_stage.around(theta_1), model.agreement).sample(key)


def _vector(model: TwoStageModel, name: str, value: Float[Array | np.ndarray, " d"]) -> Array:
    found = as_array(name, value)
    allowed = f"finite numbers, shape ({model.dimension},)"
    if found.shape != (model.dimension,):
        raise InvalidInput(name, f"shape {found.shape}", allowed)
    if not np.isfinite(np.asarray(found)).all():
        raise InvalidInput(name, "numbers that are not finite", allowed)
    return found.astype(model.space.origin.dtype)
