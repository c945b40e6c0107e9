"""What negative samples teach about log Z(theta_1) beyond a quadratic.

The gradient of log Z is a mean over negative samples, grad log Z(theta_1) = E[grad log f(w | .)]
with w ~ q(. | theta_1), so a regression of these gradients on theta_1 fits the gradient of a
potential, and needs no value of Z. Pairs are free: at any theta_1, w can be moved again. Frozen
after warm-up the potential is a force and a shift like those of the quadratic surrogate, which it
scales and corrects: a poor one costs acceptance, and nothing else.
"""

from dataclasses import replace
from itertools import product
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from generative import LinearGaussianAgreement, TwoStageModel
from inference.gaussians.surrogate import bounded, rank
from inference.moves.density import log_agreeing, share

_NUM_UNITS = 128
_NUM_STEPS, _BATCH, _LEARNING_RATE = 2000, 256, 1e-2
# The first eighth, which are draws of the reference and not of a chain.
_HELD_OUT = 8
# Shares of the mean's quadratic part and of its correction, among which a shift is chosen; and the
# most that one step counts for, nats.
_SHARES = tuple(product((0.0, 0.5, 1.0), repeat=2))
_LARGEST_ERROR = 2.0


class Correction(eqx.Module):
    """A potential with softplus units: linear'x + heights'softplus(slopes x + offsets).

    Parameters
    ----------
    rows : array, shape (r, d)
        x = rows theta_1, in posterior standard deviations.
    slopes : array, shape (u, r)
    offsets, heights : arrays, shape (u,)
    linear : array, shape (r,)
    """

    rows: Float[Array, "r d"]
    slopes: Float[Array, "u r"]
    offsets: Float[Array, " u"]
    heights: Float[Array, " u"]
    linear: Float[Array, " r"]

    def __call__(self, theta_1: Float[Array, " d"]) -> Float[Array, ""]:
        """Value, nats."""
        x = self.rows @ theta_1
        return self.linear @ x + self.heights @ jax.nn.softplus(self.slopes @ x + self.offsets)

    def score(self, theta_1: Float[Array, " d"]) -> Float[Array, " d"]:
        """Gradient by theta_1."""
        return self.rows.T @ self.along(self.rows @ theta_1)

    def along(self, x: Float[Array, " r"]) -> Float[Array, " r"]:
        """Gradient by x."""
        bend = self.heights * jax.nn.sigmoid(self.slopes @ x + self.offsets)
        return self.linear + self.slopes.T @ bend


