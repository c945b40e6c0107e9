"""Negative samples: draws w ~ q(. | theta_1) that stand in for Z(theta_1) in the exchange ratio."""

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from generative import LinearGaussianAgreement, TwoStageModel
from generative.agreement import rejection_sample
from generative.parts import Data
from inference.kernels.library import Library
from inference.moves.density import log_agreeing
from inference.moves.independence import independence_step
from inference.moves.reference_hmc import reference_hmc

# Fresh proposals that are accepted less often renew a sample in more than fifty moves. The rate is
# measured at so many negative samples, with a few proposals each.
_RARE, _NUM_JUDGED, _NUM_FRESH = 0.01, 256, 16
# A trajectory, and before and after it a fresh proposal and one of the library.
_STEPS_OF_A_MOVE = 5


class NegativeSampler(Data):
    """How a negative sample under theta_1 is made.

    As a move from `start` it is reversible with respect to q(. | theta_1).

    Attributes
    ----------
    is_exact : bool
        Whether the draw is exact and independent of `start`.
    moves_each : int
        For how many moves one step of it counts.
    """

    is_exact: ClassVar[bool]
    moves_each: ClassVar[int] = 1

    def whole(self, num_moves: int) -> int:
        """Round moves up to whole steps, so that twice as many are twice the work."""
        return -(-num_moves // self.moves_each) * self.moves_each

    def made_for(
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[np.ndarray, "n d"],
        negative: Float[np.ndarray, "n d"],
        power: float = 1.0,
    ) -> "NegativeSampler":
        """Return a sampler of the same structure that is at its best for such theta_1.

        `negative` are negative samples under them. Data count at a power.
        """
        return self

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


class ClosedFormNegative(NegativeSampler):
    """Draw from q(. | theta_1) where it is Gaussian."""

    is_exact: ClassVar[bool] = True

    def __call__(  # noqa: D102
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[Array, " d"],
        start: Float[Array, " d"],
        metric: LinearGaussianAgreement,
        step_size: Float[Array, ""],
        num_moves: Int[Array, ""],
    ) -> tuple[Float[Array, " d"], Float[Array, ""], Bool[Array, ""]]:
        closed_form = model.agreement.closed_form
        assert closed_form is not None
        return closed_form.sample(key, theta_1), jnp.ones((), start.dtype), jnp.ones((), bool)


class ReferenceNegative(NegativeSampler):
    """Draw from the metric's own Gaussian, where that was found to be q(. | theta_1) itself."""

    is_exact: ClassVar[bool] = True

    def __call__(  # noqa: D102
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[Array, " d"],
        start: Float[Array, " d"],
        metric: LinearGaussianAgreement,
        step_size: Float[Array, ""],
        num_moves: Int[Array, ""],
    ) -> tuple[Float[Array, " d"], Float[Array, ""], Bool[Array, ""]]:
        return metric.sample(key, theta_1), jnp.ones((), start.dtype), jnp.ones((), bool)


class RejectionNegative(NegativeSampler):
    """Propose from p2(. | theta_1) until the heads agree: exact, at 1 / Z proposals.

    Parameters
    ----------
    cap : int
        Proposals after which the draw fails; the kernel counts that, and rejects the move.
    """

    cap: int = eqx.field(static=True, default=20_000)

    is_exact: ClassVar[bool] = True

    def __call__(  # noqa: D102
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[Array, " d"],
        start: Float[Array, " d"],
        metric: LinearGaussianAgreement,
        step_size: Float[Array, ""],
        num_moves: Int[Array, ""],
    ) -> tuple[Float[Array, " d"], Float[Array, ""], Bool[Array, ""]]:
        draw, _ = rejection_sample(key, model.agreement, theta_1, self.cap)
        found = jnp.isfinite(draw).all()
        return jnp.where(found, draw, start), jnp.ones((), start.dtype), found


class PersistentNegative(NegativeSampler):
    """Move the last negative sample under the new theta_1: fresh proposals and HMC in turn.

    With a library, draws of it are proposed as well, which cross basins.

    Approximate: w lags behind theta_1 when `num_moves` is small. That doubling `num_moves`
    changes nothing is the evidence that it is enough.

    Parameters
    ----------
    max_num_steps : int
        Leapfrog steps of one move, at most.
    library : Library, optional
    renews : bool array
        Whether fresh draws of p2 are proposed.
    always_renews : bool
        Whether they are needed, so that they stay where hardly any is accepted: half of the cost
        of a move where C is cheap.
    """

    max_num_steps: int = eqx.field(static=True, default=32)
    library: Library | None = None
    renews: Bool[Array | np.ndarray, ""] = eqx.field(default_factory=lambda: np.asarray(True))
    always_renews: bool = eqx.field(static=True, default=False)

    is_exact: ClassVar[bool] = False

    def made_for(
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[np.ndarray, "n d"],
        negative: Float[np.ndarray, "n d"],
        power: float = 1.0,
    ) -> "NegativeSampler":
        """Return the sampler with a library for such theta_1, where it has one.

        Without one, fresh proposals are made where they are accepted, or needed.
        """
        if self.library is not None:
            return replace(self, library=self.library.made_for(key, model, theta_1, power))
        if self.always_renews:
            return self
        chosen = np.linspace(0, len(theta_1) - 1, _NUM_JUDGED).astype(int)
        rate = float(_rate_of_fresh(key, model, theta_1[chosen], negative[chosen]))
        return replace(self, renews=np.asarray(rate > _RARE))

    def rescued(
        self, key: jax.Array, model: TwoStageModel, theta_1: Float[Array, " d"], w: Array
    ) -> Float[Array, " d"]:
        """Offer one fresh draw where moves make none: C may be huge where w was carried.

        No step of a trajectory need be stable there.
        """
        return _offered_fresh(~jnp.asarray(self.renews), key, model, theta_1, w)

    def __call__(  # noqa: D102
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[Array, " d"],
        start: Float[Array, " d"],
        metric: LinearGaussianAgreement,
        step_size: Float[Array, ""],
        num_moves: Int[Array, ""],
    ) -> tuple[Float[Array, " d"], Float[Array, ""], Bool[Array, ""]]:
        def key_of(step: Array) -> jax.Array:
            return jax.random.fold_in(key, step)

        def renew(step: Array, w: Array) -> Array:
            return _offered_fresh(self.renews, key_of(step), model, theta_1, w)

        def borrow(step: Array, w: Array) -> Array:
            if self.library is None:
                return w
            alone = model.temper(0.0)
            return self.library.move(key_of(step), alone, theta_1, w, self.library.num_rows)

        def move(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            w, total = carry
            step = _STEPS_OF_A_MOVE * index
            w, info = reference_hmc(
                key_of(step),
                renew(step + 2, borrow(step + 1, w)),
                lambda theta: log_agreeing(model, theta_1, theta),
                metric,
                metric.mean(theta_1),
                step_size,
                self.max_num_steps,
            )
            # The same order backwards, as a path that is run both ways needs it.
            return borrow(step + 4, renew(step + 3, w)), total + info.acceptance_rate

        w, total = jax.lax.fori_loop(0, num_moves, move, (start, jnp.zeros((), start.dtype)))
        rate = total / jnp.maximum(num_moves, 1).astype(total.dtype)
        return w, rate, jnp.ones((), bool)


def made_for_chains(
    sampler: NegativeSampler,
    key: jax.Array,
    model: TwoStageModel,
    draws: dict[str, np.ndarray],
) -> NegativeSampler:
    """Return a sampler that is at its best where chains are, by theta_1 and negative samples."""
    pair = [draws[name].reshape(-1, model.dimension) for name in ("theta_1", "negative")]
    return sampler.made_for(key, model, pair[0], pair[1])


def _offered_fresh(
    is_offered: Bool[Array | np.ndarray, ""],
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array, " d"],
    w: Float[Array, " d"],
) -> Float[Array, " d"]:
    """Propose a draw of p2(. | theta_1), or not: a branch, where all chains share the answer."""

    def offered(w: Array) -> Array:
        return independence_step(key, model, theta_1, w, model.agreement.log_factor)

    return jax.lax.cond(is_offered, offered, lambda w: w, w)


@jax.jit
def _rate_of_fresh(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[Array | np.ndarray, "n d"],
    negative: Float[Array | np.ndarray, "n d"],
) -> Float[Array, ""]:
    """Mean probability that a draw of p2(. | theta_1) takes the place of a negative sample."""

    def one(x: tuple[jax.Array, Array, Array]) -> Array:
        key, theta_1, w = x
        draws = model.second_stage.around(theta_1).sample(key, (_NUM_FRESH,))
        log_factor = model.agreement.log_factor
        gain = jax.vmap(log_factor)(draws) - log_factor(w)
        # A proposal at which C is NaN is refused.
        return jnp.where(jnp.isnan(gain), 0, jnp.exp(jnp.minimum(gain, 0))).mean()

    keys = jax.random.split(key, len(theta_1))
    return jax.lax.map(one, (keys, theta_1, negative), batch_size=_NUM_FRESH).mean()
