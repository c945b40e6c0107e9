"""A NumPyro kernel written for one chain, that also takes a batch of chains."""

from abc import abstractmethod
from typing import Any

import jax
from jax.tree_util import Partial
from jaxtyping import Array, Int
from numpyro.infer.mcmc import MCMCKernel

from generative.parts import Data


class ChainKernel(Data, MCMCKernel):
    """Abstract: `_init` and `_sweep` of one chain; batches of keys and states are mapped over.

    A kernel is a pytree: programs take it, with the model that it holds, as an argument.

    The state has a field `z`, the draw, and a field `i`, the iteration.
    """

    sample_field = "z"

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Draws and divergences."""
        return ("z", "diverging")

    def init(
        self,
        rng_key: jax.Array,
        num_warmup: int | Int[Array, ""],
        init_params: Any = None,
        model_args: tuple = (),
        model_kwargs: dict | None = None,
    ) -> Any:
        """Start one chain, or a chain per key of a batch."""
        if rng_key.ndim:
            return jax.vmap(lambda key: self._init(key, num_warmup))(rng_key)
        return self._init(rng_key, num_warmup)

    def sample(self, state: Any, model_args: tuple = (), model_kwargs: dict | None = None) -> Any:
        """Make one sweep of one chain or of a batch of chains."""
        return jax.vmap(self._sweep)(state) if state.i.ndim else self._sweep(state)

    @abstractmethod
    def _init(self, rng_key: jax.Array, num_warmup: int | Int[Array, ""]) -> Any:
        """Start one chain."""

    @abstractmethod
    def _sweep(self, state: Any) -> Any:
        """Make one sweep of one chain."""


@jax.jit
def start(kernel: ChainKernel, keys: jax.Array, num_warmup: int | Int[Array, ""]) -> Any:
    """Start a chain per key."""
    return kernel.init(keys, num_warmup)


def sweeps(kernel: ChainKernel) -> Partial:
    """Return the step of a loop: one sweep of all chains."""
    return Partial(ChainKernel.sample, kernel)
