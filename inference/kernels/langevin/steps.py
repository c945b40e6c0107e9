"""Langevin dynamics on (theta_1, theta_2) with persistent negative samples.

The force on theta_1 contains -grad log Z(theta_1), which negative samples w ~ q(. | theta_1)
estimate. For a location stage both grad_1 log p2(w | theta_1) and -lambda grad C(w) do; they differ
by the score s(w) = grad_w log q(w | theta_1), whose mean is 0, and any matrix P may weigh it:

    grad log Z(theta_1) = E_q[-lambda grad C(w) - P S2 s(w)].

P = S2^-1 is the persistent-contrastive form. It is noisy wherever the prior is wide, be C flat
there or not. P = 0 is silent where C is flat and loud where it is steep. With P = A' K^-1 A, the
curvature of log Z under a linear-Gaussian stand-in, the noise is 0 where the stand-in is right,
and with it the lag of w behind theta_1. This is the default.

The step is that of stochastic gradient Langevin dynamics (M. Welling and Y. W. Teh, ICML 2011),
with a metric Sigma that warm-up fits and sampling keeps fixed,

    x += h Sigma g(y) + sqrt(2 h) xi,   xi ~ N(0, Sigma),

at y = x, or (`averaged`) at y = x + sqrt(h / 2) xi with the same xi: then the law of y has no bias
at all for Gaussian targets and one of second order elsewhere (B. Leimkuhler and C. Matthews, Appl.
Math. Res. Express 2013, doi:10.1093/amrx/abs010), at no cost. It is y that has the target's law,
and no accept step may act on x: a Metropolis step there would bring back the bias of order h.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from generative import TwoStageModel
from generative.parts import Data
from inference.kernels.langevin.dynamics import LangevinState, LangevinTuning, largest_step, tamed
from inference.moves.density import log_first, log_second, share

# A stream of keys for :meth:`Langevin.read`, beside those that chains split off theirs.
READ = 2**20
Estimator = Literal["control", "score"]


class Langevin(Data):
    """Langevin dynamics of one chain and its negative samples, as pure functions.

    Parameters
    ----------
    model : TwoStageModel
    averaged : bool
        Whether gradients are taken at the averaged point.
    estimator : {"control", "score"}
        Of grad log Z.
    batch_size : int, optional
        Answers per step, drawn with replacement; all of them by default. C is never mini-batched:
        a part of it would have another Z.
    held : str, optional
        Parameters whose names start so are held fixed where C is differentiated. The field is no
        gradient then, and its stationary law is not the posterior.
    omit_normalizer : bool
        True leaves out -log Z(theta_1), a labelled mistake: the negative control of every check.
    """

    model: TwoStageModel
    averaged: bool = eqx.field(static=True, default=True)
    estimator: Estimator = eqx.field(static=True, default="control")
    batch_size: int | None = eqx.field(static=True, default=None)
    held: str | None = eqx.field(static=True, default=None)
    omit_normalizer: bool = eqx.field(static=True, default=False)

    def init(
        self,
        theta_1: Float[Array, " d"],
        theta_2: Float[Array, " d"],
        negative: Float[Array, "M d"],
    ) -> LangevinState:
        """Return the state of a chain; coordinates that stages fix are made to agree."""
        shared = jax.vmap(lambda w: share(self.model, theta_1, w))
        return LangevinState(theta_1, share(self.model, theta_1, theta_2), shared(negative))

    def step(
        self,
        key: jax.Array,
        state: LangevinState,
        tuning: LangevinTuning,
        scale: Float[Array, ""] | float = 1.0,
    ) -> tuple[LangevinState, Float[Array, " d"]]:
        """Make one step; with the state, the estimate of grad log Z that it used.

        Parameters
        ----------
        key : PRNG key
        state : LangevinState
        tuning : LangevinTuning
        scale : float
            Factor of `step_size`, from a schedule.
        """
        key_noise, key_negative, key_batch = jax.random.split(key, 3)
        metric, size = tuning.metric, scale * tuning.step_size
        noise = metric.joint.fluctuation(key_noise)
        start = jnp.concatenate([state.theta_1, state.theta_2])
        theta_1, theta_2 = jnp.split(self._point(start, size, noise), 2)
        theta_2 = share(self.model, theta_1, theta_2)
        negative, slope = self.move_negatives(key_negative, theta_1, state.negative, tuning)
        first, second = self.gradient(theta_1, theta_2, key_batch)
        if not self.omit_normalizer:
            first = first - slope
        push = tamed(size, jnp.concatenate([first, second]), metric.joint)
        moved = start + push + jnp.sqrt(2 * size) * noise
        moved_1, moved_2 = jnp.split(moved, 2)
        return self.init(moved_1, moved_2, negative), slope

    @property
    def largest_step(self) -> float:
        """Of theta_1 and theta_2, over the inverse of the largest eigenvalue of Sigma H."""
        stages = (self.model.first_stage, self.model.second_stage)
        return largest_step(*stages)

    def read(self, key: jax.Array, state: LangevinState, tuning: LangevinTuning) -> LangevinState:
        """Draw a state with the law of the points at which gradients are taken."""
        key_joint, key_negative = jax.random.split(key)
        metric = tuning.metric
        noise = metric.joint.fluctuation(key_joint)
        start = jnp.concatenate([state.theta_1, state.theta_2])
        theta_1, theta_2 = jnp.split(self._point(start, tuning.step_size, noise), 2)

        def one(key: jax.Array, w: Array) -> Array:
            return self._point(w, tuning.step_negative, metric.negative.fluctuation(key))

        keys = jax.random.split(key_negative, len(state.negative))
        return self.init(theta_1, theta_2, jax.vmap(one)(keys, state.negative))

    def _point(self, x: Array, size: Float[Array, ""], noise: Array) -> Array:
        return x + jnp.sqrt(0.5 * size) * noise if self.averaged else x

    def move_negatives(
        self,
        key: jax.Array,
        theta_1: Float[Array, " d"],
        negative: Float[Array, "M d"],
        tuning: LangevinTuning,
    ) -> tuple[Float[Array, "M d"], Float[Array, " d"]]:
        """Move all negative samples under theta_1, and estimate grad log Z on the way."""
        metric, size = tuning.metric.negative, tuning.step_negative
        if self.omit_normalizer:
            return negative, jnp.zeros_like(theta_1)

        def one(key: jax.Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
            noise = metric.fluctuation(key)
            point = share(self.model, theta_1, self._point(w, size, noise))
            pull, push = self.forces(theta_1, point)
            return w + tamed(size, pull + push, metric) + jnp.sqrt(2 * size) * noise, (pull, push)

        def inner(index: Int[Array, ""], carry: PyTree) -> PyTree:
            negative, total = carry
            keys = jax.random.split(jax.random.fold_in(key, index), len(negative))
            negative, forces = jax.vmap(one)(keys, negative)
            return negative, jax.tree.map(lambda s, x: s + x.mean(axis=0), total, forces)

        zero = jnp.zeros_like(theta_1)
        carry = (negative, (zero, zero))
        negative, total = jax.lax.fori_loop(0, tuning.num_inner, inner, carry)
        pull, push = (x / tuning.num_inner for x in total)
        if self.estimator == "score":
            return negative, jnp.where(self.model.moving_2, -pull, push)
        variance = jnp.asarray(self.model.second_stage.reference_variance, theta_1.dtype)
        return negative, push - metric.low_rank(variance * (pull + push))

    def gradient(
        self,
        theta_1: Float[Array, " d"],
        theta_2: Float[Array, " d"],
        key: jax.Array | None = None,
    ) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """Gradients of the log joint but for -log Z, by theta_1 and by theta_2.

        With a key, and a `batch_size`, of a mini-batch of the data.
        """

        def of_stages(theta_1: Array, theta_2: Array) -> Array:
            return log_first(self.model, theta_1) + log_second(self.model, theta_1, theta_2)

        first, second = jax.grad(of_stages, argnums=(0, 1))(theta_1, theta_2)
        return first, second + self.drive(theta_2, key)

    def drive(
        self, theta_2: Float[Array, " d"], key: jax.Array | None = None
    ) -> Float[Array, " d"]:
        """Gradient of -lambda C + L, of a mini-batch as in :meth:`gradient`."""
        if self.model.is_null:
            return self.push(theta_2)
        if self.batch_size is None or key is None:
            return self.push(theta_2) + jax.grad(self.model.log_likelihood)(theta_2)
        number = self.model.num_answers
        assert number is not None  # as of all models with mini-batches
        chosen = jax.random.randint(key, (self.batch_size,), 0, number)
        return self.push(theta_2) + jax.grad(self.model.batch_log_likelihood)(theta_2, chosen)

    def forces(
        self, theta_1: Float[Array, " d"], negative: Float[Array, " d"]
    ) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """What drives a negative sample: the gradients of log p2 and of -lambda C."""
        pull = jax.grad(log_second, argnums=2)(self.model, theta_1, negative)
        return pull, self.push(negative)

    def push(self, theta: Float[Array, " d"]) -> Float[Array, " d"]:
        """-lambda grad C, with what is held fixed left out."""
        agreement = self.model.agreement
        return -agreement.strength * self.unheld(jax.grad(agreement.disagreement)(theta))

    def unheld(self, gradient: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return a gradient with what is held fixed left out."""
        return gradient if self.held is None else jnp.where(self._is_held, 0, gradient)

    def curvature_2(self, key: jax.Array, state: LangevinState) -> Float[Array, " d"]:
        """Squared gradient by theta_2: its mean over draws is the mean curvature."""
        return self.gradient(state.theta_1, state.theta_2, key)[1] ** 2

    @property
    def _is_held(self) -> np.ndarray:
        mask = np.zeros(self.model.dimension, bool)
        for name, block in self.model.space.blocks.items():
            mask[block] = name.startswith(self.held or ())
        return mask
