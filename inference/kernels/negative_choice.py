"""How negative samples are made: exactly where that is affordable, else by what crosses basins."""

from dataclasses import replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from generative import InvalidInput, TwoStageModel
from inference import prng
from inference.annealing.anneal import Schedule, anneal
from inference.annealing.certificate import NUM_FRESH_PARTICLES, NUM_FRESH_SWEEPS, differences
from inference.annealing.conditional_smc import annealed_populations
from inference.checks import FALSE_ALARM_RATE, check_no_shift
from inference.gaussians.surrogate import flat
from inference.kernels import library
from inference.kernels.annealed_negative import AnnealedNegative
from inference.kernels.negative import (
    ClosedFormNegative,
    NegativeSampler,
    PersistentNegative,
    RejectionNegative,
)
from inference.kernels.quadratic import is_quadratic
from inference.moves.density import first_draws, share

# Rejection is affordable where it needs at most about this many proposals a draw; for a few chains
# also where the proposals of a draw need so many floating-point operations. (Particles by the
# thousand all wait for the slowest.)
_AFFORDABLE_TRIES = 300.0
_AFFORDABLE_OPERATIONS = 2e7
# A draw that needs more than the cap fails: the mean must be far below.
_CAP_OVER_MEAN = 10.0
_NUM_PILOT_POINTS, _NUM_PILOT_DRAWS = 256, 512

# Persistent moves must forget another theta_1 in as many as are affordable, at so many draws of p1,
# from so many others each. In few dimensions basins of unequal weight that moves cross in part show
# with many only, and points are cheap.
_NUM_CROSSING_POINTS, _NUM_IN_FEW_DIMENSIONS = 128, 512
_NUM_OTHERS = 4
_FEW_DIMENSIONS = 32
# Of a library, whose worth falls geometrically.
_MOST_OF_A_LIBRARY = 10
# Of the trial of moves without a library, where one can take their place at about the same price.
_DOUBTFUL = 0.05
_NUM_PARTICLES = 16
# Pilots of the one schedule that annealed negative samples share, and their particles.
_NUM_PILOTS, _NUM_SCHEDULED = 32, 64
# Conditional sweeps hold whole paths of particles.
_LARGEST_ANNEALED = 2000

NegativeChoice = Literal["auto", "rejection", "persistent", "library", "annealed"]


def choose(
    model: TwoStageModel,
    requested: NegativeChoice,
    cap: int,
    max_num_steps: int,
    num_moves: int,
    *,
    for_chains: bool = False,
) -> tuple[NegativeSampler, str]:
    """Choose how negative samples are made, and say why.

    Parameters
    ----------
    model : TwoStageModel
    requested : {"auto", "rejection", "persistent", "library", "annealed"}
        `auto` takes the closed form where there is one, then rejection where a pilot finds it
        affordable, then persistent samples where these forget where they started, then those with
        a library where that makes them forget, then conditional SMC.
    cap, max_num_steps : int
        Of :class:`RejectionNegative` and of :class:`PersistentNegative`.
    num_moves : int
        In which persistent samples must forget where they started.
    for_chains : bool
        Whether a few chains will draw, and not a population.
    """
    persistent, rejection = PersistentNegative(max_num_steps), RejectionNegative(cap)
    if requested == "persistent":
        return persistent, "negative samples are persistent, as requested"
    if requested == "library":
        return with_library(model, max_num_steps), "negative samples use a library, as requested"
    if requested == "annealed":
        return annealed_negative(model), "negative samples are annealed, as requested"
    if requested == "rejection":
        return rejection, "negative samples are drawn by rejection, exactly, as requested"
    if model.agreement.closed_form is not None:
        return ClosedFormNegative(), "negative samples are drawn from the closed form, exactly"
    tries, affordable = _pilot_tries(model), _AFFORDABLE_TRIES
    if for_chains:
        affordable = max(affordable, _AFFORDABLE_OPERATIONS / _operations(model))
    affordable = min(affordable, cap / _CAP_OVER_MEAN)
    if tries <= affordable:
        return rejection, (
            f"negative samples are drawn by rejection, exactly (about {tries:.0f} proposals "
            "each under the prior)"
        )
    why = f"rejection would need more than {affordable:.0f} proposals each"
    return without_rejection(model, max_num_steps, num_moves, why)


