"""Negative samples: draws w ~ q(. | theta_1) that stand in for Z(theta_1) in the exchange ratio."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from generative import LinearGaussianAgreement, TwoStageModel
from generative.agreement import rejection_sample
from inference.kernels.density import log_agreeing
from inference.kernels.independence import independence_step
from inference.kernels.reference_hmc import reference_hmc

# Rejection is affordable where it needs at most about this many proposals a draw; for a few chains
# also where the proposals of a draw need so many floating-point operations. (Particles by the
# thousand all wait for the slowest.)
_AFFORDABLE_TRIES = 300.0
_AFFORDABLE_OPERATIONS = 2e7
# A draw that needs more than the cap fails: the mean must be far below.
_CAP_OVER_MEAN = 10.0
_NUM_PILOT_POINTS, _NUM_PILOT_DRAWS = 32, 4096

NegativeChoice = Literal["auto", "rejection", "persistent"]


@dataclass(frozen=True)
class NegativeSampler:
    """How a negative sample under theta_1 is made."""

    @property
    @abstractmethod
    def is_exact(self) -> bool:
        """Whether the draw is exact and independent of `start`."""

    @abstractmethod
    def __call__(
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[Array, " d"],
        start: Float[Array, " d"],
        metric: LinearGaussianAgreement,
        step_size: Float[Array, ""],
        num_moves: Int[Array, ""],
    ) -> tuple[Float[Array, " d"], Float[Array, ""], Bool[Array, ""]]:
        """Return w, the mean acceptance rate of its moves, and whether it was found."""


@dataclass(frozen=True)
class ClosedFormNegative(NegativeSampler):
    """Draw from q(. | theta_1) where it is Gaussian."""

    @property
    def is_exact(self) -> bool:
        """True."""
        return True

    def __call__(self, key, model, theta_1, start, metric, step_size, num_moves):  # noqa: ANN001, ANN204, D102
        draw = model.agreement.closed_form.sample(key, theta_1)
        return draw, jnp.ones((), start.dtype), jnp.ones((), bool)


@dataclass(frozen=True)
class ReferenceNegative(NegativeSampler):
    """Draw from the metric's own Gaussian, where that was found to be q(. | theta_1) itself."""

    @property
    def is_exact(self) -> bool:
        """True."""
        return True

    def __call__(self, key, model, theta_1, start, metric, step_size, num_moves):  # noqa: ANN001, ANN204, D102
        return metric.sample(key, theta_1), jnp.ones((), start.dtype), jnp.ones((), bool)


@dataclass(frozen=True)
class RejectionNegative(NegativeSampler):
    """Propose from p2(. | theta_1) until the heads agree: exact, at 1 / Z proposals.

    Parameters
    ----------
    cap : int
        Proposals after which the draw fails; the kernel counts that, and rejects the move.
    """

    cap: int = 20_000

    @property
    def is_exact(self) -> bool:
        """True."""
        return True

    def __call__(self, key, model, theta_1, start, metric, step_size, num_moves):  # noqa: ANN001, ANN204, D102
        draw, _ = rejection_sample(key, model.agreement, theta_1, self.cap)
        found = jnp.isfinite(draw).all()
        return jnp.where(found, draw, start), jnp.ones((), start.dtype), found


@dataclass(frozen=True)
class PersistentNegative(NegativeSampler):
    """Move the last negative sample under the new theta_1: a fresh proposal, then HMC, repeatedly.

    Approximate: w lags behind theta_1 when `num_moves` is small. That doubling `num_moves`
    changes nothing is the evidence that it is enough.

    Parameters
    ----------
    max_num_steps : int
        Leapfrog steps of one move, at most.
    """

    max_num_steps: int = 32

    @property
    def is_exact(self) -> bool:
        """False."""
        return False

    def __call__(self, key, model, theta_1, start, metric, step_size, num_moves):  # noqa: ANN001, ANN204, D102
        def penalty(theta: Array) -> Array:
            return model.agreement.strength * model.agreement.disagreement(theta)

        def move(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            w, total = carry
            key_fresh, key_move = jax.random.split(jax.random.fold_in(key, index))
            w = independence_step(key_fresh, model, theta_1, w, lambda theta: -penalty(theta))
            w, info = reference_hmc(
                key_move,
                w,
                lambda theta: log_agreeing(model, theta_1, theta),
                metric,
                metric.mean(theta_1),
                step_size,
                self.max_num_steps,
            )
            return w, total + info.acceptance_rate

        w, total = jax.lax.fori_loop(0, num_moves, move, (start, jnp.zeros((), start.dtype)))
        return w, total / num_moves, jnp.ones((), bool)


def choose(
    model: TwoStageModel,
    requested: NegativeChoice,
    cap: int,
    max_num_steps: int,
    *,
    for_chains: bool = False,
) -> tuple[NegativeSampler, str]:
    """Choose how negative samples are made, and say why.

    Parameters
    ----------
    model : TwoStageModel
    requested : {"auto", "rejection", "persistent"}
        `auto` takes the closed form where there is one, then rejection where a pilot finds it
        affordable.
    cap, max_num_steps : int
        Of :class:`RejectionNegative` and of :class:`PersistentNegative`.
    for_chains : bool
        Whether a few chains will draw, and not a population.
    """
    persistent, rejection = PersistentNegative(max_num_steps), RejectionNegative(cap)
    if requested == "persistent":
        return persistent, "negative samples are persistent, as requested"
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
    return persistent, (
        "negative samples are persistent: rejection would need more than "
        f"{affordable:.0f} proposals each"
    )


def _operations(model: TwoStageModel) -> float:
    """Floating-point operations of one proposal; counted, not timed, so that choices repeat."""

    def propose(key: jax.Array) -> Array:
        theta = model.second_stage.around(model.space.origin).sample(key)
        return model.agreement.disagreement(theta)

    cost = jax.jit(propose).lower(jax.random.key(0)).cost_analysis() or {}
    return max(float(cost.get("flops", 0.0)), 1.0)


def _pilot_tries(model: TwoStageModel) -> float:
    """Largest mean number of proposals that rejection needs, over draws of theta_1 from p1."""
    worst = float(_pilot_acceptance(model))
    return 1 / worst if worst > 0 else np.inf


@partial(jax.jit, static_argnums=(0,))
def _pilot_acceptance(model: TwoStageModel) -> Float[Array, ""]:
    key_1, key_2 = jax.random.split(jax.random.key(0))
    theta_1 = model.first_stage.around(model.space.origin).sample(key_1, (_NUM_PILOT_POINTS,))

    def acceptance(pair: tuple[jax.Array, Array]) -> Array:
        proposal = model.second_stage.around(pair[1])

        def keep(key: jax.Array) -> Array:
            penalty = model.agreement.disagreement(proposal.sample(key))
            return jnp.exp(-model.agreement.strength * penalty)

        keys = jax.random.split(pair[0], _NUM_PILOT_DRAWS)
        return jax.lax.map(keep, keys, batch_size=64).mean()

    keys = jax.random.split(key_2, _NUM_PILOT_POINTS)
    return jnp.min(jax.lax.map(acceptance, (keys, theta_1)))
