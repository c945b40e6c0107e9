"""Does doubling the moves per negative sample change anything beyond Monte Carlo error?"""

from dataclasses import dataclass

import arviz as az
import numpy as np
from scipy import stats

from inference.checks import Check

FALSE_ALARM_RATE = 1e-3


@dataclass(frozen=True)
class Doubling:
    """Means of functionals with K and with 2 K moves per negative sample.

    Attributes
    ----------
    names : list of str
    mean, mean_doubled : arrays
    z_score : array
        Difference over its Monte Carlo standard error.
    num_moves : int
        K.
    degrees : float
        Of freedom of Student's law, for z-scores whose errors come from few runs.
    of_what : str
        What was doubled.
    """

    names: list[str]
    mean: np.ndarray
    mean_doubled: np.ndarray
    z_score: np.ndarray
    num_moves: int
    degrees: float = np.inf
    of_what: str = "moves per negative sample"

    def appended(self, name: str, mean: float, mean_doubled: float, z_score: float) -> "Doubling":
        """Return this comparison with one more quantity."""
        return Doubling(
            [*self.names, name],
            np.append(self.mean, mean),
            np.append(self.mean_doubled, mean_doubled),
            np.append(self.z_score, z_score),
            self.num_moves,
            self.degrees,
        )

    @property
    def check(self) -> Check:
        """Pass if no functional moved, at a family-wise false-alarm rate of 0.1 %."""
        if not self.names:
            return Check("doubling", True, "no functional varies")
        limit = stats.t.isf(FALSE_ALARM_RATE / 2 / len(self.names), self.degrees)
        worst = int(np.argmax(np.abs(self.z_score)))
        passed = bool(np.all(np.abs(self.z_score) < limit))
        message = (
            f"{self.num_moves} to {2 * self.num_moves} {self.of_what}: largest |z| "
            f"{abs(self.z_score[worst]):.2f} ({self.names[worst]}), below {limit:.2f}"
        )
        return Check("doubling", passed, message)


def compare(
    functionals: dict[str, np.ndarray],
    doubled: dict[str, np.ndarray],
    num_moves: int,
    degrees: float = np.inf,
) -> Doubling:
    """Compare scalar functionals, arrays of shape (chain, draw), of two runs."""
    shared = [n for n in functionals if n in doubled]
    names = [n for n in shared if np.ptp(functionals[n]) > 0 or np.ptp(doubled[n]) > 0]
    pairs = [(_mean_and_error(functionals[n]), _mean_and_error(doubled[n])) for n in names]
    mean = np.array([first[0] for first, _ in pairs])
    mean_doubled = np.array([second[0] for _, second in pairs])
    error = np.array([np.hypot(first[1], second[1]) for first, second in pairs])
    with np.errstate(divide="ignore", invalid="ignore"):
        z_score = np.nan_to_num((mean_doubled - mean) / error, nan=np.inf)
    return Doubling(names, mean, mean_doubled, z_score, num_moves, degrees)


def _mean_and_error(x: np.ndarray) -> tuple[float, float]:
    """Mean, and the larger of the within-chain and the between-chain standard error."""
    within = float(np.asarray(az.mcse(x))) if np.ptp(x) > 0 else 0.0
    between = float(x.mean(axis=1).std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else 0.0
    return float(x.mean()), max(within, between)