def without_rejection(
    model: TwoStageModel, max_num_steps: int, num_moves: int, why: str
) -> tuple[NegativeSampler, str]:
    """Choose between persistent and annealed negative samples, and say why.

    Parameters
    ----------
    model : TwoStageModel
    max_num_steps : int
        Of :class:`PersistentNegative`.
    num_moves : int
        In which persistent samples must forget where they started.
    why : str
        Why not rejection.
    """
    persistent = PersistentNegative(max_num_steps)
    if model.dimension > _LARGEST_ANNEALED:
        return persistent, f"negative samples are persistent: {why}"
    if model.second_stage.is_gaussian and is_quadratic(model):
        why += ", and agreement is quadratic, so that q has one basin"
        return persistent, f"negative samples are persistent: {why}"
    trial = _Trial(model, num_moves)
    has_library = model.dimension <= _MOST_OF_A_LIBRARY and library.is_possible(model)
    level = _DOUBTFUL if has_library else FALSE_ALARM_RATE
    if _is_crossed(trial.differences(replace(persistent, renews=np.asarray(False))), level):
        return persistent, f"negative samples are persistent: {why}"
    persistent = PersistentNegative(max_num_steps, always_renews=True)
    with_fresh = trial.differences(persistent)
    if _is_crossed(with_fresh, level):
        return persistent, f"negative samples are persistent: {why}"
    if has_library:
        borrowing = with_library(model, max_num_steps)
        if _is_crossed(trial.differences(borrowing)):
            worth = trial.worth_of(borrowing)
            note = f"negative samples use a library, worth {worth:.0f} draws under the prior"
            return borrowing, f"{note}: {why}, and moves alone may not cross basins"
        if _is_crossed(with_fresh):
            return persistent, f"negative samples are persistent: {why}"
    why += ", and moves alone do not cross basins"
    return annealed_negative(model), f"negative samples are annealed: {why}"


def _is_crossed(
    differences: dict[str, tuple[float, float, float]], false_alarm_rate: float = FALSE_ALARM_RATE
) -> bool:
    """Whether moved draws cannot be told from fresh ones."""
    what = "moved and fresh draws of q"
    return check_no_shift("", differences, what, false_alarm_rate=false_alarm_rate).passed


def with_library(model: TwoStageModel, max_num_steps: int) -> PersistentNegative:
    """Return persistent samples that a library of agreeing draws takes from basin to basin.

    Raises
    ------
    InvalidInput
        If the second stage fixes a block.
    """
    if not library.is_possible(model):
        raise InvalidInput("negative", "library, with a second stage that fixes a block", "another")
    return PersistentNegative(max_num_steps, library.build(jax.random.key(3), model))


def annealed_negative(model: TwoStageModel) -> AnnealedNegative:
    """Return conditional SMC along the longest schedule that pilots at theta_1 from p1 chose."""
    key_1, key_2 = prng.split(jax.random.key(2))
    theta_1 = first_draws(key_1, model, _NUM_PILOTS)
    schedules = jax.tree.map(np.asarray, _schedules(key_2, model, theta_1))
    longest = int(np.argmax(schedules.length))
    temperatures, step_sizes = (
        jnp.asarray(x[longest, : schedules.length[longest]])
        for x in (schedules.temperatures, schedules.step_sizes)
    )
    return AnnealedNegative(temperatures, step_sizes, _NUM_PARTICLES)


