"""From independent runs to a value and a standard error that can be believed."""

import numpy as np
from jaxtyping import Float
from scipy import stats

# Beyond this spread of log Z-hat over runs (nats) its lognormal limit is no longer a guide.
LARGEST_SPREAD = 1.0
_TWO_SIGMA = stats.norm.cdf(2.0)
# A bracket known by sampling is widened by so many of its own standard errors.
SIGMAS_OF_A_BRACKET = 4.0


def student_factor(num_runs: int) -> float:
    """Widen a standard error from few runs, so that two of them cover what two sigmas would."""
    return float(stats.t.ppf(_TWO_SIGMA, num_runs - 1)) / 2.0


def mean_of_runs(
    values: Float[np.ndarray, "point run"],
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """Mean over runs, and its standard error."""
    num_runs = values.shape[1]
    with np.errstate(invalid="ignore"):  # infinite values have no spread
        error = values.std(axis=1, ddof=1) / np.sqrt(num_runs)
    return values.mean(axis=1), student_factor(num_runs) * error


def log_of_mean(
    log_values: Float[np.ndarray, "point run"],
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """Log of the mean of exp, for runs whose logs are nearly Gaussian, and its standard error.

    Particle estimates of a normaliser are lognormal in the limit of many temperatures, with the
    log's mean half its variance too low (J. Berard, P. Del Moral and A. Doucet, Electron. J.
    Probab. 19 (2014), doi:10.1214/EJP.v19-3428). Adding that half back is far more stable than
    averaging exp, which the largest run dominates.
    """
    num_runs = log_values.shape[1]
    with np.errstate(invalid="ignore"):  # infinite values have no spread
        variance = log_values.var(axis=1, ddof=1)
        value = log_values.mean(axis=1) + 0.5 * variance
    error = np.sqrt(variance / num_runs + 0.5 * variance**2 / (num_runs - 1))
    unreliable = ~np.isfinite(value) | (variance > LARGEST_SPREAD**2)
    return value, np.where(unreliable, np.inf, student_factor(num_runs) * error)


def lower_bracket(values: Float[np.ndarray, "point run"]) -> Float[np.ndarray, " point"]:
    """Mean of unbiased estimates of a lower bound, less four standard errors; -inf if undefined."""
    mean, error = mean_of_runs(values)
    return np.nan_to_num(mean - SIGMAS_OF_A_BRACKET * error, nan=-np.inf)


def upper_bracket(values: Float[np.ndarray, "point run"]) -> Float[np.ndarray, " point"]:
    """Mean of unbiased estimates of an upper bound, plus four standard errors; 0 at most."""
    mean, error = mean_of_runs(values)
    return np.minimum(np.nan_to_num(mean + SIGMAS_OF_A_BRACKET * error, nan=0.0), 0.0)
