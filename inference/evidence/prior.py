"""Populations drawn from the two-stage prior: exactly where that can be, else by annealing.

theta_1 comes from p1; theta_2 and the negative sample w come from q(. | theta_1), independently.
Each theta_1 keeps its own draws: weights that compared different theta_1 would tilt their law by
Z(theta_1), which is another evidence.
"""

import math
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from generative import InvalidInput, LinearGaussianAgreement, TwoStageModel
from inference import prng
from inference.annealing.anneal import anneal
from inference.annealing.conditional_smc import annealed_draws
from inference.evidence.population import Particles, Recipe, populate
from inference.gaussians import surrogate as surrogates
from inference.kernels.exchange.learned import NormalizerSurrogate
from inference.kernels.exchange.state import Tuning
from inference.kernels.negative import NegativeSampler, ReferenceNegative
from inference.moves.density import first_draws

_NUM_POINTS, _DRAWS_PER_POINT, _NUM_CURVATURE_POINTS = 8, 64, 16
_NUM_CHECKED = 1024
# Conditional sweeps per annealed draw, before any doubling.
NUM_SWEEPS = 2
# In which negative samples of a population forget where they were, or are made in another way. With
# the most that are ever made tilted wells let them pass, and the evidence was 0.03 nats too large.
MOVES_TO_FORGET = 8
# Particles that may share the theta_1 of one annealed population: moves at power 0 follow.
NUM_EACH = 4
# A stand-in whose log weights (nats) vary by less, on its own draws and on annealed ones, serves
# for first draws; and is q itself, for negative samples too.
_CLOSE_WITHIN, _EXACT_WITHIN = 0.01, 1e-6


class RejectionCapped(InvalidInput):
    """Rejection hit its cap at a draw of the prior."""


def require_found(num_failed: int) -> None:
    """Refuse populations of which rejection lost negative samples.

    Raises
    ------
    RejectionCapped
    """
    if num_failed:
        raise RejectionCapped("negative", f"{num_failed} caps hit", "persistent")


class Effort(NamedTuple):
    """How much work goes into draws that are not exact; doubling it must change nothing.

    Attributes
    ----------
    num_moves : int
        HMC moves per persistent negative sample.
    num_annealed : int
        Particles of each population annealed at one theta_1, and of each conditional sweep.
    num_sweeps : int
        Conditional sweeps per annealed draw of the prior.
    """

    num_moves: int
    num_annealed: int
    num_sweeps: int

    def times(self, factor: int) -> "Effort":
        """Return so many times the moves and the sweeps."""
        return Effort(factor * self.num_moves, self.num_annealed, factor * self.num_sweeps)


