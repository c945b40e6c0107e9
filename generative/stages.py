"""The families of stages: Gaussian (L2), Laplace (L1) and Student's t between them.

A family is one class; see :class:`generative.stage.Stage` for what it may say of itself.
"""

from dataclasses import replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from generative.errors import InvalidInput
from generative.parameters import ParameterSpace
from generative.stage import Stage
from generative.values import require_finite


def _as_numpy(x: Any) -> Array | np.ndarray:
    """Outside of programs NumPy's array, whose operations compile nothing."""
    return x if isinstance(x, jax.core.Tracer) else np.asarray(x)


class SameDtype(dist.Distribution):
    """Mixin: draws keep the dtype of the location, where NumPyro draws in the default one."""

    loc: Array

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw; see :class:`numpyro.distributions.Distribution`."""
        wide = jax.tree.map(lambda x: jnp.asarray(x, float), self)
        return super(SameDtype, wide).sample(key, sample_shape).astype(self.loc.dtype)


class _Normal(SameDtype, dist.Normal):
    """Normal distribution."""


class _Laplace(SameDtype, dist.Laplace):
    """Laplace distribution."""


class _StudentT(SameDtype, dist.StudentT):
    """Student's t distribution."""


class GaussianStage(Stage):
    """A Gaussian stage: the L2 prior. `scale` is the standard deviation.

    Examples
    --------
    One scale per block; the heads stay where this stage finds them:

    >>> import jax.numpy as jnp
    >>> from generative import TwoStageModel
    >>> model = TwoStageModel(
    ...     theta_0={"heads": jnp.zeros(1), "world": jnp.zeros(2)},
    ...     first_stage=GaussianStage(1.0),
    ...     second_stage=GaussianStage({"heads": 0.0, "world": 0.5}),
    ...     disagreement=lambda theta: jnp.sum((theta["world"] - theta["heads"]) ** 2),
    ... )
    >>> model.second_stage.variance.tolist()
    [0.0, 0.25, 0.25]
    """

    is_gaussian: ClassVar[bool] = True

    @property
    def variance(self) -> Float[Array | np.ndarray, " d"]:
        """Variance per coordinate, shape (d,)."""
        return _as_numpy(self.scale) ** 2

    def score(self, shift: Float[Array | np.ndarray, "*batch d"]) -> Float[Array, "*batch d"]:
        """Gradient of the log density by the shift, 0 where fixed."""
        return -jnp.asarray(shift) * self.inverse_scale**2

    def scale_score(self, shift: Float[Array | np.ndarray, "*batch d"]) -> Float[Array, "*batch"]:
        """See :meth:`Stage.scale_score`."""
        return (self._whitened(shift) ** 2 - 1).sum(axis=-1)

    def ascent_step(
        self,
        shift: Float[Array, " d"],
        size: Float[Array, ""],
        force: Float[Array, " d"],
    ) -> Float[Array, " d"]:
        """See :meth:`Stage.ascent_step`; the variance times the score is minus the shift."""
        return shift + size * (jnp.asarray(self.variance, shift.dtype) * force - shift)

    def quadratic_terms(
        self, key: jax.Array, shift: Float[Array, "*batch d"]
    ) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch d"]]:
        """See :meth:`Stage.quadratic_terms`; nothing is drawn."""
        return jnp.zeros_like(shift), 1 / self._scale_or_1(shift) ** 2

    def _free_distribution(
        self, location: Float[Array, "*batch f"], scale: Float[Array, " f"]
    ) -> dist.Distribution:
        return _Normal(location, jnp.broadcast_to(scale, location.shape)).to_event(1)


