"""Statistical assertions: k standard errors, a cap on the standard error, a gate on ESS."""

import arviz as az
import numpy as np
from scipy import stats

# Of the whole suite: each comparison gets this share of it.
FALSE_ALARM_RATE = 1e-3
_NUM_COMPARISONS = 200
MIN_ESS = 200.0


def z_limit(num_elements: int = 1) -> float:
    """Two-sided limit of one comparison of `num_elements` z-scores."""
    return float(stats.norm.isf(FALSE_ALARM_RATE / _NUM_COMPARISONS / 2 / num_elements))


def moments_z(draws: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """z-scores of posterior means and variances of draws, shape (chain, draw, d).

    Raises
    ------
    AssertionError
        If an effective sample size is too small for the comparison to mean anything.
    """
    variance = np.diag(covariance)
    scores = []
    for values, expected in ((draws, mean), ((draws - mean) ** 2, variance)):
        for j in range(draws.shape[-1]):
            x = values[..., j]
            assert float(np.asarray(az.ess(x))) > MIN_ESS
            scores.append((x.mean() - expected[j]) / float(np.asarray(az.mcse(x))))
    return np.array(scores)


def covariance_z(draws: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """z-scores of the second moments of independent draws, shape (n, d), from N(0, covariance)."""
    variance = np.diag(covariance)
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / len(draws))
    return (draws.T @ draws / len(draws) - covariance) / error


def assert_centred_gaussian(draws: np.ndarray, covariance: np.ndarray) -> None:
    """Assert second moments, with 3 % more spread as the control that must fail."""
    limit = z_limit(covariance.size)
    found, control = (np.abs(covariance_z(x, covariance)).max() for x in (draws, 1.03 * draws))
    assert found < limit < control, (found, limit, control)


def assert_moments(
    draws: np.ndarray, mean: np.ndarray, covariance: np.ndarray, cap: float = 0.1
) -> None:
    """Assert means and variances, with standard errors below `cap` posterior units."""
    scores = moments_z(draws, mean, covariance)
    spread = np.sqrt(np.diag(covariance))
    for j in range(draws.shape[-1]):
        assert float(np.asarray(az.mcse(draws[..., j]))) < cap * spread[j]
    assert np.abs(scores).max() < z_limit(len(scores)), np.abs(scores).max()


def chi_square_z(squared: np.ndarray, degrees: int) -> float:
    """z-score of the mean of draws, shape (chain, draw), against a chi-square's mean."""
    ess = float(np.asarray(az.ess(squared)))
    assert ess > MIN_ESS, ess
    return float((squared.mean() - degrees) / np.asarray(az.mcse(squared)))


def covers(values: np.ndarray, errors: np.ndarray, truth: float) -> bool:
    """Whether the truth lies within two standard errors as often as it should: a binomial test."""
    finite = np.isfinite(errors)
    assert finite.mean() > 0.9, finite.mean()
    inside = np.abs(values - truth)[finite] <= 2 * errors[finite]
    nominal = stats.norm.cdf(2) - stats.norm.cdf(-2)
    test = stats.binomtest(int(inside.sum()), len(inside), nominal)
    return bool(test.pvalue > FALSE_ALARM_RATE / _NUM_COMPARISONS)
