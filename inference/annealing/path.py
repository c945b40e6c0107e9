"""The path from a base that can be drawn exactly to f(. | theta_1), and moves along it.

At temperature t the density is base^(1 - t) f^t, unnormalised. The base is the second stage itself,
or a linear-Gaussian stand-in for q(. | theta_1), whose log normaliser is known; where the stand-in
is exact, the whole path is one density and nothing is left to estimate.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from generative import GaussianConditional, TwoStageModel
from inference.moves.density import log_second
from inference.moves.reference_hmc import MoveInfo, reference_hmc

_MAX_NUM_STEPS = 16


@dataclass(frozen=True)
class Path:
    """Densities between a base and f(. | theta_1) = p2(. | theta_1) exp(-lambda C).

    Parameters
    ----------
    model : TwoStageModel
    theta_1 : array, shape (d,)
    base : GaussianConditional
        Its log density is log p2 - |A theta - c|^2 / 2, up to its log normaliser; with no rows it
        is the second stage, of any family.
    """

    model: TwoStageModel
    theta_1: Float[Array, " d"]
    base: GaussianConditional

    @property
    def log_base_normalizer(self) -> Float[Array, ""]:
        """Log normaliser of the base, nats; 0 for the second stage."""
        return self.base.log_normalizer(self.theta_1).astype(jnp.result_type(float))

    def sample(self, key: jax.Array, num_draws: int) -> Float[Array, "n d"]:
        """Draw from the base exactly."""
        if len(self.base.c) == 0:
            return self.model.second_stage.around(self.theta_1).sample(key, (num_draws,))
        keys = jax.random.split(key, num_draws)
        return jax.vmap(self.base.sample, (0, None))(keys, self.theta_1)

    def excess(self, theta: Float[Array, " d"]) -> Float[Array, ""]:
        """Log base - log f, unnormalised, nats: what temperature multiplies."""
        agreement = self.model.agreement
        excess = agreement.strength * agreement.disagreement(theta) - self.base.potential(theta)
        return excess.astype(jnp.result_type(float))

    def log_density(
        self, temperature: Float[Array, ""], theta: Float[Array, " d"]
    ) -> Float[Array, ""]:
        """Unnormalised log density at a temperature, nats."""
        agreement = self.model.agreement
        cost = temperature * agreement.strength * agreement.disagreement(theta)
        base = (1 - temperature) * self.base.potential(theta)
        return log_second(self.model, self.theta_1, theta) - cost - base

    def move(
        self,
        key: jax.Array,
        theta: Float[Array, " d"],
        temperature: Float[ArrayLike, ""],
        step_size: Float[Array, ""],
    ) -> tuple[Float[Array, " d"], MoveInfo]:
        """Make one reversible trajectory that keeps the density at a temperature."""
        temperature = jnp.asarray(temperature, theta.dtype)
        return reference_hmc(
            key,
            theta,
            lambda theta: self.log_density(temperature, theta),
            self.base,
            self.base.mean(self.theta_1),
            jnp.asarray(step_size, theta.dtype),
            _MAX_NUM_STEPS,
        )
