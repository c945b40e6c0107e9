"""Data, and the NumPyro program that makes them from theta_2."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PyTree
from numpyro import handlers
from numpyro.infer.util import log_density

from generative.errors import InvalidInput
from generative.parts import Data, Parts
from generative.values import as_array


class Observation(Data):
    """A NumPyro program of one theta, and the observed values of its sample sites.

    Parameters
    ----------
    program : callable
        theta -> sample statements; (theta, inputs) -> sample statements where there are `inputs`.
    data : mapping from site name to array
    inputs : pytree, optional
        One entry per answer along the leading axes of all leaves. Answers must be independent
        given theta, so that a part of them is an observation too: this is what mini-batches need.
    """

    inputs: PyTree
    _program: Parts
    _names: tuple[str, ...] = eqx.field(static=True)
    _values: tuple[Array, ...]
    _sharding: jax.sharding.Sharding | None = eqx.field(static=True)

    def __init__(
        self,
        program: Callable[..., Any],
        data: Mapping[str, ArrayLike | Sequence],
        inputs: PyTree = None,
        sharding: jax.sharding.Sharding | None = None,
    ):
        self._program = Parts(program)
        self._names = tuple(data)
        self._values = tuple(as_array(f"data[{name!r}]", value) for name, value in data.items())
        self.inputs = None
        if inputs is not None:
            self.inputs = jax.tree.map(lambda x: as_array("inputs", x), inputs)
        self._sharding = sharding

    @property
    def program(self) -> Callable[..., Any]:
        """The program itself."""
        return self._program.whole

    @property
    def data(self) -> dict[str, Array]:
        """Observed values, by site."""
        return dict(zip(self._names, self._values, strict=True))

    @property
    def num_answers(self) -> int | None:
        """Number of answers that mini-batches are drawn from; None without `inputs`."""
        return None if self.inputs is None else len(jax.tree.leaves(self.inputs)[0])

    def shard(self, sharding: jax.sharding.Sharding) -> "Observation":
        """Return this observation with the answers of a full likelihood laid out over devices."""
        return Observation(self.program, self.data, self.inputs, sharding)

    def __call__(self, theta: PyTree) -> Any:
        """Make the sample statements, with what was observed."""
        observed = (self.data, self.inputs)
        if self._sharding is not None:
            observed = jax.lax.with_sharding_constraint(observed, self._sharding)
        return self._run(*observed, theta)

    def log_likelihood(self, theta: PyTree) -> Float[Array, ""]:
        """Log density of the data, nats."""
        with handlers.block():  # sites are seen by no program in which this is called
            return log_density(self, (theta,), {}, {})[0]

    def batch_log_likelihood(self, theta: PyTree, chosen: Int[Array, " n"]) -> Float[Array, ""]:
        """Estimate the log density of N answers by N / n times that of n of them, nats."""
        data, inputs = jax.tree.map(lambda x: x[chosen], (self.data, self.inputs))
        with handlers.block():
            value = log_density(lambda t: self._run(data, inputs, t), (theta,), {}, {})[0]
        return value * (len(jax.tree.leaves(self.inputs)[0]) / len(chosen))

    def answer_log_likelihood(self, theta: PyTree) -> dict[str, Array]:
        """Log likelihood of each observed answer, by site, nats."""
        with handlers.block():
            trace = handlers.trace(self).get_trace(theta)
        return {name: trace[name]["fn"].log_prob(trace[name]["value"]) for name in self.data}

    def check(self, theta: PyTree) -> set[str]:
        """Check data and inputs against the program; return the names of its sample sites.

        Raises
        ------
        InvalidInput
        """
        self._check_inputs()
        observed: set[str] = set()

        def draw(theta: PyTree) -> dict[str, Array]:
            sites = self._sites(theta)
            observed.update(name for name, site in sites.items() if site["is_observed"])
            return {name: site["value"] for name, site in sites.items()}

        sites = {name: x.shape for name, x in jax.eval_shape(draw, theta).items()}
        for name in sites:
            if name in observed:
                raise InvalidInput(
                    f"observation site {name!r}", "data inside the program", "data={name: array}"
                )
        if self.data and set(sites) - set(self.data):
            raise InvalidInput(
                "data", f"sites {sorted(self.data)}", f"all sample sites: {sorted(sites)}"
            )
        for name, value in self.data.items():
            if name not in sites:
                raise InvalidInput("data", f"site {name!r}", f"the sample sites {sorted(sites)}")
            self._check_shape(name, value, sites[name])
        for name, outside in _outside(self, theta).items():
            given = np.asarray(self.data[name])
            found = given[np.broadcast_to(outside, given.shape)]
            if len(found):
                support = self._sites(theta)[name]["fn"].support
                raise InvalidInput(f"data[{name!r}]", found[0], f"values in {support}")
        return set(sites)

    def sample(self, key: jax.Array, theta: PyTree) -> dict[str, Array]:
        """Draw data, by site."""
        return {name: site["value"] for name, site in self._sites(theta, key).items()}

    def _sites(self, theta: PyTree, key: jax.Array | None = None) -> dict[str, dict[str, Any]]:
        """Sample sites of the program, drawn."""
        program = handlers.seed(self.program, jax.random.key(0) if key is None else key)
        with handlers.block():
            trace = handlers.trace(program).get_trace(*self._arguments(self.inputs, theta))
        return {name: site for name, site in trace.items() if site["type"] == "sample"}

    def _check_shape(self, name: str, value: Array, expected: tuple[int, ...]) -> None:
        if value.size == 0:
            raise InvalidInput(f"data[{name!r}]", "no answers", "at least one")
        if value.shape != expected:
            raise InvalidInput(f"data[{name!r}]", f"shape {value.shape}", f"shape {expected}")
        if self.num_answers is not None and value.shape[:1] != (self.num_answers,):
            raise InvalidInput(
                f"data[{name!r}]", f"shape {value.shape}", f"{self.num_answers} answers, as inputs"
            )

    def _check_inputs(self) -> None:
        if self.inputs is None:
            return
        lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(self.inputs)}
        if len(lengths) != 1 or lengths <= {(), (0,)}:
            found = f"leading axes {sorted(lengths)}"
            raise InvalidInput("inputs", found, "one entry per answer in every leaf")

    def _run(self, data: Mapping[str, Array], inputs: PyTree, theta: PyTree) -> Any:
        program = handlers.condition(self.program, data=dict(data))
        return program(*self._arguments(inputs, theta))

    @staticmethod
    def _arguments(inputs: PyTree, theta: PyTree) -> tuple[PyTree, ...]:
        return (theta,) if inputs is None else (theta, inputs)


@jax.jit
def _outside(observation: Observation, theta: PyTree) -> dict[str, Array]:
    """Which of the data lie outside of their site's support."""
    sites = observation._sites(theta)
    return {
        name: jnp.logical_not(sites[name]["fn"].support(value))
        for name, value in observation.data.items()
    }
