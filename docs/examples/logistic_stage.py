"""A stage whose tails fall like Laplace's, without the kink."""

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from generative import Stage
from generative.stages import SameDtype


class _Logistic(SameDtype, dist.Logistic):
    """Logistic distribution."""


class LogisticStage(Stage):
    """A logistic stage. `scale` is NumPyro's; the standard deviation is 1.81 times as large."""

    @property
    def variance(self) -> Float[Array, " d"]:
        """Variance per coordinate, shape (d,)."""
        return (jnp.pi * self.scale) ** 2 / 3

    @property
    def score_bound(self) -> Float[Array, " d"]:
        """1 / scale, and infinity where fixed."""
        return jnp.where(self.free, self.inverse_scale, jnp.inf)

    def _free_distribution(
        self, location: Float[Array, "*batch f"], scale: Float[Array, " f"]
    ) -> dist.Distribution:
        return _Logistic(location, jnp.broadcast_to(scale, location.shape)).to_event(1)
