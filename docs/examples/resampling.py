"""A backend by sampling importance resampling from the two-stage prior."""

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from generative import TwoStageModel, simulate
from inference import Check, Sampler
from inference.moves.density import describe
from inference.results.draws import Draws
from inference.running.progress import SILENT, Monitor


class Resampling(Sampler):
    """Exact draws of the two-stage prior, resampled with weights exp(L).

    Parameters
    ----------
    num_prior : int
        Prior draws per chain. Too few: a handful of them carry all the weight.
    num_draws, num_chains : int
    """

    num_prior: int = Field(20_000, ge=1)
    num_draws: int = Field(1000, ge=4)
    num_chains: int = Field(4, ge=2)

    def draw(self, model: TwoStageModel, key: jax.Array, monitor: Monitor = SILENT) -> Draws:
        """Draw from the posterior; chains are independent repetitions."""
        keys = jax.random.split(key, self.num_chains)
        chains, sizes = zip(*(self._chain(model, k) for k in keys), strict=True)
        values = {name: np.stack([chain[name] for chain in chains]) for name in chains[0]}
        least = min(sizes)
        check = Check("weights", least > 400, f"smallest effective sample {least:.0f}, above 400")
        return Draws(values, (check,), exhausted=not check.passed)

    def _chain(self, model: TwoStageModel, key: jax.Array) -> tuple[dict, float]:
        key_prior, key_choice = jax.random.split(key)
        prior = simulate(model, key_prior, self.num_prior)
        weights = jax.nn.softmax(jax.vmap(model.log_likelihood)(prior.theta_2))
        chosen = jax.random.choice(key_choice, self.num_prior, (self.num_draws,), p=weights)
        theta = {"theta_1": prior.theta_1[chosen], "theta_2": prior.theta_2[chosen]}
        values = theta | jax.vmap(lambda t: describe(model, **t))(theta)
        return jax.tree.map(np.asarray, values), float(1 / jnp.sum(weights**2))