class PriorSampler(NamedTuple):
    """How a population is drawn.

    Attributes
    ----------
    recipe : Recipe
    stand_in : LinearGaussianAgreement or None
        The law of theta_2 given theta_1, where it was found to be Gaussian.
    note : str
        What the reader should know about these draws.
    """

    recipe: Recipe
    stand_in: LinearGaussianAgreement | None
    note: str

    @property
    def is_exact(self) -> bool:
        """Whether the draws are exact, so that more effort cannot change them."""
        return self.recipe.negative.is_exact

    def draw(self, key: jax.Array, num_draws: int, effort: Effort, num_each: int = 1) -> Particles:
        """Draw a population.

        Parameters
        ----------
        key : PRNG key
        num_draws : int
        effort : Effort
            Of annealed draws.
        num_each : int
            Particles in a row that may have one theta_1, where draws are annealed.

        Raises
        ------
        RejectionCapped
            If rejection hit its cap: leaving the draw out would favour large Z.
        InvalidInput
            If L is NaN or +infinity at a draw.
        """
        model = self.recipe.model
        if self.stand_in is not None:
            particles = _from_stand_in(key, model, self.stand_in, num_draws)
        elif self.is_exact:
            particles = _exact(key, self.recipe, num_draws)
        else:
            key_1, key_2 = prng.split(key)
            num_each = math.gcd(num_each, effort.num_annealed)
            points = np.asarray(first_draws(key_1, model, -(-num_draws // num_each)))
            settings = (effort.num_annealed, effort.num_sweeps, num_each)
            draws = annealed_draws(key_2, model, np.concatenate([points, points]), *settings)
            theta_1, pair = np.repeat(points, num_each, axis=0), np.split(draws, 2)
            particles = populate(model, *(x[:num_draws] for x in (theta_1, *pair)))
        _check(particles)
        return particles

    def made_for(self, key: jax.Array, particles: Particles, power: float) -> "PriorSampler":
        """Return the sampler with negative samples at their best for such theta_1, at a power."""
        pair = (np.asarray(particles.theta_1), np.asarray(particles.negative))
        negative = self.recipe.negative.made_for(key, self.recipe.model, *pair, power)
        return self.with_negative(negative)

    def with_negative(self, negative: NegativeSampler) -> "PriorSampler":
        """Return the sampler with negative samples made in another way, of the same structure."""
        return self._replace(recipe=replace(self.recipe, negative=negative))

    def holds_at(self, theta_2: Float[np.ndarray, "... d"]) -> bool:
        """Whether a stand-in that serves for q is right at posterior draws too."""
        if not isinstance(self.recipe.negative, ReferenceNegative):
            return True
        draws = theta_2.reshape(-1, theta_2.shape[-1])
        return float(_range_of_weights(self.recipe.model, self.stand_in, draws)) <= _EXACT_WITHIN

    def pin(self, tuning: Tuning) -> Tuning:
        """Return a tuning whose surrogates and metric are the stand-in, where that is q itself."""
        if self.stand_in is None or not isinstance(self.recipe.negative, ReferenceNegative):
            return tuning
        normalizer = NormalizerSurrogate.uncorrected(self.recipe.model, self.stand_in)
        return tuning._replace(
            transport=self.stand_in, normalizer=normalizer, metric_negative=self.stand_in
        )


def prior_sampler(recipe: Recipe, key: jax.Array) -> PriorSampler:
    """Choose how to draw from the two-stage prior.

    Draws are exact where negative samples are. Else a linear-Gaussian stand-in is fitted to
    annealed draws, and used if its weights are constant on its own draws (so that it is right
    where it is) and on the annealed ones (so that it missed nothing they found). A stand-in that is
    right to rounding takes over the negative samples too.
    """
    if recipe.negative.is_exact:
        return PriorSampler(recipe, None, "the two-stage prior was drawn exactly")
    model = recipe.model
    if model.second_stage.is_gaussian:
        stand_in, deviation = _stand_in(key, model)
        if float(deviation) <= _CLOSE_WITHIN:
            note = (
                "the two-stage prior was drawn from its Gauss-Newton form, found right within "
                f"{max(float(deviation), 1e-12):.1g} nats"
            )
            if float(deviation) <= _EXACT_WITHIN:
                recipe = replace(recipe, negative=ReferenceNegative())
                note += "; so were negative samples"
            return PriorSampler(recipe, stand_in, note)
    return annealed_prior(recipe)


def annealed_prior(recipe: Recipe) -> PriorSampler:
    """Draw from the two-stage prior by annealing, whatever the model is."""
    note = "the two-stage prior was drawn by annealing at each theta_1, approximately"
    return PriorSampler(recipe, None, note)


@partial(jax.jit, static_argnums=2)
def _exact(key: jax.Array, recipe: Recipe, num_draws: int) -> Particles:
    model = recipe.model
    key_1, key_2 = jax.random.split(key)
    theta_1 = first_draws(key_1, model, num_draws)
    flat, one = surrogates.flat(model), jnp.ones((), theta_1.dtype)
    nan = jnp.full_like(theta_1[0], jnp.nan)

    def pair(key: jax.Array, theta_1: Array) -> tuple[Array, Array]:
        draws = [
            recipe.negative(key, model, theta_1, nan, flat, one, jnp.ones((), int))
            for key in jax.random.split(key)
        ]
        return draws[0][0], draws[1][0]

    theta_2, negative = jax.vmap(pair)(jax.random.split(key_2, num_draws), theta_1)
    return populate(model, theta_1, theta_2, negative)


@partial(jax.jit, static_argnums=3)
def _from_stand_in(
    key: jax.Array, model: TwoStageModel, stand_in: LinearGaussianAgreement, num_draws: int
) -> Particles:
    key_1, key_pair = jax.random.split(key)
    theta_1 = first_draws(key_1, model, num_draws)
    key_2, key_w = jax.random.split(key_pair, (2, num_draws))
    sample = jax.vmap(stand_in.sample)
    return populate(model, theta_1, sample(key_2, theta_1), sample(key_w, theta_1))


@jax.jit
def _stand_in(key: jax.Array, model: TwoStageModel) -> tuple[LinearGaussianAgreement, Array]:
    """Fit a stand-in for q to annealed draws; with it, the range of its log weights, nats."""
    key_1, key_anneal, key_fit, key_check = jax.random.split(key, 4)
    theta_1 = first_draws(key_1, model, _NUM_POINTS)
    keys = jax.random.split(key_anneal, _NUM_POINTS)
    found = jax.vmap(lambda k, t: anneal(k, model, t, _DRAWS_PER_POINT).particles)(keys, theta_1)
    potential = surrogates.agreement_potential(model)
    draws = found.reshape(-1, model.dimension)
    stand_in = surrogates.fit(key_fit, model, potential, draws, _NUM_CURVATURE_POINTS)

    key_more, key_own = jax.random.split(key_check)
    more = first_draws(key_more, model, _NUM_CHECKED)
    own = jax.vmap(stand_in.sample)(jax.random.split(key_own, _NUM_CHECKED), more)
    return stand_in, _range_of_weights(model, stand_in, jnp.concatenate([own, draws]))


@jax.jit
def _range_of_weights(
    model: TwoStageModel, stand_in: LinearGaussianAgreement, draws: Float[Array, "n d"]
) -> Float[Array, ""]:
    """Range of log q less log stand-in, nats; its constant is the same for every theta_1."""
    potential = surrogates.agreement_potential(model)

    def log_weight(theta_2: Array) -> Array:
        return stand_in.potential(theta_2) - potential.value(theta_2)

    log_w = jax.lax.map(log_weight, draws, batch_size=_DRAWS_PER_POINT)
    spread = jnp.max(log_w) - jnp.min(log_w)
    return jnp.where(jnp.isfinite(spread), spread, jnp.inf)


def _check(particles: Particles) -> None:
    lost = ~np.isfinite(np.asarray(particles.theta_2)).all(axis=-1)
    if lost.any():
        raise RejectionCapped(
            "negative",
            f"rejection that hit its cap at {int(lost.sum())} of {len(lost)} draws of the prior",
            "negative=persistent, or a larger rejection_cap",
        )
    values = np.asarray(particles.log_likelihood)
    if np.isnan(values).any():
        found = f"NaN at {int(np.isnan(values).sum())} of {len(values)} draws of the prior"
        raise InvalidInput("log_likelihood", found, "numbers of nats")
    if np.isposinf(values).any():
        raise InvalidInput("log_likelihood", "+infinity at a draw of the prior", "finite or -inf")
