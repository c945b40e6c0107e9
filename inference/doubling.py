"""Does doubling the moves per negative sample change anything beyond Monte Carlo error?"""

from dataclasses import dataclass, replace

import numpy as np

from inference.checks import Check, check_no_shift, mean_and_error, z_score


@dataclass(frozen=True)
class Doubling:
    """Means of functionals with K and with 2 K moves per negative sample.

    Attributes
    ----------
    names : list of str
    mean, mean_doubled : arrays
    standard_error : array
        Of their difference.
    spread : array
        Standard deviation of each functional, the unit of the check's power.
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
    standard_error: np.ndarray
    spread: np.ndarray
    num_moves: int
    degrees: float = np.inf
    of_what: str = "moves per negative sample"

    @property
    def z_score(self) -> np.ndarray:
        """Differences over their Monte Carlo standard errors."""
        difference = self.mean_doubled - self.mean
        return np.array(
            [z_score(*pair) for pair in zip(difference, self.standard_error, strict=True)]
        )

    @property
    def check(self) -> Check:
        """Pass if no functional moved, at a family-wise false-alarm rate of 0.1 %."""
        difference = self.mean_doubled - self.mean
        columns = zip(difference, self.standard_error, self.spread, strict=True)
        quantities = dict(zip(self.names, columns, strict=True))
        what = f"{self.num_moves} to {2 * self.num_moves} {self.of_what}"
        return check_no_shift("doubling", quantities, what, self.degrees)

    def of(self, what: str) -> "Doubling":
        """Return this comparison with another name of what was doubled."""
        return replace(self, of_what=what)


def compare(
    functionals: dict[str, np.ndarray],
    doubled: dict[str, np.ndarray],
    num_moves: int,
    degrees: float = np.inf,
) -> Doubling:
    """Compare scalar functionals, arrays of shape (chain, draw), of two runs."""
    shared = [n for n in functionals if n in doubled]
    names = [n for n in shared if np.ptp(functionals[n]) > 0 or np.ptp(doubled[n]) > 0]
    pairs = [(mean_and_error(functionals[n]), mean_and_error(doubled[n])) for n in names]
    return Doubling(
        names,
        np.array([first[0] for first, _ in pairs]),
        np.array([second[0] for _, second in pairs]),
        np.array([np.hypot(first[1], second[1]) for first, second in pairs]),
        np.array([doubled[n].std() for n in names]),
        num_moves,
        degrees,
    )
