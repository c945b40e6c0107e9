"""Negative samples: draws w ~ q(. | theta_1) that stand in for Z(theta_1) in the exchange ratio."""

from abc import abstractmethod
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from generative import LinearGaussianAgreement, TwoStageModel
from generative.agreement import rejection_sample
from generative.parts import Data
from inference.annealing.anneal import Schedule
from inference.annealing.conditional_smc import conditional_sweep
from inference.annealing.path import Path
from inference.gaussians.surrogate import flat
from inference.kernels.library import Library
from inference.moves.density import log_agreeing
from inference.moves.independence import independence_step
from inference.moves.reference_hmc import reference_hmc


class NegativeSampler(Data):
    """How a negative sample under theta_1 is made.

    As a move from `start` it is reversible with respect to q(. | theta_1).
    """

    @property
    @abstractmethod
    def is_exact(self) -> bool:
        """Whether the draw is exact and independent of `start`."""

    @property
    def moves_each(self) -> int:
        """For how many moves one step of it counts."""
        return 1

    def whole(self, num_moves: int) -> int:
        """Round moves up to whole steps, so that twice as many are twice the work."""
        return -(-num_moves // self.moves_each) * self.moves_each

    def made_for(
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[np.ndarray, "n d"],
        power: float = 1.0,
    ) -> "NegativeSampler":
        """Return a sampler of the same structure that is at its best for such theta_1.

        Data count at a power.
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

    @property
    def is_exact(self) -> bool:
        """True."""
        return True

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

    @property
    def is_exact(self) -> bool:
        """True."""
        return True

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

    @property
    def is_exact(self) -> bool:
        """True."""
        return True

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
    """

    max_num_steps: int = eqx.field(static=True, default=32)
    library: Library | None = None

    @property
    def is_exact(self) -> bool:
        """False."""
        return False

    def made_for(
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[np.ndarray, "n d"],
        power: float = 1.0,
    ) -> "NegativeSampler":
        """Return the sampler with a library for such theta_1, where it has one."""
        if self.library is None:
            return self
        return replace(self, library=self.library.made_for(key, model, theta_1, power))

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
        def penalty(theta: Array) -> Array:
            return model.agreement.strength * model.agreement.disagreement(theta)

        def renew(key: jax.Array, w: Array) -> Array:
            return independence_step(key, model, theta_1, w, lambda theta: -penalty(theta))

        def borrow(key: jax.Array, w: Array) -> Array:
            if self.library is None:
                return w
            key, alone = jax.random.fold_in(key, 1), model.temper(0.0)
            return self.library.move(key, alone, theta_1, w, self.library.num_rows)

        def move(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            w, total = carry
            key_before, key_move, key_after = jax.random.split(jax.random.fold_in(key, index), 3)
            w, info = reference_hmc(
                key_move,
                renew(key_before, borrow(key_before, w)),
                lambda theta: log_agreeing(model, theta_1, theta),
                metric,
                metric.mean(theta_1),
                step_size,
                self.max_num_steps,
            )
            # The same order backwards, as a path that is run both ways needs it.
            return borrow(key_after, renew(key_after, w)), total + info.acceptance_rate

        w, total = jax.lax.fori_loop(0, num_moves, move, (start, jnp.zeros((), start.dtype)))
        rate = total / jnp.maximum(num_moves, 1).astype(total.dtype)
        return w, rate, jnp.ones((), bool)


class AnnealedNegative(NegativeSampler):
    """Move the last negative sample by conditional SMC under the new theta_1: it crosses basins.

    Every sweep leaves q(. | theta_1) invariant, and forgets its start whatever separates the modes
    of q; see :mod:`inference.annealing.conditional_smc`. A sweep counts for eight moves.

    Parameters
    ----------
    temperatures, step_sizes : arrays, shape (t,)
        Of one schedule, for every theta_1.
    num_particles : int
        Too few, and the start is remembered: about one over this number of it in a sweep.
    """

    temperatures: Float[Array, " t"]
    step_sizes: Float[Array, " t"]
    num_particles: int = eqx.field(static=True, default=16)

    @property
    def is_exact(self) -> bool:
        """False."""
        return False

    @property
    def moves_each(self) -> int:
        """Eight."""
        return 8

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
        path = Path(model, theta_1, flat(model))
        number = len(self.temperatures)
        schedule = Schedule(self.temperatures, self.step_sizes, jnp.asarray(number))

        def sweep(index: Array, w: Array) -> Array:
            key_sweep = jax.random.fold_in(key, index)
            return conditional_sweep(key_sweep, path, schedule, w, self.num_particles, number)[0]

        w = jax.lax.fori_loop(0, -(-num_moves // self.moves_each), sweep, start)
        return w, jnp.ones((), start.dtype), jnp.ones((), bool)
