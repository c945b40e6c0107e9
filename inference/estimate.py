"""An estimate and how sure it is."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inference.checks import Check


@dataclass(frozen=True)
class Estimate:
    """A number in nats with its standard error.

    Attributes
    ----------
    value : float or array
        Nats; an array for a batch.
    standard_error : float or array
        Nats; infinite where the method cannot tell.
    lower, upper : float, array or None
        Brackets, nats, not intervals; widened by four standard errors where known by sampling.
    method : str
    num_evaluations : int
        Evaluations of C and of its gradient; 0 for a closed form.
    note : str
        What the reader should know about this estimate; usually empty.

    Examples
    --------
    >>> estimate = Estimate(-1.386, 0.02, method="importance")
    >>> print(estimate)
    -1.386 +- 0.020 nats (-2.000 bits; importance)
    """

    value: float | np.ndarray
    standard_error: float | np.ndarray
    lower: float | np.ndarray | None = None
    upper: float | np.ndarray | None = None
    method: str = ""
    num_evaluations: int = 0
    note: str = ""

    @property
    def bits(self) -> float | np.ndarray:
        """The value in bits."""
        return self.value / np.log(2)

    @property
    def bits_error(self) -> float | np.ndarray:
        """The standard error in bits."""
        return self.standard_error / np.log(2)

    @classmethod
    def of_no_data(cls) -> "Estimate":
        """Log p(data) where there is no data: exactly 0, whatever C is."""
        return cls(0.0, 0.0, 0.0, 0.0, "null_data", note="log evidence: 0, as there is no data")

    def __str__(self) -> str:
        """Return the value with its error, in nats and bits, and the method."""
        return (
            f"{self.value:.3f} +- {self.standard_error:.3f} nats "
            f"({self.bits:.3f} bits; {self.method})"
        )


class Evidence(NamedTuple):
    """What is known of log p(data) beside draws.

    Attributes
    ----------
    estimate : Estimate or None
        Nats.
    how : str
        How it was estimated, or why not.
    checks : tuple of Check
        Of the draws, by what estimated it.
    """

    estimate: Estimate | None
    how: str
    checks: tuple[Check, ...] = ()
