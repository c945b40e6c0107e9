"""What Langevin chains share: a metric, and steps that it makes stable."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from generative import LinearGaussianAgreement, TwoStageModel
from inference.gaussians import surrogate as surrogates
from inference.gaussians.diagonal import DiagonalConditional, DiagonalJoint
from inference.gaussians.joint import PosteriorReference, first_variance, posterior_reference
from inference.kernels.langevin.dynamics import Dynamics, LangevinState, Metric, largest_step

_NUM_CURVATURE_POINTS = 8
_POWER_ITERATIONS = 10
_SIGMAS_OF_SCATTER = 5.0


def curved_metric(
    model: TwoStageModel,
    transport: LinearGaussianAgreement,
    likelihood: LinearGaussianAgreement,
) -> Metric:
    """Metric of linear-Gaussian stand-ins for agreement and likelihood."""
    return Metric(posterior_reference(first_variance(model), transport, likelihood), transport)


def fitted_metric(
    key: jax.Array,
    model: TwoStageModel,
    theta_2: Float[Array, "n d"],
    negative: Float[Array, "n d"],
    num_rows: int | None = None,
) -> Metric:
    """Metric of stand-ins fitted to draws: of theta_2 for L, of negative samples for C."""
    number = surrogates.rank(model) if num_rows is None else min(num_rows, model.dimension)
    key_transport, key_likelihood = jax.random.split(key)
    transport = surrogates.fit(
        key_transport,
        model,
        surrogates.agreement_potential(model),
        negative,
        _NUM_CURVATURE_POINTS,
        number,
    )
    if model.is_null:
        return curved_metric(model, transport, surrogates.flat(model, number))
    likelihood = surrogates.fit(
        key_likelihood,
        model,
        surrogates.likelihood_potential(model),
        theta_2,
        _NUM_CURVATURE_POINTS,
        number,
    )
    return curved_metric(model, transport, likelihood)


def flat_metric(model: TwoStageModel, num_rows: int | None = None) -> Metric:
    """Covariance of the two stages, in the form of a fitted metric."""
    number = surrogates.rank(model) if num_rows is None else min(num_rows, model.dimension)
    flat = surrogates.flat(model, number)
    return curved_metric(model, flat, flat)


def tempered_metric(metric: Metric, power: Float[Array, ""]) -> Metric:
    """Metric for a power of the likelihood; a diagonal one stays as it is."""
    joint = metric.joint
    if not isinstance(joint, PosteriorReference):
        return metric
    root, likelihood = jnp.sqrt(power), joint.likelihood
    likelihood = LinearGaussianAgreement(
        root * likelihood.A, root * likelihood.c, likelihood.variance
    )
    return Metric(PosteriorReference(joint.prior, likelihood), metric.negative)


def diagonal_metric(
    model: TwoStageModel,
    square_2: Float[Array, " d"] | float = 0.0,
    square_w: Float[Array, " d"] | float = 0.0,
    numbers: tuple[int, int] = (1, 1),
) -> Metric:
    """Metric from mean squared gradients, RMSProp's statistic, coordinate by coordinate.

    At stationarity the mean square of a score is the mean curvature, so no root is taken:
    step sizes are then in units of the posterior's variance, not its standard deviation. Noise of
    mini-batches adds to the squares, and so shortens just the steps that it would disturb.

    A curvature counts where it stands out from what few samples make of none: taken for curvature
    in 10^6 coordinates, their scatter would feed the prior's noise into grad log Z.

    Parameters
    ----------
    model : TwoStageModel
    square_2, square_w : arrays, shape (d,)
        Mean squares of the gradient by theta_2 of the log joint, and of log q(w | theta_1).
    numbers : pair of int
        Of the samples in these means.
    """
    dtype = model.space.origin.dtype
    variance_1 = jnp.asarray(model.first_stage.reference_variance, dtype)
    variance_2 = jnp.asarray(model.second_stage.reference_variance, dtype)
    free = model.moving_2
    of_prior = jnp.where(free, 1 / jnp.where(free, variance_2, 1), 0)
    number_2, number_w = numbers
    of_agreement = _excess(square_w, of_prior, number_w)
    of_likelihood = _excess(square_2, of_prior + of_agreement, number_2)
    conditional = DiagonalConditional(of_agreement, variance_2)
    return Metric(DiagonalJoint(variance_1, conditional, of_likelihood), conditional)


def _excess(
    square: Float[Array, " d"] | float, expected: Float[Array, " d"], number: int
) -> Float[Array, " d"]:
    """What a mean square exceeds its expectation by, where that is no scatter."""
    limit = 1 + _SIGMAS_OF_SCATTER * (2 / number) ** 0.5
    return jnp.where(square > limit * expected, square - expected, 0)


def squared_gradients(
    key: jax.Array, kernel: Dynamics, state: LangevinState
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Curvatures by theta_2, and squared gradients of negative samples, of one chain."""

    def of_negative(w: Array) -> Array:
        pull, push = kernel.forces(state.theta_1, w)
        return (pull + push) ** 2

    second = kernel.curvature_2(key, state)
    return second, jax.vmap(of_negative)(state.negative).mean(axis=0)


def largest_steps(
    key: jax.Array, kernel: Dynamics, metric: Metric, state: LangevinState
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Largest steps of one chain and of its negative samples that are safely stable and accurate.

    From the largest eigenvalues of Sigma H, at where the chain is, by power iteration.
    """
    model = kernel.model
    key_joint, key_negative = jax.random.split(key)

    def gradient(both: Array) -> Array:
        return jnp.concatenate(kernel.gradient(*jnp.split(both, 2)))

    both = jnp.concatenate([state.theta_1, state.theta_2])

    def of_joint(direction: Array) -> Array:
        curvature = -jax.jvp(gradient, (both,), (direction,))[1]
        of_normalizer = metric.negative.low_rank(jnp.split(direction, 2)[0])
        curvature = curvature.at[: model.dimension].add(-of_normalizer)
        return metric.joint.covariance(curvature)

    w = state.negative[0]

    def force(w: Array) -> Array:
        pull, push = kernel.forces(state.theta_1, w)
        return pull + push

    def of_negative(direction: Array) -> Array:
        return metric.negative.covariance(-jax.jvp(force, (w,), (direction,))[1])

    start = metric.joint.fluctuation(key_joint)
    start_w = metric.negative.fluctuation(key_negative)
    largest_w = largest_step(model.second_stage)
    return (
        kernel.largest_step / jnp.maximum(1, _largest(of_joint, start)),
        largest_w / jnp.maximum(1, _largest(of_negative, start_w)),
    )


def _largest(apply: Callable[[Array], Array], start: Array) -> Float[Array, ""]:
    """Modulus of the leading eigenvalue, by power iteration; 0 where there is nothing to move."""

    def norm(x: Array) -> Array:
        return jnp.sqrt(jnp.sum(x**2, dtype=jnp.result_type(float)).astype(x.dtype))

    def body(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, _value = carry
        size = norm(x)
        moved = apply(x / jnp.where(size > 0, size, 1))
        return moved, norm(moved)

    return jax.lax.fori_loop(0, _POWER_ITERATIONS, body, (start, jnp.zeros((), start.dtype)))[1]
