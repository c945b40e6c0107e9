"""theta_2 given theta_1 and the data, as if it were a negative sample.

Its density p2(theta_2 | theta_1) exp(-lambda C + L) has the form of q(. | theta_1), with
lambda C - L for the disagreement: what anneals negative samples anneals theta_2 too.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from generative import TwoStageModel
from generative.parts import Data
from inference.gaussians.surrogate import posterior_potential


class _WithData(Data):
    """What a path asks of agreement; unlike C, lambda C - L may be negative, or infinite."""

    model: TwoStageModel

    @property
    def strength(self) -> Float[Array, ""]:
        """1 nat per unit."""
        return jnp.ones((), self.model.space.origin.dtype)

    def disagreement(self, theta: Float[Array, " d"]) -> Float[Array, ""]:
        """Lambda C - L of one parameter vector, nats."""
        return posterior_potential(self.model).value(theta)

    def log_factor(self, theta: Float[Array, " d"]) -> Float[Array, ""]:
        """L - lambda C, nats."""
        return -self.disagreement(theta)


def given_data(model: TwoStageModel) -> TwoStageModel:
    """Return a model whose q(. | theta_1) is the law of theta_2 given theta_1 and the data.

    It serves a :class:`~inference.annealing.path.Path`, and nothing that needs C >= 0.
    """
    return eqx.tree_at(lambda model: model.agreement, model, _WithData(model))
