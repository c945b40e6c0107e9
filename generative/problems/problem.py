"""A named problem: a model, its data inside it, and what is known exactly."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import ArrayLike, Float

from generative.errors import InvalidInput
from generative.model import TwoStageModel

# Dense covariances are for checking only; beyond this dimension they are not worth their memory.
LARGEST_DENSE = 2000


@dataclass(frozen=True)
class Truth:
    """Exact answers; None where unknown.

    Attributes
    ----------
    log_evidence : float
        log p(data), nats.
    mean_1, mean_2 : arrays, shape (d,)
        Posterior means of theta_1 and theta_2.
    cov_1, cov_2 : arrays, shape (d, d)
        Posterior covariances.
    cov_difference : array, shape (d, d)
        Posterior covariance of theta_2 - theta_1, which shows a lag of negative samples first.
    log_normalizer : callable
        log Z(theta_1) in nats, of arrays of shape (..., d).
    bits_saved : float
        Posterior mean of -log2 Z(theta_1), bits.
    """

    log_evidence: float | None = None
    mean_1: Float[np.ndarray, " d"] | None = None
    mean_2: Float[np.ndarray, " d"] | None = None
    cov_1: Float[np.ndarray, "d d"] | None = None
    cov_2: Float[np.ndarray, "d d"] | None = None
    cov_difference: Float[np.ndarray, "d d"] | None = None
    log_normalizer: Callable[[ArrayLike], np.ndarray] | None = None
    bits_saved: float | None = None

    @property
    def known(self) -> list[str]:
        """Names of what is known."""
        return [name for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True)
class Problem:
    """A model with its data, and its truth.

    Attributes
    ----------
    name : str
    model : TwoStageModel
    truth : Truth
    description : str
        One line.
    pictures : dict
        Set of questions to grey levels in [0, 1], shape (question, height, width), to look at.
    """

    name: str
    model: TwoStageModel
    truth: Truth = field(default_factory=Truth)
    description: str = ""
    pictures: dict[str, Float[np.ndarray, "n h w"]] = field(default_factory=dict)


def require_positive(**values: float) -> None:
    """Refuse options that are not positive numbers.

    Raises
    ------
    InvalidInput
    """
    for name, value in values.items():
        if not value > 0:
            raise InvalidInput(name, value, "a number > 0")
