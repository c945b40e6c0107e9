"""Slow, obvious answers, written differently from the code they check."""

import numpy as np
from scipy import integrate, interpolate, linalg, special, stats


def double_well_evidences() -> tuple[float, float, float]:
    """Log evidence of the double well, as ours, without -log Z, and conditioned globally."""

    def penalty(b: float) -> float:
        return 3 * (b**2 - 1) ** 2 / 4

    def agreeing(b: float, a: float) -> float:
        return stats.norm.pdf(b, a, 1) * np.exp(-penalty(b))

    grid = np.linspace(-8, 8, 1601)
    z = np.array([integrate.quad(agreeing, -8, 8, args=(a,))[0] for a in grid[::10]])
    z = np.exp(interpolate.CubicSpline(grid[::10], np.log(z))(grid))
    prior = stats.norm.pdf(grid, 0.2, 1)
    kernel = agreeing(grid[None, :], grid[:, None])
    likelihood = stats.norm.pdf(0.8, grid, 0.5)
    step = grid[1] - grid[0]

    def total(weight: np.ndarray) -> float:
        return float(np.sum(prior[:, None] * kernel * weight) * step**2)

    ours = total(likelihood[None, :] / z[:, None])
    without = total(likelihood[None, :] * np.ones_like(z)[:, None])
    return np.log(ours), np.log(without), np.log(without / total(np.ones_like(kernel)))


def linear_posterior(s1, s2, a, c, b, y, noise):
    """Posterior mean and covariance of (theta_1, theta_2) by the joint precision (theta_0 = 0)."""
    d = len(s1)
    sq = np.linalg.inv(np.diag(1 / s2) + a.T @ a)
    g = sq @ a.T @ c
    i2 = np.diag(1 / s2)
    precision = np.block(
        [[np.diag(1 / s1) + i2 @ sq @ i2, -i2], [-i2, i2 + a.T @ a + b.T @ b / noise]]
    )
    shift = np.concatenate([-i2 @ g, a.T @ c + b.T @ y / noise])
    covariance = np.linalg.inv(precision)
    return covariance @ shift, covariance, d


def linear_langevin(s1, s2, a, c, b, y, noise, joint, negative, low_rank, settings):
    """Stationary mean and covariance of (theta_1, theta_2) under Langevin steps (theta_0 = 0).

    Every variable is an affine function of (theta_1, theta_2, mean of w, noises, 1), held as a
    matrix; `settings` holds h, e, M, K, averaged, score and omitted.
    """
    d, h, e, k = len(s1), settings["h"], settings["e"], settings["K"]
    half = float(settings["averaged"])
    number = 3 * d + 2 * d + k * d + 1
    row = np.eye(number)
    first, second, w = (row[i * d : (i + 1) * d] for i in range(3))
    xi, one = row[3 * d : 5 * d], row[-1:]
    i1, i2 = np.diag(1 / s1), np.diag(1 / s2)

    def push(x):
        return -a.T @ (a @ x - c[:, None] @ one)

    at_1 = first + half * np.sqrt(h / 2) * xi[:d]
    at_2 = second + half * np.sqrt(h / 2) * xi[d:]
    slope = np.zeros_like(first)
    for index in range(0 if settings["omitted"] else k):
        zeta = row[(5 + index) * d : (6 + index) * d]
        at_w = w + half * np.sqrt(e / 2) * zeta
        score = push(at_w) - i2 @ (at_w - at_1)
        control = (
            i2 @ (at_w - at_1)
            if settings["score"]
            else push(at_w) - low_rank @ (s2[:, None] * score)
        )
        slope = slope + control / k
        w = w + e * negative @ score + np.sqrt(2 * e) * zeta
    gradient = np.concatenate(
        [
            -i1 @ at_1 + i2 @ (at_2 - at_1) - slope,
            -i2 @ (at_2 - at_1) + push(at_2) + b.T @ (y[:, None] @ one - b @ at_2) / noise,
        ]
    )
    moved = np.concatenate([first, second]) + h * joint @ gradient + np.sqrt(2 * h) * xi
    after = np.concatenate([moved, w])
    kept = 2 * d if settings["omitted"] else 3 * d
    after = after[:kept]
    step, shift = after[:, :kept], after[:, -1]
    spread = linalg.block_diag(joint, *[negative / settings["M"]] * k)
    kicks = after[:, 3 * d : -1]
    covariance = linalg.solve_discrete_lyapunov(step, kicks @ spread @ kicks.T)[: 2 * d, : 2 * d]
    mean = np.linalg.solve(np.eye(kept) - step, shift)[: 2 * d]
    return mean, covariance + half * h / 2 * joint


