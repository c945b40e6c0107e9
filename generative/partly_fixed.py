"""Distributions of vectors of which some coordinates are fixed, as NumPyro's samplers need them.

The density lives on the remaining, *free* coordinates; the full vector is still what a site holds,
and the support's bijection maps free coordinates to full vectors, so that gradient-based samplers
move only what is free.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform


class _Embedding(Transform):
    """Free coordinates to full vectors; the fixed coordinates come from `location`."""

    domain = constraints.real_vector

    def __init__(self, location: Array, index: tuple[int, ...]):
        self.location, self.index = location, index

    @property
    def codomain(self) -> "_PartlyFixedVector":
        return _PartlyFixedVector(self.location, self.index)

    def __call__(self, x: Array) -> Array:
        batch = jnp.broadcast_shapes(x.shape[:-1], self.location.shape[:-1])
        full = jnp.broadcast_to(self.location, (*batch, self.location.shape[-1]))
        return full.at[..., np.asarray(self.index, int)].set(x)

    def _inverse(self, y: Array) -> Array:
        return y[..., np.asarray(self.index, int)]

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        return jnp.zeros_like(x, shape=x.shape[:-1])

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], self.location.shape[-1])

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], len(self.index))

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.location,), (("location",), {"index": self.index})

    def eq(self, other: object, static: bool = False) -> Any:
        return self is other


class _PartlyFixedVector(constraints.Constraint):
    """Vectors whose coordinates outside `index` equal those of `location`."""

    event_dim = 1

    def __init__(self, location: Array, index: tuple[int, ...]):
        self.location, self.index = location, index

    def __call__(self, x: Array) -> Array:
        fixed = np.setdiff1d(np.arange(self.location.shape[-1]), np.asarray(self.index, int))
        return jnp.all(x[..., fixed] == self.location[..., fixed], axis=-1)

    def feasible_like(self, prototype: Array) -> Array:
        return jnp.broadcast_to(self.location, jnp.shape(prototype))

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.location,), (("location",), {"index": self.index})


@biject_to.register(_PartlyFixedVector)
def _embedding(constraint: _PartlyFixedVector) -> _Embedding:
    return _Embedding(constraint.location, constraint.index)


class PartlyFixed(dist.Distribution):
    """A distribution on the free coordinates of a vector, the others fixed at `location`.

    Parameters
    ----------
    base : Distribution
        Of the free coordinates, event shape (f,).
    location : array, shape (..., d)
        Gives the fixed coordinates.
    index : int array, shape (f,)
        Positions of the free coordinates.

    Notes
    -----
    The log density (nats) is with respect to Lebesgue measure on the free coordinates.
    """

    pytree_data_fields = ("base", "location")
    pytree_aux_fields = ("index",)

    def __init__(self, base: dist.Distribution, location: Array, index: np.ndarray):
        self.base, self.location, self.index = base, location, tuple(int(i) for i in index)
        super().__init__(base.batch_shape, location.shape[-1:])

    @property
    def support(self) -> _PartlyFixedVector:
        """The affine subspace on which the distribution lives."""
        return _PartlyFixedVector(self.location, self.index)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw full vectors, shape sample_shape + batch_shape + (d,)."""
        free = self.base.sample(key, sample_shape)
        return _Embedding(self.location, self.index)(free)

    def log_prob(self, value: Array | np.ndarray) -> Array:
        """Log density of the free coordinates, nats."""
        return self.base.log_prob(value[..., np.asarray(self.index, int)])
