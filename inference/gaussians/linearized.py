"""Residuals linearised at a point, by products with their Jacobian alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from generative import GaussianConditional, TwoStageModel
from generative.agreement import Agreement
from generative.linear import inverse_root
from inference.moves.density import log_agreeing

_MAX_ITERATIONS = 50
_HALVINGS = 8
_TOLERANCE = 1e-8  # nats gained by a step
_ROWS_AT_ONCE = 16


class Linearized(GaussianConditional):
    """q(. | theta_1) with the residuals linearised at a point.

    The Jacobian is never formed: its Gram matrix J S2 J' takes 2 m products, of memory O(d).

    Parameters
    ----------
    residuals : Partial
        sqrt(lambda) r of one vector, shape (d,) -> (m,).
    point : array, shape (d,)
    variance : array, shape (d,)
    """

    residuals: Partial
    point: Float[Array, " d"]
    c: Float[Array, " m"]
    variance: Float[Array, " d"]
    inverse_root: Float[Array, "m m"]
    whitened_c: Float[Array, " m"]

    def __init__(self, residuals: Partial, point: Array, variance: Array):
        self.residuals, self.point = residuals, point
        self.variance = jnp.asarray(variance, point.dtype)
        self.c = self.product(point) - residuals(point)
        identity = jnp.eye(len(self.c), dtype=point.dtype)

        def column(y: Array) -> Array:
            return self.product(self.variance * self.transpose(y))

        gram = jax.lax.map(column, identity, batch_size=min(_ROWS_AT_ONCE, len(identity)))
        self.inverse_root = inverse_root(0.5 * (gram + gram.T))
        self.whitened_c = self.inverse_root @ self.c

    def product(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """J x."""
        return jax.jvp(self.residuals, (self.point,), (x,))[1]

    def transpose(self, y: Float[Array, " m"]) -> Float[Array, " d"]:
        """J' y."""
        return jax.vjp(self.residuals, self.point)[1](y)[0]

    def whiten(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """(I + J S2 J')^(-1/2) J x."""
        return self.inverse_root @ self.product(x)

    def unwhiten(self, y: Float[Array, " m"]) -> Float[Array, " d"]:
        """Transpose of :meth:`whiten`."""
        return self.transpose(self.inverse_root.T @ y)


def linearize_at_mode(
    model: TwoStageModel, theta_1: Float[Array, " d"]
) -> tuple[Linearized, Int[Array, ""]]:
    """Linearise where f(. | theta_1) is largest, found by Gauss-Newton steps.

    Each step is halved until f increases; the search starts at theta_1 and ends when f gains no
    more, after 50 steps at most.

    Returns
    -------
    Linearized
    num_evaluations : int array
        Of the residuals and of products with their Jacobian.
    """
    residuals = Partial(_scaled_residuals, model.agreement)

    def linearize(point: Array) -> Linearized:
        return Linearized(residuals, point, jnp.asarray(model.second_stage.reference_variance))

    lengths = 0.5 ** jnp.arange(_HALVINGS)

    def step(state: tuple) -> tuple:
        theta, value, _, count = state
        # The conditional mean of the linearised problem is the full Gauss-Newton step.
        direction = linearize(theta).mean(theta_1) - theta
        candidates = theta + lengths[:, None].astype(theta.dtype) * direction
        values = jax.vmap(lambda x: log_agreeing(model, theta_1, x))(candidates)
        values = jnp.nan_to_num(values, nan=-jnp.inf, neginf=-jnp.inf)
        best = jnp.argmax(values)
        gain = values[best] - value
        return jnp.where(gain > 0, candidates[best], theta), values[best], gain, count + 1

    def improving(state: tuple) -> Array:
        _, _, gain, count = state
        return (gain > _TOLERANCE) & (count < _MAX_ITERATIONS)

    value = log_agreeing(model, theta_1, theta_1)
    start = (theta_1, value, jnp.full_like(value, jnp.inf), jnp.asarray(0))
    theta, _, _, count = jax.lax.while_loop(improving, step, start)
    num_residuals = jax.eval_shape(residuals, theta_1).shape[0]
    cost = (count + 1) * (2 * num_residuals + 4) + count * _HALVINGS
    return linearize(theta), cost


def _scaled_residuals(agreement: Agreement, theta: Float[Array, " d"]) -> Float[Array, " m"]:
    residuals = agreement.residuals
    assert residuals is not None
    return jnp.sqrt(agreement.strength) * residuals(theta)


def detached(base: GaussianConditional) -> GaussianConditional:
    """Leave the residuals out, whose data a map over points would repeat at every point."""
    if not isinstance(base, Linearized):
        return base
    return eqx.tree_at(lambda x: x.residuals, base, None)


def attached(model: TwoStageModel, base: GaussianConditional) -> GaussianConditional:
    """Put the residuals back."""
    if not isinstance(base, Linearized):
        return base
    residuals = Partial(_scaled_residuals, model.agreement)
    return eqx.tree_at(lambda x: x.residuals, base, residuals, is_leaf=lambda x: x is None)
