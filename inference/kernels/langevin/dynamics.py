"""What dynamics with negative samples share: metric, tuning, state, and limits of the steps."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from generative import TwoStageModel
from generative.stage import Stage

_LARGEST_STEP = 0.5
# The kink of a density has no Hessian to limit the step.
_LARGEST_STEP_AT_KINKS = 0.05
# Of the noise's own length.
_LONGEST_DRIFT = 3.0


@runtime_checkable
class JointMetric(Protocol):
    """A centred Gaussian on (theta_1, theta_2), shape (2 d,)."""

    def covariance(self, x: Array) -> Array:
        """Sigma x."""

    def fluctuation(self, key: jax.Array) -> Array:
        """Draw from N(0, Sigma)."""


@runtime_checkable
class NegativeMetric(JointMetric, Protocol):
    """A centred Gaussian on w, and what it says of log Z."""

    def low_rank(self, x: Array) -> Array:
        """Minus the Hessian of log Z, times x."""


class Metric(NamedTuple):
    """What all chains and negative samples share.

    Attributes
    ----------
    joint : JointMetric
    negative : NegativeMetric
    """

    joint: JointMetric
    negative: NegativeMetric


class LangevinTuning(NamedTuple):
    """What warm-up learns and sampling keeps fixed.

    Attributes
    ----------
    metric : Metric
    step_size, step_negative : float arrays
        h for theta_1 and theta_2, and for negative samples, in units in which the metric is the
        covariance: 1 forgets a Gaussian target at once, 2 over the largest eigenvalue of
        Sigma times the precision is unstable.
    num_inner : int array
        Steps of each negative sample per step of theta_1 and theta_2. Too few: w lags behind
        theta_1, whose variance grows by about step_size / (step_negative num_inner) times the
        share of the noise that the estimator leaves.
    """

    metric: Metric
    step_size: Float[Array, ""]
    step_negative: Float[Array, ""]
    num_inner: Int[Array, ""]


class LangevinState(NamedTuple):
    """State of one chain.

    Attributes
    ----------
    theta_1, theta_2 : arrays, shape (d,)
    negative : array, shape (M, d)
    """

    theta_1: Float[Array, " d"]
    theta_2: Float[Array, " d"]
    negative: Float[Array, "M d"]


@runtime_checkable
class Dynamics(Protocol):
    """What moves theta_1, theta_2 and negative samples: :class:`Langevin`, or an ascent."""

    @property
    def model(self) -> TwoStageModel:
        """The model."""

    def init(self, theta_1: Array, theta_2: Array, negative: Array) -> LangevinState:
        """See :meth:`Langevin.init`."""

    def step(
        self, key: jax.Array, state: LangevinState, tuning: LangevinTuning, scale: Array | float
    ) -> tuple[LangevinState, Array]:
        """See :meth:`Langevin.step`."""

    def read(self, key: jax.Array, state: LangevinState, tuning: LangevinTuning) -> LangevinState:
        """See :meth:`Langevin.read`."""

    def gradient(
        self, theta_1: Array, theta_2: Array, key: jax.Array | None = None
    ) -> tuple[Array, Array]:
        """See :meth:`Langevin.gradient`."""

    def forces(self, theta_1: Array, negative: Array) -> tuple[Array, Array]:
        """See :meth:`Langevin.forces`."""

    def curvature_2(self, key: jax.Array, state: LangevinState) -> Array:
        """Of minus the log joint, by theta_2, coordinate by coordinate; right on average."""

    @property
    def largest_step(self) -> float:
        """Of theta_1 and theta_2, over the inverse of the largest eigenvalue of Sigma H."""


def largest_step(*stages: Stage) -> float:
    """Return the largest step in units of the inverse of the largest eigenvalue."""
    has_kinks = any(stage.has_kinks for stage in stages)
    return _LARGEST_STEP_AT_KINKS if has_kinks else _LARGEST_STEP


def tamed(size: Float[Array, ""], gradient: Array, metric: JointMetric) -> Array:
    """Return h Sigma g, shortened where it is far longer than the noise.

    Where forces grow faster than linearly, no step is stable everywhere (M. Hutzenthaler,
    A. Jentzen and P. E. Kloeden, Ann. Appl. Probab. 22 (2012), doi:10.1214/11-AAP803). At
    stationarity the limit is six standard deviations away in one dimension, and more in many.
    """
    drift = metric.covariance(gradient)
    squared = size * jnp.sum(gradient * drift)  # over that of the noise, 2 d on average
    limit = _LONGEST_DRIFT * jnp.sqrt(2.0 * gradient.size)
    return size * drift * jnp.minimum(1, limit / jnp.sqrt(jnp.maximum(squared, 1e-30)))
