"""The parameter space: a pytree seen as one vector, with names for its coordinates."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from generative.errors import InvalidInput
from generative.parts import Data
from generative.values import as_jax, is_number


class ParameterSpace(Data):
    """Pytrees with the structure of `theta_0`, as vectors of length `dimension`.

    Parameters
    ----------
    theta_0 : pytree of float arrays
        The initialisation of the network (dimensionless).

    Raises
    ------
    InvalidInput
        If `theta_0` has no numbers, or a leaf that is not floating or not finite.
    """

    origin: Float[Array, " d"]
    _structure: Any = eqx.field(static=True)
    _shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    _dtypes: tuple[Any, ...] = eqx.field(static=True)

    def __init__(self, theta_0: PyTree):
        _check_leaves(theta_0)
        leaves, self._structure = jax.tree.flatten(theta_0)
        leaves = [np.asarray(as_jax(leaf)) for leaf in leaves]
        self._shapes = tuple(leaf.shape for leaf in leaves)
        self._dtypes = tuple(leaf.dtype for leaf in leaves)
        common = jnp.result_type(*self._dtypes)
        self.origin = as_jax(np.concatenate([x.ravel().astype(common) for x in leaves]))

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return sum(map(math.prod, self._shapes))

    @property
    def theta_0(self) -> PyTree:
        """The initialisation, as a pytree.

        :meta private:
        """
        if isinstance(self.origin, jax.core.Tracer):
            return self.unravel(self.origin)
        # Without a program for every shape of a slice.
        return jax.tree.map(as_jax, self.unravel(np.asarray(self.origin)))

    def unravel(self, vector: Float[Array | np.ndarray, " d"]) -> PyTree:
        """Pytree form of a vector of shape (d,)."""
        stops = np.cumsum([math.prod(shape) for shape in self._shapes])
        leaves = [
            vector[stop - math.prod(shape) : stop].reshape(shape).astype(dtype)
            for stop, shape, dtype in zip(stops, self._shapes, self._dtypes, strict=True)
        ]
        return jax.tree.unflatten(self._structure, leaves)

    def vector(self, theta: PyTree, name: str = "theta") -> Float[Array, "*batch d"]:
        """Vector form of a pytree or a vector; leading axes, shared by all leaves, are a batch.

        Raises
        ------
        InvalidInput
            If `theta` is neither a vector of length d nor a pytree like `theta_0`.
        """
        shape = np.shape(theta) if isinstance(theta, jax.Array | np.ndarray) else ()
        is_theta_0_itself = self._structure.num_leaves == 1 and shape == self._shapes[0]
        if shape[-1:] == (self.dimension,) and not is_theta_0_itself:
            return jnp.asarray(theta, self.origin.dtype)
        if jax.tree.structure(theta) != self._structure:
            raise InvalidInput(
                name,
                f"shape {jnp.shape(theta)}" if hasattr(theta, "shape") else type(theta).__name__,
                f"a pytree like theta_0, or vectors whose last axis is {self.dimension}",
            )
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(theta)]
        batches = set()
        for leaf, shape in zip(leaves, self._shapes, strict=True):
            split = leaf.ndim - len(shape)
            if split < 0 or leaf.shape[split:] != shape:
                raise InvalidInput(name, f"a leaf of shape {leaf.shape}", f"shape {shape}")
            batches.add(leaf.shape[:split])
        if len(batches) != 1:
            raise InvalidInput(name, f"leading axes {sorted(batches)}", "one batch for all leaves")
        (batch,) = batches
        flat = [leaf.reshape(*batch, -1).astype(self.origin.dtype) for leaf in leaves]
        return jnp.concatenate(flat, axis=-1)

    def expand(self, prefix: PyTree, name: str) -> np.ndarray:
        """One non-negative number per coordinate, from a number or a pytree prefix.

        Returns
        -------
        ndarray, shape (d,)
            In the units of the parameters.

        Raises
        ------
        InvalidInput
            If the prefix does not match `theta_0`, or a number is negative or not finite.
        """
        if isinstance(prefix, jax.Array | np.ndarray) and np.shape(prefix) == (self.dimension,):
            try:
                values = np.asarray(prefix, float)
            except (TypeError, ValueError) as error:
                raise InvalidInput(name, str(error), "finite numbers >= 0") from None
        else:
            values = self._expand_prefix(prefix, name)
        if not np.all(np.isfinite(values)) or np.any(values < 0):
            bad = values[~np.isfinite(values) | (values < 0)][0]
            raise InvalidInput(name, bad, "finite numbers >= 0")
        return values

    def _expand_prefix(self, prefix: PyTree, name: str) -> np.ndarray:
        def fill(scale: Any, subtree: PyTree) -> PyTree:
            def one(leaf: Array) -> np.ndarray:
                if np.ndim(scale) and np.shape(scale) != jnp.shape(leaf):
                    raise InvalidInput(
                        name, f"shape {np.shape(scale)}", f"a number or shape {jnp.shape(leaf)}"
                    )
                if not (np.ndim(scale) or is_number(scale)):
                    raise InvalidInput(name, repr(scale)[:80], "a number or a pytree prefix")
                return np.broadcast_to(np.asarray(scale, float), jnp.shape(leaf)).ravel()

            return jax.tree.map(one, subtree)

        try:
            filled = jax.tree.map(fill, prefix, self.theta_0)
        except (TypeError, ValueError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(
                name, str(error).split("\n")[0], "a number or a pytree prefix of theta_0"
            ) from None
        return np.concatenate(jax.tree.leaves(filled))

    @property
    def names(self) -> list[str]:
        """A name per coordinate, such as ``intended.weight[0,3]``."""
        names = []
        for stem, shape in self._named_shapes():
            if not shape:
                names.append(stem)
                continue
            for index in np.ndindex(shape):
                names.append(f"{stem}[{','.join(map(str, index))}]")
        return names

    @property
    def blocks(self) -> dict[str, slice]:
        """The slice of the vector that each leaf occupies, by the leaf's name."""
        blocks, start = {}, 0
        for name, shape in self._named_shapes():
            stop = start + math.prod(shape)
            blocks[name] = slice(start, stop)
            start = stop
        return blocks

    def _named_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        # Any leaves serve: the structure alone gives the paths.
        shapes = jax.tree.unflatten(self._structure, map(np.empty, self._shapes))
        return [
            (jax.tree_util.keystr(path, simple=True, separator=".") or "theta", leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
        ]


def _check_leaves(theta_0: PyTree) -> None:
    try:
        leaves = jax.tree_util.tree_leaves_with_path(theta_0)
    except (TypeError, ValueError) as error:  # keys that cannot be sorted
        raise InvalidInput("theta_0", str(error).split("\n")[0], "a pytree of arrays") from None
    names: set[str] = set()
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        _check_leaf(f"theta_0.{name}" if name else "theta_0", leaf)
        if name in names:
            raise InvalidInput("theta_0", f"two arrays named {name!r}", "names of their own")
        names.add(name)
    if sum(np.size(leaf) for _, leaf in leaves) == 0:
        raise InvalidInput("theta_0", "no parameters", "a pytree with at least one number")


def _check_leaf(name: str, leaf: Any) -> None:
    """Refuse what is no finite floating array or number."""
    if callable(leaf):
        allowed = (
            "float arrays; split a network by equinox.partition(network, equinox.is_inexact_array) "
            "and combine it again where it is used"
        )
        raise InvalidInput(name, f"a callable, {leaf!r}"[:80], allowed)
    try:
        dtype = jnp.result_type(leaf)
    except (TypeError, ValueError):
        raise InvalidInput(name, f"{leaf!r}"[:80], "float arrays") from None
    if isinstance(leaf, str | bytes) or not jnp.issubdtype(dtype, jnp.floating):
        raise InvalidInput(name, f"dtype {dtype}", "float arrays")
    if not np.all(np.isfinite(leaf)):
        raise InvalidInput(name, "NaN or infinity", "finite numbers")