class NormalizerSurrogate(eqx.Module):
    """What stands in for log Z in the force, and for the mean of q(. | theta_1) in the shift.

    Parameters
    ----------
    quadratic : LinearGaussianAgreement
    scale : float array
        What its log Z is multiplied by. A mean curvature of C says little of log Z where the
        directions in which C is curved change with theta, as in networks: next to 0 there.
    correction : Correction
    follows : array, shape (2,)
        Shares of the quadratic's and of the correction's part in the shift.
    """

    quadratic: LinearGaussianAgreement
    scale: Float[Array, ""]
    correction: Correction
    follows: Float[Array, "2"]

    @classmethod
    def uncorrected(
        cls, model: TwoStageModel, quadratic: LinearGaussianAgreement
    ) -> "NormalizerSurrogate":
        """Return the quadratic as it is."""
        number, dtype = rank(model), model.space.origin.dtype
        units = jnp.zeros(_NUM_UNITS, dtype)
        rows = jnp.zeros((number, model.dimension), dtype)
        slopes, linear = jnp.zeros((_NUM_UNITS, number), dtype), jnp.zeros(number, dtype)
        correction = Correction(rows, slopes, units, units, linear)
        return cls(quadratic, jnp.ones((), dtype), correction, jnp.ones(2, dtype))

    @property
    def is_learned(self) -> Bool[Array, ""]:
        """Whether pairs changed it."""
        return (self.correction.rows != 0).any()

    def log_normalizer(self, theta_1: Float[Array, " d"]) -> Float[Array, ""]:
        """Surrogate of log Z(theta_1), nats, up to a constant."""
        return self.scale * self.quadratic.log_normalizer(theta_1) + self.correction(theta_1)

    def score(self, model: TwoStageModel, theta_1: Float[Array, " d"]) -> Float[Array, " d"]:
        """Its gradient, kept where that of log Z must lie."""
        value = self.scale * self.quadratic.score(theta_1) + self.correction.score(theta_1)
        return bounded(model, value)

    def centre(self, model: TwoStageModel, theta_1: Float[Array, " d"]) -> Float[Array, " d"]:
        """What negative samples follow: the mean of q(. | theta_1) up to a constant, or part of it.

        A Gaussian second stage has E[w] = theta_1 + S2 grad log Z(theta_1). Where tails are heavy
        the gradient says nothing of the mean, and the quadratic's own is followed.
        """
        linear = self.quadratic.gain(theta_1)
        if not model.second_stage.is_gaussian:
            return linear
        linear = theta_1 + self.scale * (linear - theta_1)
        bend = self.correction.score(theta_1)
        bend = jnp.asarray(model.second_stage.variance, bend.dtype) * bend
        # Coordinates that the second stage fixes are theta_1's.
        return share(model, linear, self.follows[0] * linear + self.follows[1] * bend)

    def followed(
        self,
        model: TwoStageModel,
        theta_1: Float[Array, "n d"],
        negative: Float[Array, "n d"],
        num_bridges: int,
    ) -> "NormalizerSurrogate":
        """Choose the shift with the least noise in the ratio, in steps between values of theta_1.

        The mean of q bends with theta_1 where q widens and where its basins change their shares;
        only in the first case do samples do well to follow it. Noise is what the log weight of a
        step differs by from the surrogate's own change of log Z.

        Parameters
        ----------
        model : TwoStageModel
        theta_1, negative : arrays, shape (n, d)
            Draws of a chain, in any order.
        num_bridges : int
            Steps from one theta_1 to another.
        """
        targets = theta_1 + (jnp.roll(theta_1, 1, axis=0) - theta_1) / num_bridges

        def noise(follows: Array) -> Array:
            surrogate = replace(self, follows=follows)

            def one(source: Array, target: Array, w: Array) -> Array:
                carried = w + surrogate.centre(model, target) - surrogate.centre(model, source)
                gain = log_agreeing(model, target, carried) - log_agreeing(model, source, w)
                error = gain - self.log_normalizer(target) + self.log_normalizer(source)
                return jnp.minimum(jnp.nan_to_num(error**2, nan=jnp.inf), _LARGEST_ERROR**2)

            return jax.vmap(one)(theta_1, targets, negative).mean()

        shares = jnp.asarray(_SHARES, theta_1.dtype)
        return replace(self, follows=shares[jnp.argmin(jax.lax.map(noise, shares))])


class Pairs(NamedTuple):
    """Values of theta_1, and two means of grad log f(w | theta_1) by theta_1 at each.

    Attributes
    ----------
    theta_1 : array, shape (n, d)
        Independent draws first: some of these are held out.
    scores : array, shape (2, n, d)
        Of earlier and of later moves of w.
    """

    theta_1: Float[Array, "n d"]
    scores: Float[Array, "2 n d"]


