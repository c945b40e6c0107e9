"""All that populations need before they run: how they start, how they move, and their plan."""

from typing import NamedTuple

import jax
import numpy as np

from generative import TwoStageModel
from inference import prng
from inference.annealing.certificate import NUM_FRESH_PARTICLES
from inference.evidence.pilot import PowerStage, num_moves_needed, plan
from inference.evidence.population import Recipe
from inference.evidence.prior import (
    MOVES_TO_FORGET,
    NUM_SWEEPS,
    Effort,
    PriorSampler,
    annealed_prior,
    prior_sampler,
)
from inference.kernels.exchange.lag import FEWEST
from inference.kernels.negative_choice import choose
from inference.running.progress import SILENT, Monitor

_REJECTION_CAP, _MAX_NUM_STEPS = 20_000, 32


class Planned(NamedTuple):
    """What independent runs share.

    Attributes
    ----------
    prior : PriorSampler
    stages : list of PowerStage
    effort : Effort
    key : PRNG key
        For the runs, independent of what chose the plan.
    """

    prior: PriorSampler
    stages: list[PowerStage]
    effort: Effort
    key: jax.Array

    @property
    def note(self) -> str:
        """What the reader should know about these populations."""
        moves = f"; {self.effort.num_moves} moves per negative sample"
        return self.prior.note + ("" if self.prior.is_exact else moves)


def default_recipe(model: TwoStageModel) -> Recipe:
    """Moves of populations that nobody has given settings for."""
    negative, _ = choose(model, "auto", _REJECTION_CAP, _MAX_NUM_STEPS, MOVES_TO_FORGET)
    return Recipe(model, negative, _MAX_NUM_STEPS)


def plan_populations(
    recipe: Recipe,
    theta_2: np.ndarray,
    key: jax.Array,
    num_moves: int | None = None,
    monitor: Monitor = SILENT,
) -> Planned:
    """Choose how populations start and move, and carry a pilot to power 1.

    Parameters
    ----------
    recipe : Recipe
    theta_2 : array, shape (..., d)
        Where a Gaussian stand-in for q must be right too, such as draws of the posterior.
    key : PRNG key
    num_moves : int, optional
        HMC moves per persistent negative sample; by default as many as are found to be needed.
    monitor : Monitor
    """
    key_prior, key_plan, key_run, key_moves = prng.split(key, 4)
    prior = prior_sampler(recipe, key_prior)
    if not prior.holds_at(theta_2):
        prior = annealed_prior(recipe)
    whole = prior.recipe.negative.whole
    effort = Effort(whole(num_moves or FEWEST), NUM_FRESH_PARTICLES, NUM_SWEEPS)
    if num_moves is None and not prior.is_exact:
        effort = effort._replace(num_moves=whole(num_moves_needed(prior, key_moves, effort)))
    return Planned(prior, plan(prior, key_plan, effort, monitor), effort, key_run)
