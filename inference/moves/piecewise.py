"""Exact draws from one-dimensional densities that are Gaussian or exponential between kinks."""

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, ndtri
from jaxtyping import Array, Float


def sample_piecewise_exponential(
    key: jax.Array,
    centres: Float[Array, " n"],
    slopes: Float[Array, " n"],
    precisions: Float[Array, " n"],
) -> Float[Array, ""]:
    """Draw x with log density -sum_i (slopes_i |x - c_i| + precisions_i (x - c_i)^2 / 2).

    Parameters
    ----------
    key : PRNG key
    centres, slopes, precisions : arrays, shape (n,)
        A term with slope and precision 0 is absent.

    Notes
    -----
    Between neighbouring centres the exponent is quadratic (or linear, where all precisions are
    0); a segment is drawn by its exact mass, then a point in it by inverting its distribution.
    """
    order = jnp.argsort(centres)
    centres, slopes, precisions = centres[order], slopes[order], precisions[order]
    precision = precisions.sum()
    pull = jnp.sum(precisions * centres)
    # Left of knot k: slopes of centres >= k push right. Segment k lies between knots k - 1 and k.
    left_sum = jnp.concatenate([jnp.zeros(1, slopes.dtype), jnp.cumsum(slopes)])
    linear = (slopes.sum() - left_sum) - left_sum + pull
    lower = jnp.concatenate([jnp.full(1, -jnp.inf, centres.dtype), centres])
    upper = jnp.concatenate([centres, jnp.full(1, jnp.inf, centres.dtype)])
    # Exponent on segment k: constant_k + linear_k x - precision x^2 / 2, continuous at the knots.
    steps = -(linear[1:] - linear[:-1]) * centres
    constant = jnp.concatenate([jnp.zeros(1, centres.dtype), jnp.cumsum(steps)])
    log_mass = constant + _log_segment_mass(linear, precision, lower, upper)
    key_segment, key_point = jax.random.split(key)
    index = jax.random.categorical(key_segment, log_mass)
    uniform = jax.random.uniform(key_point, (), centres.dtype, 1e-12, 1.0)
    return _invert(uniform, linear[index], precision, lower[index], upper[index])


def _log_segment_mass(linear: Array, precision: Array, lower: Array, upper: Array) -> Array:
    return jnp.where(
        precision > 0,
        _log_gaussian_mass(linear, jnp.where(precision > 0, precision, 1.0), lower, upper),
        _log_exponential_mass(linear, lower, upper),
    )


def _log_exponential_mass(linear: Array, lower: Array, upper: Array) -> Array:
    """Log of the integral of exp(linear x) over [lower, upper]; one side may be infinite."""
    rate = jnp.abs(linear)
    width = upper - lower
    top = jnp.where(linear > 0, upper, lower)  # where the integrand is largest; finite
    safe_rate = jnp.where(rate > 0, rate, 1.0)
    decayed = -jnp.expm1(-safe_rate * jnp.where(jnp.isfinite(width), width, jnp.inf))
    sloped = jnp.where(rate > 0, linear, 0) * jnp.where(jnp.isfinite(top), top, 0)
    sloped += jnp.log(decayed) - jnp.log(safe_rate)
    return jnp.where(rate > 0, sloped, jnp.log(jnp.where(jnp.isfinite(width), width, 0.0)))


def _log_gaussian_mass(linear: Array, precision: Array, lower: Array, upper: Array) -> Array:
    mean, root = linear / precision, jnp.sqrt(precision)
    a, b = (lower - mean) * root, (upper - mean) * root
    # Work in the tail in which the interval lies, so that differences do not cancel.
    flip = a + b > 0
    low, high = jnp.where(flip, -b, a), jnp.where(flip, -a, b)
    log_high, log_low = log_ndtr(high), log_ndtr(low)
    log_difference = log_high + jnp.log(-jnp.expm1(jnp.minimum(log_low - log_high, 0.0)))
    return 0.5 * linear**2 / precision + log_difference - jnp.log(root)


def _invert(uniform: Array, linear: Array, precision: Array, lower: Array, upper: Array) -> Array:
    """Point of [lower, upper] below which a share `uniform` of the segment's mass lies."""
    rate = jnp.where(linear == 0, 1.0, jnp.abs(linear))
    decay = jnp.expm1(-rate * (upper - lower))
    from_top = -jnp.log1p((1 - uniform) * decay) / rate
    sloped = jnp.where(linear > 0, upper - from_top, lower + from_top)
    flat = lower + uniform * (upper - lower)
    exponential = jnp.clip(jnp.where(linear == 0, flat, sloped), lower, upper)
    safe = jnp.where(precision > 0, precision, 1.0)
    mean, root = linear / safe, jnp.sqrt(safe)
    a, b = (lower - mean) * root, (upper - mean) * root
    flip = a + b > 0
    low, high = jnp.where(flip, -b, a), jnp.where(flip, -a, b)
    log_low, log_high = log_ndtr(low), log_ndtr(high)
    log_p = jnp.logaddexp(jnp.log1p(-uniform) + log_low, jnp.log(uniform) + log_high)
    quantile = _inverse_log_ndtr(log_p)
    gaussian = mean + jnp.where(flip, -quantile, quantile) / root
    return jnp.where(precision > 0, jnp.clip(gaussian, lower, upper), exponential)


def _inverse_log_ndtr(log_p: Array) -> Array:
    """Quantile of the standard normal by log probability: far in the tail ndtri underflows."""
    start = jnp.where(
        log_p > -5,
        ndtri(jnp.exp(jnp.maximum(log_p, -5.0))),
        -jnp.sqrt(-2 * jnp.minimum(log_p, -1.0)),
    )

    def newton(_: Array, z: Array) -> Array:
        value = log_ndtr(z)
        step = (value - log_p) * jnp.exp(value + 0.5 * z**2 + 0.5 * jnp.log(2 * jnp.pi))
        return jnp.where(log_p > -5, z, z - step)

    return jax.lax.fori_loop(0, 6, newton, start)
