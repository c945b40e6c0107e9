"""Ascent to the joint maximum of the posterior, with negative samples for grad log Z.

Stochastic approximation (H. Robbins and S. Monro, Ann. Math. Stat. 22 (1951),
doi:10.1214/aoms/1177729586): theta_1 and theta_2 climb without noise of their own, while negative
samples keep drawing from q(. | theta_1). Gaussian stages take a quasi-Newton step in the metric of
the Langevin chains. Laplace stages, whose optimum sits on kinks, take a proximal step in
u = theta_1 - theta_0 and v = theta_2 - theta_1, in which both priors are separable.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from generative import TwoStageModel
from generative.parts import Data
from inference.kernels.langevin.dynamics import LangevinState, LangevinTuning, tamed
from inference.kernels.langevin.steps import Langevin
from inference.moves.density import share

# Of the inverse of the largest eigenvalue, averaged over starts.
_LARGEST_STEP = 0.5

Rule = Literal["stochastic_approximation", "alternating"]


class Ascent(Data):
    """Pure functions for one start; a :class:`~inference.kernels.langevin.dynamics.Dynamics`.

    Parameters
    ----------
    langevin : Langevin
        What moves the negative samples and supplies gradients.
    rule : {"stochastic_approximation", "alternating"}
        How theta_1 is driven: by the gradient of -log Z, or by that of C(new theta_2) - C(old
        theta_2), with new theta_2 the next step of theta_2, per unit of step. The latter needs no
        negative samples, and has another fixed point.
    """

    langevin: Langevin
    rule: Rule = eqx.field(static=True, default="stochastic_approximation")

    def __check_init__(self) -> None:
        origin = self.model.space.origin
        for stage in (self.model.first_stage, self.model.second_stage):
            jax.eval_shape(stage.least_subgradient, origin, origin)  # or it refuses

    @property
    def model(self) -> TwoStageModel:
        """The model."""
        return self.langevin.model

    @property
    def is_proximal(self) -> bool:
        """Whether a stage has kinks."""
        stages = (self.model.first_stage, self.model.second_stage)
        return any(stage.has_kinks for stage in stages)

    @property
    def largest_step(self) -> float:
        """Of theta_1 and theta_2, over the inverse of the largest eigenvalue of Sigma H."""
        return _LARGEST_STEP

    def init(self, theta_1: Array, theta_2: Array, negative: Array) -> LangevinState:
        """Return the state of a start; see :meth:`Langevin.init`."""
        return self.langevin.init(theta_1, theta_2, negative)

    def read(self, key: jax.Array, state: LangevinState, tuning: LangevinTuning) -> LangevinState:
        """Return the state: gradients are taken where it is."""
        return state

    def gradient(
        self, theta_1: Array, theta_2: Array, key: jax.Array | None = None
    ) -> tuple[Array, Array]:
        """See :meth:`Langevin.gradient`."""
        return self.langevin.gradient(theta_1, theta_2, key)

    def forces(self, theta_1: Array, negative: Array) -> tuple[Array, Array]:
        """See :meth:`Langevin.forces`."""
        return self.langevin.forces(theta_1, negative)

    def step(
        self,
        key: jax.Array,
        state: LangevinState,
        tuning: LangevinTuning,
        scale: Float[Array, ""] | float = 1.0,
    ) -> tuple[LangevinState, Float[Array, " d"]]:
        """Make one step; with the state, what stood for grad log Z in it."""
        key_negative, key_batch = jax.random.split(key)
        size = scale * tuning.step_size
        if self.rule == "alternating":
            negative, slope = state.negative, self.change_of_disagreement(state, size)
        else:
            negative, slope = self.follow(key_negative, state, tuning)
        if self.is_proximal:
            theta_1, theta_2 = self._proximal(state, size, slope, key_batch)
        else:
            first, second = self.gradient(state.theta_1, state.theta_2, key_batch)
            force = jnp.concatenate([first - slope, second])
            start = jnp.concatenate([state.theta_1, state.theta_2])
            theta_1, theta_2 = jnp.split(start + tamed(size, force, tuning.metric.joint), 2)
        return self.init(theta_1, theta_2, negative), slope

    def follow(
        self, key: jax.Array, state: LangevinState, tuning: LangevinTuning
    ) -> tuple[Float[Array, "M d"], Float[Array, " d"]]:
        """Move the negative samples, and estimate grad log Z; exact where it is known."""
        exact = self.model.agreement.log_normalizer
        if self.langevin.held is not None:
            exact = None  # what is held fixed has no potential
        if self.langevin.omit_normalizer:
            return state.negative, jnp.zeros_like(state.theta_1)
        if exact is not None:
            return state.negative, jax.grad(exact)(state.theta_1)
        return self.langevin.move_negatives(key, state.theta_1, state.negative, tuning)

    def residual(
        self, theta_1: Float[Array, " d"], theta_2: Float[Array, " d"], slope: Float[Array, " d"]
    ) -> Float[Array, " 2*d"]:
        """Gradient by theta_1 and theta_2; with kinks, the least subgradient.

        Parameters
        ----------
        theta_1, theta_2, slope : arrays, shape (d,)
            The last is grad log Z(theta_1).
        """
        if not self.is_proximal:
            first, second = self.gradient(theta_1, theta_2)
            return jnp.concatenate([first - slope, second])
        drive = self.langevin.drive(theta_2)
        shift = theta_1 - self.model.space.origin
        first = self.model.first_stage.least_subgradient(shift, drive - slope)
        second = self.model.second_stage.least_subgradient(theta_2 - theta_1, drive)
        # By u and v so far: theta_1 = theta_0 + u, theta_2 = theta_0 + u + v.
        return jnp.concatenate([first - second, second])

    def curvature_2(self, key: jax.Array, state: LangevinState) -> Float[Array, " d"]:
        """Diagonal of minus the Hessian by theta_2, by Hutchinson's estimate.

        Squared gradients, which serve draws, vanish at a maximum.
        """
        sign = jax.random.rademacher(key, state.theta_2.shape, state.theta_2.dtype)

        def gradient(theta_2: Array) -> Array:
            return self.gradient(state.theta_1, theta_2)[1]

        return -sign * jax.jvp(gradient, (state.theta_2,), (sign,))[1]

    def _proximal(
        self, state: LangevinState, size: Array, slope: Array, key: jax.Array
    ) -> tuple[Array, Array]:
        model, origin = self.model, self.model.space.origin
        drive = self.langevin.drive(state.theta_2, key)
        u = model.first_stage.ascent_step(state.theta_1 - origin, size, drive - slope)
        v = model.second_stage.ascent_step(state.theta_2 - state.theta_1, size, drive)
        return origin + u, origin + u + v

    def change_of_disagreement(self, state: LangevinState, size: Array) -> Float[Array, " d"]:
        """Gradient by theta_1 of lambda (C(new theta_2) - C(old theta_2)) / size."""
        drive = self.langevin.drive(state.theta_2)
        agreement = self.model.agreement

        def change(theta_1: Array) -> Array:
            shift = state.theta_2 - theta_1
            new = theta_1 + self.model.second_stage.ascent_step(shift, size, drive)
            # What the second stage fixes is theta_1's, in old and new alike.
            old = share(self.model, theta_1, state.theta_2)
            return agreement.disagreement(share(self.model, theta_1, new)) - (
                agreement.disagreement(old)
            )

        return agreement.strength / size * self.langevin.unheld(jax.grad(change)(state.theta_1))