class LaplaceStage(Stage):
    """A Laplace stage: the L1 prior. `scale` is the mean absolute deviation."""

    has_kinks: ClassVar[bool] = True

    @property
    def variance(self) -> Float[Array | np.ndarray, " d"]:
        """Variance per coordinate, shape (d,)."""
        return 2 * _as_numpy(self.scale) ** 2

    @property
    def score_bound(self) -> Float[Array, " d"]:
        """1 / scale, and infinity where fixed."""
        return jnp.where(self.free, self.inverse_scale, jnp.inf)

    def scale_score(self, shift: Float[Array | np.ndarray, "*batch d"]) -> Float[Array, "*batch"]:
        """See :meth:`Stage.scale_score`."""
        return (self._whitened(jnp.abs(shift)) - 1).sum(axis=-1)

    def ascent_step(
        self,
        shift: Float[Array, " d"],
        size: Float[Array, ""],
        force: Float[Array, " d"],
    ) -> Float[Array, " d"]:
        """See :meth:`Stage.ascent_step`: a gradient step, then a soft threshold."""
        moved = shift + size * jnp.asarray(self.variance, shift.dtype) * force
        threshold = 2 * size * jnp.asarray(self.scale, shift.dtype)  # variance over scale
        return jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - threshold, 0)

    def least_subgradient(
        self, shift: Float[Array, " d"], force: Float[Array, " d"]
    ) -> Float[Array, " d"]:
        """See :meth:`Stage.least_subgradient`."""
        inverse = self.inverse_scale
        at_kink = force - jnp.clip(force, -inverse, inverse)
        found = jnp.where(shift == 0, at_kink, force - jnp.sign(shift) * inverse)
        return jnp.where(self.free, found, 0)

    def quadratic_terms(
        self, key: jax.Array, shift: Float[Array, "*batch d"]
    ) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch d"]]:
        """See :meth:`Stage.quadratic_terms`; nothing is drawn."""
        return 1 / self._scale_or_1(shift), jnp.zeros_like(shift)

    def _free_distribution(
        self, location: Float[Array, "*batch f"], scale: Float[Array, " f"]
    ) -> dist.Distribution:
        return _Laplace(location, jnp.broadcast_to(scale, location.shape)).to_event(1)


def _positive(value: Any) -> Any:
    require_finite("degrees_of_freedom", value, "a finite number > 0")
    if not value > 0:
        raise InvalidInput("degrees_of_freedom", value, "a finite number > 0")
    return value


class StudentTStage(Stage):
    """A Student-t stage: most parameters stay near, and a few may go far.

    With many degrees of freedom it is the Gaussian of the same scale. The mean exists above 1, and
    the variance above 2.

    Parameters
    ----------
    scale : number or pytree prefix of theta_0
        As in :class:`Stage`; the variance over its square is nu / (nu - 2).
    degrees_of_freedom : float
        nu > 0, one for all coordinates.

    Raises
    ------
    InvalidInput
    """

    degrees_of_freedom: Any = eqx.field(converter=_positive, kw_only=True)

    def bind(self, space: ParameterSpace, name: str) -> "Stage":
        """See :meth:`Stage.bind`."""
        nu = np.asarray(self.degrees_of_freedom, space.origin.dtype)[()]
        return Stage.bind(replace(self, degrees_of_freedom=nu), space, name)

    @property
    def variance(self) -> Float[Array, " d"]:
        """Variance per coordinate, shape (d,), infinite up to two degrees of freedom."""
        nu = self.degrees_of_freedom
        ratio = jnp.where(nu > 2, nu / jnp.where(nu > 2, nu - 2, 1), jnp.inf)
        return jnp.where(self.free, jnp.where(self.free, self.scale, 1) ** 2 * ratio, 0)

    @property
    def reference_variance(self) -> Float[Array | np.ndarray, " d"]:
        """Inverse of the mean curvature of -log density, scale^2 (nu + 3) / (nu + 1), shape (d,).

        Finite, between one and three times scale^2. Steps are limited by curvature, not by tails:
        a stand-in of the same variance would make them as long as its rarest draws.
        """
        nu = self.degrees_of_freedom
        return _as_numpy(self.scale) ** 2 * ((nu + 3) / (nu + 1))

    @property
    def score_bound(self) -> Float[Array, " d"]:
        """(nu + 1) / (2 sqrt(nu) scale), reached at sqrt(nu) scales; infinity where fixed."""
        nu = self.degrees_of_freedom
        bound = (nu + 1) / (2 * jnp.sqrt(nu)) * self.inverse_scale
        return jnp.where(self.free, bound, jnp.inf)

    def quadratic_terms(
        self, key: jax.Array, shift: Float[Array, "*batch d"]
    ) -> tuple[Float[Array, "*batch d"], Float[Array, "*batch d"]]:
        """See :meth:`Stage.quadratic_terms`: t is a mixture of Gaussians over their precision.

        Given the shift the precision times scale^2 is Gamma((nu + 1) / 2, (nu + z^2) / 2) with
        z = shift / scale (M. West, Biometrika 74 (1987), doi:10.1093/biomet/74.3.646).
        """
        nu = jnp.asarray(self.degrees_of_freedom, shift.dtype)
        scale = self._scale_or_1(shift)
        gamma = jax.random.gamma(key, 0.5 * (nu + 1), shift.shape, shift.dtype)
        return jnp.zeros_like(shift), 2 * gamma / (nu + (shift / scale) ** 2) / scale**2

    def _free_distribution(
        self, location: Float[Array, "*batch f"], scale: Float[Array, " f"]
    ) -> dist.Distribution:
        nu = jnp.asarray(self.degrees_of_freedom, location.dtype)
        return _StudentT(nu, location, jnp.broadcast_to(scale, location.shape)).to_event(1)
