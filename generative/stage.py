"""A stage: draws around a location, with a scale per block; what a family of them has to say.

What inference asks of a family follows from its density, or is a method here that refuses by
default, so that nothing outside of the family asks which one it is. A scale of 0 fixes a block in
that stage (:mod:`generative.partly_fixed`).
"""

from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from generative.errors import InvalidInput
from generative.parameters import ParameterSpace
from generative.partly_fixed import PartlyFixed
from generative.parts import Data, Mask
from generative.values import as_jax


class Stage(Data):
    """A normalised location family in parameter space, independent per coordinate.

    A *shift* below is a parameter vector less the location, shape (..., d).

    Parameters
    ----------
    scale : number or pytree prefix of theta_0
        The family's scale, in the units of the parameters; 0 fixes the block in this stage.
    space : ParameterSpace, optional
        Set by :class:`~generative.model.TwoStageModel`.

    Attributes
    ----------
    is_gaussian : bool
        Whether the log density is quadratic, as closed forms need it.
    has_kinks : bool
        Whether the log density has a kink at the location, where a maximum may sit.
    """

    scale: Any = 1.0
    space: ParameterSpace | None = None
    _free: Mask | None = None
    is_gaussian: ClassVar[bool] = False
    has_kinks: ClassVar[bool] = False

    def bind(self, space: ParameterSpace, name: str) -> "Stage":
        """Return this stage with one scale per coordinate of `space`.

        Raises
        ------
        InvalidInput
            If the scale is negative, not finite, or no prefix of `theta_0`.
        """
        scale = space.expand(self.scale, name)
        bound = as_jax(scale, space.origin.dtype)
        return replace(self, scale=bound, space=space, _free=Mask(scale > 0))

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
        """Variance per coordinate, shape (d,); it may be infinite."""
        raise self._lacks("variance")

    @property
    def reference_variance(self) -> Float[Array | np.ndarray, " d"]:
        """Variance of the Gaussian that stands in for this stage, shape (d,); finite.

        Metrics, proposals and stand-ins use it. None of them needs it to be right.
        """
        return self.variance

    @property
    def score_bound(self) -> Float[Array, " d"] | None:
        """Bound of the score's modulus, shape (d,), infinite where fixed; None if it has none."""
        return None

    def score(self, shift: Float[Array | np.ndarray, "*batch d"]) -> Float[Array, "*batch d"]:
        """Gradient of the log density by the shift, 0 where fixed."""
        density = self.around(jnp.zeros_like(shift))
        return jax.grad(lambda x: density.log_prob(x).sum())(shift)

    def scale_score(self, shift: Float[Array | np.ndarray, "*batch d"]) -> Float[Array, "*batch"]:
        """Derivative of the log density by the log of a factor on all scales, nats."""
        index = np.flatnonzero(self.free)
        free = jnp.asarray(shift)[..., index]
        scale, zero = jnp.asarray(self.scale[index], free.dtype), jnp.zeros((), free.dtype)

        def log_density(log_factor: Array) -> Array:
            around = self._free_distribution(jnp.zeros_like(free), jnp.exp(log_factor) * scale)
            return around.log_prob(free)

        return jax.jvp(log_density, (zero,), (zero + 1,))[1]

    def ascent_step(
        self,
        shift: Float[Array, " d"],
        size: Float[Array, ""],
        force: Float[Array, " d"],
    ) -> Float[Array, " d"]:
        """Step of a shift up its log density and another force; proximal where there are kinks.

        Parameters
        ----------
        shift : array, shape (d,)
        size : float array
            In units in which `reference_variance` is the metric.
        force : array, shape (d,)
            Gradient of the rest, nats per unit of the parameters.
        """
        self._require_smooth("ascent_step")
        metric = jnp.asarray(self.reference_variance, shift.dtype)
        return shift + size * metric * (force + self.score(shift))

    def least_subgradient(
        self, shift: Float[Array, " d"], force: Float[Array, " d"]
    ) -> Float[Array, " d"]:
        """Subgradient of force' shift + log density that is closest to 0, and 0 where fixed."""
        self._require_smooth("least_subgradient")
        return jnp.where(self.free, force + self.score(shift), 0)

    def quadratic_terms(
        self, key: jax.Array, shift: Float[Array, "*batch d"]
    ) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch d"]]:
        """Slopes and precisions of -log density = slope |x| + precision x^2 / 2 + constant.

        Where the density is a mixture of such ones, of a component that is drawn given the shift:
        to redraw shifts given their components, and so on, leaves the family invariant.

        Raises
        ------
        InvalidInput
            If no such form of the family is known.
        """
        raise self._lacks("quadratic_terms")

    def _free_distribution(
        self, location: Float[Array, "*batch f"], scale: Float[Array, " f"]
    ) -> dist.Distribution:
        raise self._lacks("_free_distribution")

    def _lacks(self, name: str) -> InvalidInput:
        return InvalidInput("stage", type(self).__name__, f"a family that defines `{name}`")

    def _require_smooth(self, name: str) -> None:
        if self.has_kinks:
            raise self._lacks(name)

    def _whitened(self, shift: Float[Array | np.ndarray, "*batch d"]) -> Float[Array, "*batch f"]:
        index = np.flatnonzero(self.free)
        return shift[..., index] / self.scale[index]

    def _scale_or_1(self, shift: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        scale = jnp.where(self.free, jnp.asarray(self.scale, shift.dtype), 1)
        return jnp.broadcast_to(scale, shift.shape)
