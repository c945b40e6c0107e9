"""Negative samples by conditional SMC, which crosses basins whatever separates them."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from generative import LinearGaussianAgreement, TwoStageModel
from inference.annealing.anneal import Schedule
from inference.annealing.conditional_smc import conditional_sweep
from inference.annealing.path import Path
from inference.gaussians.surrogate import flat
from inference.kernels.negative import NegativeSampler


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

    is_exact: ClassVar[bool] = False
    moves_each: ClassVar[int] = 8

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
