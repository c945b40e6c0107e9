"""NumPyro's NUTS on the program, compiled once for all models of one structure.

A NumPyro kernel learns its program when it is initialised, and keeps what it learned in attributes.
A :class:`NutsProgram` initialises it under `jit` with the model as an argument, so that nothing of
a particular model stays in it.
"""

from functools import lru_cache
from typing import Any

import jax
from jax.tree_util import Partial
from jaxtyping import Array
from numpyro.infer import NUTS

from generative import TwoStageModel, two_stage
from inference.moves.density import describe


class NutsProgram:
    """NUTS on `two_stage` for chains in parallel, and what is collected of its states.

    Parameters
    ----------
    num_warmup : int
        Iterations in which step size and metric adapt.
    """

    def __init__(self, num_warmup: int):
        self._num_warmup = num_warmup
        self._start = jax.jit(self._initialise)

    def start(self, model: TwoStageModel, keys: Array) -> Any:
        """Start a chain per key; must come first."""
        return self._start(model, keys)

    def step(self, model: TwoStageModel) -> Partial:
        """Return the step of a loop: a trajectory of one chain, or of every chain of a batch."""
        return Partial(self._sample, model)

    def collect(self, model: TwoStageModel) -> Partial:
        """Return what a loop collects of a state."""
        return Partial(self._collect, model)

    def _initialise(self, model: TwoStageModel, keys: Array) -> Any:
        self._kernel = NUTS(two_stage)  # a new one whenever this is traced
        return jax.vmap(lambda key: self._kernel.init(key, self._num_warmup, None, (model,), {}))(
            keys
        )

    def _sample(self, model: TwoStageModel, state: Any) -> Any:
        def one(state: Any) -> Any:
            return self._kernel.sample(state, (model,), {})

        return jax.vmap(one)(state) if state.i.ndim else one(state)

    def _collect(self, model: TwoStageModel, state: Any) -> dict[str, Array]:
        sites = jax.vmap(self._kernel.postprocess_fn((model,), {}))(state.z)
        theta = {name: sites[name] for name in ("theta_1", "theta_2")}
        statistics = jax.vmap(lambda pair: describe(model, **pair))(theta)
        return (
            theta
            | statistics
            | {
                "acceptance_rate": state.accept_prob,
                "diverging": state.diverging,
                "step_size": state.adapt_state.step_size,
            }
        )


def nuts_program(model: TwoStageModel, num_warmup: int, num_chains: int) -> NutsProgram:
    """Return the program that all models of this structure share.

    Parameters
    ----------
    model : TwoStageModel
    num_warmup, num_chains : int
    """
    leaves, structure = jax.tree.flatten(model)
    shapes = tuple((jax.numpy.shape(x), jax.numpy.result_type(x)) for x in leaves)
    return _program(structure, shapes, num_warmup, num_chains)


@lru_cache(maxsize=16)
def _program(
    structure: Any, shapes: tuple[Any, ...], num_warmup: int, num_chains: int
) -> NutsProgram:
    return NutsProgram(num_warmup)
