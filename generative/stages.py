"""The two stages: Gaussian or Laplace draws around a location, with a scale per block.

A scale of 0 fixes a block in that stage. The density then lives on the remaining, *free*
coordinates; the full vector is still what a site holds, and the support's bijection maps free
coordinates to full vectors, so that NumPyro's gradient-based samplers move only what is free.
"""

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from generative.parameters import ParameterSpace
from generative.parts import Data, Mask


class Stage(Data):
    """A normalised location family in parameter space, independent per coordinate.

    Parameters
    ----------
    scale : number or pytree prefix of theta_0
        The family's scale, in the units of the parameters; 0 fixes the block in this stage.
    space : ParameterSpace, optional
        Set by :class:`~generative.model.TwoStageModel`.
    """

    scale: Any = 1.0
    space: ParameterSpace | None = None
    _free: Mask | None = None

    def bind(self, space: ParameterSpace, name: str) -> Self:
        """Return this stage with one scale per coordinate of `space`.

        Raises
        ------
        InvalidInput
            If the scale is negative, not finite, or no prefix of `theta_0`.
        """
        scale = space.expand(self.scale, name)
        return type(self)(jnp.asarray(scale, space.origin.dtype), space, Mask(scale > 0))

    def around(self, location: PyTree) -> dist.Distribution:
        """Return the distribution of a parameter vector around `location`.

        Parameters
        ----------
        location : pytree like theta_0, or array of shape (..., d)
            Leading axes are a batch.

        Returns
        -------
        Distribution
            With event shape (d,); log density in nats.
        """
        if self.space is None:
            space = ParameterSpace(location)
            return self.bind(space, "scale").around(space.origin)
        location = self.space.vector(location, "location")
        if self.free.all():
            return self._free_distribution(location, jnp.asarray(self.scale, location.dtype))
        index = np.flatnonzero(self.free)
        scale = jnp.asarray(self.scale[index], location.dtype)
        return PartlyFixed(self._free_distribution(location[..., index], scale), location, index)

    @property
    def free(self) -> np.ndarray:
        """Mask of the coordinates that this stage moves, shape (d,)."""
        return np.asarray(self.scale) > 0 if self._free is None else self._free.values

    @property
    def inverse_scale(self) -> Float[Array, " d"]:
        """1 / scale where that is not 0, else 0."""
        return jnp.where(self.free, 1 / jnp.where(self.free, self.scale, 1), 0)

    @property
    def variance(self) -> Float[Array | np.ndarray, " d"]:
        """Variance per coordinate, shape (d,)."""
        raise NotImplementedError

    def _free_distribution(
        self, location: Float[Array, "*batch f"], scale: Float[Array, " f"]
    ) -> dist.Distribution:
        raise NotImplementedError


def _as_numpy(x: Any) -> Array | np.ndarray:
    """Outside of programs NumPy's array, whose operations compile nothing."""
    return x if isinstance(x, jax.core.Tracer) else np.asarray(x)


class _Normal(dist.Normal):
    """Normal whose draws keep the dtype of its location: NumPyro draws in the default one."""

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> Array:
        return super().sample(key, sample_shape).astype(self.loc.dtype)


class _Laplace(dist.Laplace):
    """Laplace whose draws keep the dtype of its location."""

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> Array:
        return super().sample(key, sample_shape).astype(self.loc.dtype)


class GaussianStage(Stage):
    """A Gaussian stage: the L2 prior. `scale` is the standard deviation."""

    @property
    def variance(self) -> Float[Array | np.ndarray, " d"]:
        """Variance per coordinate, shape (d,)."""
        return _as_numpy(self.scale) ** 2

    def _free_distribution(
        self, location: Float[Array, "*batch f"], scale: Float[Array, " f"]
    ) -> dist.Distribution:
        return _Normal(location, jnp.broadcast_to(scale, location.shape)).to_event(1)


class LaplaceStage(Stage):
    """A Laplace stage: the L1 prior. `scale` is the mean absolute deviation."""

    @property
    def variance(self) -> Float[Array | np.ndarray, " d"]:
        """Variance per coordinate, shape (d,)."""
        return 2 * _as_numpy(self.scale) ** 2

    def _free_distribution(
        self, location: Float[Array, "*batch f"], scale: Float[Array, " f"]
    ) -> dist.Distribution:
        return _Laplace(location, jnp.broadcast_to(scale, location.shape)).to_event(1)


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

    def log_prob(self, value: Array) -> Array:
        """Log density of the free coordinates, nats."""
        return self.base.log_prob(value[..., np.asarray(self.index, int)])