@jax.jit
def learn(
    key: jax.Array, model: TwoStageModel, quadratic: LinearGaussianAgreement, pairs: Pairs
) -> tuple[NormalizerSurrogate, Float[Array, ""]]:
    """Scale a quadratic, and correct it, by pairs.

    Returns
    -------
    NormalizerSurrogate
        Of the quadratic as it is, scaled, and scaled and corrected the one that explains most at
        values of theta_1 that were held out.
    explained : float array
        Share of the variance of the *mean* score that it explains there: the noise of single
        samples cancels in the product of two of them.
    """
    usable = jnp.isfinite(pairs.scores).all(axis=(0, 2)) & jnp.isfinite(pairs.theta_1).all(axis=1)
    theta_1 = jnp.where(usable[:, None], pairs.theta_1, pairs.theta_1[jnp.argmax(usable)])
    number, dtype = rank(model), theta_1.dtype
    # That of equal numbers is rounding, and not 0.
    spread = jnp.where(model.moving_1, jnp.std(theta_1, axis=0), 0)
    is_whole = number == model.dimension
    basis = jnp.eye(number, dtype=dtype) if is_whole else _leading(quadratic, spread)
    rows = jnp.where(spread > 0, basis / jnp.where(spread > 0, spread, 1), 0)
    x = theta_1 @ rows.T
    scores = jnp.where(usable[:, None], pairs.scores, 0) * spread
    of_quadratic = jax.vmap(quadratic.score)(theta_1) * spread
    is_held_out = jnp.arange(len(x)) < len(x) // _HELD_OUT
    is_fitted = usable & ~is_held_out
    scale, slope = _line(of_quadratic, scores.mean(axis=0), is_fitted.astype(dtype))
    plain = NormalizerSurrogate.uncorrected(model, quadratic)
    tilt = replace(plain.correction, rows=rows, linear=basis @ slope)
    target = (scores.mean(axis=0) - scale * of_quadratic) @ basis.T
    trained = _trained(key, tilt, x, target, is_fitted)
    candidates = [plain, *(replace(plain, scale=scale, correction=c) for c in (tilt, trained))]
    held_out = (usable & is_held_out).astype(dtype)

    def left(surrogate: NormalizerSurrogate) -> Array:
        found = jax.vmap(surrogate.correction.along)(x) @ basis
        return _covariance(scores - surrogate.scale * of_quadratic - found, held_out)

    unexplained = jnp.stack([left(surrogate) for surrogate in candidates])
    best = jnp.argmin(jnp.where(jnp.isnan(unexplained), jnp.inf, unexplained))
    learned = jax.tree.map(lambda *leaves: jnp.stack(leaves)[best], *candidates)
    return learned, 1 - unexplained[best] / _covariance(scores, held_out)


def _line(
    x: Float[Array, "n d"], y: Float[Array, "n d"], weights: Float[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, " d"]]:
    """Fit y = scale x + intercept by least squares, with one scale for all coordinates."""
    variance = _covariance(jnp.stack([x, x]), weights)
    covariance = _covariance(jnp.stack([x, y]), weights)
    scale = jnp.where(variance > 0, covariance / jnp.where(variance > 0, variance, 1), 1)
    return scale, weights @ (y - scale * x) / jnp.sum(weights)


def _covariance(values: Float[Array, "2 n d"], weights: Float[Array, " n"]) -> Float[Array, ""]:
    """Sum over coordinates of the covariance of two estimates: that of what they estimate."""
    weights = weights / jnp.sum(weights)
    centred = values - jnp.einsum("n,kni->ki", weights, values)[:, None]
    return jnp.einsum("n,ni,ni->", weights, centred[0], centred[1])


def _trained(
    key: jax.Array,
    start: Correction,
    x: Float[Array, "n r"],
    target: Float[Array, "n r"],
    is_fitted: Bool[Array, " n"],
) -> Correction:
    """Add units to a correction without any, by least squares of gradients, by Adam."""
    key_slopes, key_offsets, key_steps = jax.random.split(key, 3)
    number, dtype = x.shape[1], x.dtype
    slopes = jax.random.normal(key_slopes, (_NUM_UNITS, number), dtype) / number**0.5
    offsets = jax.random.normal(key_offsets, (_NUM_UNITS,), dtype) - slopes @ x.mean(axis=0)
    optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, _NUM_STEPS))

    def loss(parameters: tuple[Array, ...], batch: Array) -> Array:
        found = jax.vmap(_with(start, parameters).along)(x[batch])
        errors = jnp.sum((found - target[batch]) ** 2, axis=-1)
        return jnp.mean(jnp.where(is_fitted[batch], errors, 0))

    def step(carry: tuple, key: jax.Array) -> tuple:
        parameters, state = carry
        batch = jax.random.randint(key, (_BATCH,), len(x) // _HELD_OUT, len(x))
        gradient = jax.grad(loss)(parameters, batch)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(parameters, updates), state), None

    parameters = (slopes, offsets, start.heights, start.linear)
    carry = (parameters, optimizer.init(parameters))
    (parameters, _), _ = jax.lax.scan(step, carry, jax.random.split(key_steps, _NUM_STEPS))
    return _with(start, parameters)


def _with(correction: Correction, parameters: tuple[Array, ...]) -> Correction:
    return Correction(correction.rows, *parameters)


def _leading(quadratic: LinearGaussianAgreement, spread: Float[Array, " d"]) -> Float[Array, "r d"]:
    """Orthonormal directions of the surrogate's rows, in standard deviations of theta_1."""
    return jnp.linalg.qr((quadratic.A * spread).T)[0].T