def coordinate_posterior(penalty, log_likelihood, s1, s2, theta_0, observed):
    """Posterior of one coordinate by nested adaptive quadrature, as a dictionary.

    `penalty` and `log_likelihood` are in nats, of a float; data lie at `observed`.
    """
    breaks = sorted({-1.0, 0.0, 1.0, observed})

    def inner(a: float) -> np.ndarray:
        def of_b(b: float) -> np.ndarray:
            agreeing = stats.norm.pdf(b, a, s2) * np.exp(-penalty(b))
            return agreeing * np.array([1.0, *np.exp(log_likelihood(b)) * b ** np.arange(3)])

        return integrate.quad_vec(of_b, -3, 3, points=breaks, epsabs=0, epsrel=1e-10)[0]

    def outer(a: float) -> np.ndarray:
        z, n0, n1, n2 = inner(a)
        terms = np.array([n0, a * n0, a**2 * n0, n1, n2, a * n1, -np.log2(z) * n0])
        return stats.norm.pdf(a, theta_0, s1) * terms / z

    ends = theta_0 - 8 * s1, theta_0 + 8 * s1
    points = sorted({theta_0, 0.0, observed})
    total = integrate.quad_vec(outer, *ends, points=points, epsabs=0, epsrel=1e-9)[0]
    evidence, (a, aa, b, bb, ab, bits) = total[0], total[1:] / total[0]
    return {
        "log_evidence": np.log(evidence),
        "mean_1": a,
        "mean_2": b,
        "cov_1": aa - a**2,
        "cov_2": bb - b**2,
        "cov_difference": aa + bb - 2 * ab - (b - a) ** 2,
        "bits_saved": bits,
    }


def singular_log_normalizer(a: np.ndarray) -> float:
    """Log Z of C = (t0 t1 - 0.7)^2 + |sin t2 - t3|, lambda = 3, at one theta_1: two 2-d integrals."""

    def product(t1: float, t0: float) -> float:
        weight = stats.norm.pdf(t0, a[0]) * stats.norm.pdf(t1, a[1])
        return weight * np.exp(-3 * (t0 * t1 - 0.7) ** 2)

    def sine(t3: float, t2: float) -> float:
        weight = stats.norm.pdf(t2, a[2]) * stats.norm.pdf(t3, a[3])
        return weight * np.exp(-3 * abs(np.sin(t2) - t3))

    def given_t2(t2: float) -> float:
        crease = np.sin(t2)
        return sum(
            integrate.quad(sine, *ends, args=(t2,), epsrel=1e-9)[0]
            for ends in ((crease - 10, crease), (crease, crease + 10))
        )

    def given_t0(t0: float) -> float:
        return integrate.quad(product, a[1] - 8, a[1] + 8, args=(t0,), epsrel=1e-9, limit=200)[0]

    first = integrate.quad(given_t0, a[0] - 8, a[0] + 8, epsrel=1e-8, limit=200)[0]
    second = integrate.quad(given_t2, a[2] - 8, a[2] + 8, epsrel=1e-8, limit=200)[0]
    return float(np.log(first) + np.log(second))


def heavy_posterior(first, second, penalty, log_likelihood, omit=False):  # noqa: ANN001, ANN201
    """Log evidence, distribution functions of theta_1 and theta_2, and mode, in one dimension.

    `first` is SciPy's law of theta_1, `second` that of theta_2 - theta_1; nodes of theta_1 are
    spaced evenly by their arcsinh, so that tails without a variance are covered. theta_2 must be
    held within 4 of 0 by its penalty.
    """
    t = np.linspace(-16, 16, 1601)
    a, b = np.sinh(t), np.linspace(-4, 4, 801)
    log_f = second.logpdf(b[None, :] - a[:, None]) - penalty(b)
    log_z = special.logsumexp(log_f, axis=1, keepdims=True) + np.log(b[1] - b[0])
    log_joint = log_f - (0 if omit else log_z) + log_likelihood(b) + first.logpdf(a)[:, None]
    joint = np.exp(log_joint) * np.cosh(t)[:, None]
    evidence = np.trapezoid(np.trapezoid(joint, b, axis=1), t)

    def cdf(nodes, density):  # noqa: ANN001, ANN202
        mass = integrate.cumulative_trapezoid(density, nodes, initial=0)
        return lambda x: np.interp(x, nodes, mass / mass[-1])

    of_t, of_b = cdf(t, np.trapezoid(joint, b, axis=1)), cdf(b, np.trapezoid(joint, t, axis=0))
    best = np.unravel_index(np.argmax(log_joint), log_joint.shape)
    return {
        "log_evidence": np.log(evidence),
        "mode": np.array([a[best[0]], b[best[1]]]),
        "theta_1": lambda x: of_t(np.arcsinh(x)),
        "theta_2": of_b,
    }