class _Trial:
    """Whether so many moves take draws of q under one theta_1 to those under another.

    Parameters
    ----------
    model : TwoStageModel
    num_moves : int
    """

    def __init__(self, model: TwoStageModel, num_moves: int):
        key_1, key_fresh, self._key_moves = prng.split(jax.random.key(1), 3)
        is_small = model.dimension <= _FEW_DIMENSIONS
        number = _NUM_IN_FEW_DIMENSIONS if is_small else _NUM_CROSSING_POINTS
        self._model, self._num_moves = model, np.asarray(num_moves)
        self._theta_1 = np.asarray(first_draws(key_1, model, number))
        settings = (NUM_FRESH_PARTICLES, NUM_FRESH_SWEEPS)
        self._fresh, step = annealed_populations(key_fresh, model, self._theta_1, *settings)
        self._step_size = np.asarray(step, self._theta_1.dtype)

    def worth_of(self, sampler: PersistentNegative) -> float:
        """Median number of draws of q that a sampler's library is worth."""
        assert sampler.library is not None  # as with_library made it
        model = self._model.temper(0.0)
        return float(np.median(library.worth(sampler.library, model, self._theta_1)))

    def differences(self, sampler: PersistentNegative) -> dict[str, tuple[float, float, float]]:
        """Compare moved draws with fresh ones."""
        settings = (self._theta_1, self._fresh[:, 0], self._step_size, self._num_moves)
        moved = _moved(self._key_moves, self._model, sampler, *settings)
        at, found, drawn = (np.asarray(x)[None] for x in (self._theta_1, moved, self._fresh))
        return differences(self._model.temper(0.0), at, found, drawn)


@jax.jit
def _schedules(key: jax.Array, model: TwoStageModel, theta_1: Float[Array, "n d"]) -> Schedule:
    keys = jax.random.split(key, len(theta_1))
    return jax.vmap(lambda k, t: anneal(k, model, t, _NUM_SCHEDULED).schedule)(keys, theta_1)


@jax.jit
def _moved(
    key: jax.Array,
    model: TwoStageModel,
    persistent: PersistentNegative,
    theta_1: Float[Array, "n d"],
    drawn: Float[Array, "n d"],
    step_size: Float[Array, ""],
    num_moves: Int[Array, ""],
) -> Float[Array, "n other d"]:
    """Move to each theta_1 a few draws of q under others, those before it."""

    def one(key: jax.Array, theta_1: Array, start: Array) -> Array:
        start = share(model, theta_1, start)
        return persistent(key, model, theta_1, start, flat(model), step_size, num_moves)[0]

    keys = jax.random.split(key, (len(theta_1), _NUM_OTHERS))
    starts = jnp.stack([jnp.roll(drawn, 1 + k, axis=0) for k in range(_NUM_OTHERS)], axis=1)
    return jax.vmap(jax.vmap(one, (0, None, 0)))(keys, theta_1, starts)


def _operations(model: TwoStageModel) -> float:
    """Floating-point operations of one proposal; counted, not timed, so that choices repeat."""
    cost = _propose.lower(model, jax.random.key(0)).cost_analysis() or {}
    return max(float(cost.get("flops", 0.0)), 1.0)


@jax.jit
def _propose(model: TwoStageModel, key: jax.Array) -> Float[Array, ""]:
    theta = model.second_stage.around(model.space.origin).sample(key)
    return model.agreement.disagreement(theta)


def _pilot_tries(model: TwoStageModel) -> float:
    """Largest mean number of proposals that rejection needs, over draws of theta_1 from p1."""
    worst = float(_pilot_acceptance(model))
    return 1 / worst if worst > 0 else np.inf


@jax.jit
def _pilot_acceptance(model: TwoStageModel) -> Float[Array, ""]:
    key_1, key_2 = jax.random.split(jax.random.key(0))
    theta_1 = first_draws(key_1, model, _NUM_PILOT_POINTS)

    def acceptance(pair: tuple[jax.Array, Array]) -> Array:
        proposal = model.second_stage.around(pair[1])

        def keep(key: jax.Array) -> Array:
            return jnp.exp(model.agreement.log_factor(proposal.sample(key)))

        keys = jax.random.split(pair[0], _NUM_PILOT_DRAWS)
        return jax.lax.map(keep, keys, batch_size=64).mean()

    keys = jax.random.split(key_2, _NUM_PILOT_POINTS)
    return jnp.min(jax.lax.map(acceptance, (keys, theta_1)))
