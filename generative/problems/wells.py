"""Double wells: one, several behind a rotation, deep ones far apart, and unequal ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float

from generative.errors import InvalidInput
from generative.model import TwoStageModel
from generative.problems.problem import Problem, require_positive
from generative.problems.separable import Coordinate, separable_truth
from generative.stages import GaussianStage
from generative.values import as_jax

Form = Literal["residuals", "disagreement"]


@dataclass(frozen=True)
class _Wells:
    """What the coordinates share: C(t) = (t^2 - 1)^2 / 4 + tilt (1 - tanh 4t), and one observation.

    Attributes
    ----------
    agreement_strength : float
        lambda, nats per unit of C.
    first_scale, second_scale : float
    theta_0 : float
    width : float
        L(t) = -(observed - t)^2 / (2 width^2), nats.
    is_density : bool
        Whether L also has the constant that makes exp L a density of what was observed.
    tilt : float
        The left-hand well costs 2 lambda tilt nats more than the right-hand one.
    """

    agreement_strength: float = 3.0
    first_scale: float = 1.0
    second_scale: float = 1.0
    theta_0: float = 0.2
    width: float = 0.5
    is_density: bool = True
    tilt: float = 0.0

    def __post_init__(self) -> None:
        require_positive(
            agreement_strength=self.agreement_strength,
            first_scale=self.first_scale,
            second_scale=self.second_scale,
            width=self.width,
        )
        if not self.tilt >= 0:
            raise InvalidInput("tilt", self.tilt, "a number >= 0")

    @property
    def narrowest(self) -> float:
        """Standard deviation of the narrowest feature, for quadrature."""
        well = (2 * self.agreement_strength + self.width**-2) ** -0.5  # C'' = 2 in a well
        # 1 / Z has poles pi s2^2 / 2 off the real line, where the shares of both wells cancel.
        return min(well, self.first_scale, self.second_scale, self.second_scale**2)

    def disagreement(self, t: Any, xp: Any) -> Any:
        """C of each coordinate by itself, of an array of the array module `xp`."""
        wells = (t**2 - 1) ** 2 / 4
        return wells + self.tilt * (1 - xp.tanh(4 * t)) if self.tilt else wells

    def log_likelihood(self, t: Any, observed: ArrayLike) -> Any:
        """L of each coordinate by itself, nats."""
        constant = np.log(self.width * np.sqrt(2 * np.pi)) if self.is_density else 0.0
        return -0.5 * (observed - t) ** 2 / self.width**2 - constant

    def coordinate(self, observed: float) -> Coordinate:
        """Return one coordinate, for quadrature."""
        return Coordinate(
            penalty=lambda t: self.agreement_strength * self.disagreement(t, np),
            log_likelihood=lambda t: self.log_likelihood(t, observed),
            first_scale=self.first_scale,
            second_scale=self.second_scale,
            theta_0=self.theta_0,
            narrowest=self.narrowest,
        )

    def problem(
        self,
        name: str,
        description: str,
        observed: Sequence[float] | np.ndarray,
        form: Form = "disagreement",
        rotation: Float[np.ndarray, "d d"] | None = None,
    ) -> Problem:
        """Return a problem with one coordinate per observation."""
        different = {float(y): self.coordinate(float(y)) for y in observed}
        truth = separable_truth([different[float(y)] for y in observed], rotation)
        model = self.model(np.asarray(observed, float), form, rotation)
        return Problem(name, model, truth, description)

    def model(
        self,
        observed: Float[np.ndarray, " d"],
        form: Form,
        rotation: Float[np.ndarray, "d d"] | None,
    ) -> TwoStageModel:
        """Return the model; inference is given residuals (t^2 - 1) / sqrt 2, or C alone."""
        if form not in ("residuals", "disagreement"):
            raise InvalidInput("form", form, "residuals or disagreement")
        turn = np.eye(len(observed)) if rotation is None else rotation

        turned = None if rotation is None else as_jax(turn)
        is_known = form == "residuals"
        return TwoStageModel(
            theta_0=as_jax(turn.T @ np.full(len(observed), self.theta_0)),
            first_stage=GaussianStage(self.first_scale),
            second_stage=GaussianStage(self.second_scale),
            agreement_strength=self.agreement_strength,
            log_likelihood=Partial(_log_likelihood, self, turned, as_jax(observed)),
            disagreement=None if is_known else Partial(_disagreement, self, turned),
            residuals=Partial(_residuals, turned) if is_known else None,
        )


def _along(turn: Array | None, theta: Array) -> Array:
    return theta if turn is None else turn @ theta


def _residuals(turn: Array | None, theta: Array) -> Array:
    return (_along(turn, theta) ** 2 - 1) / jnp.sqrt(2.0)


def _disagreement(wells: _Wells, turn: Array | None, theta: Array) -> Array:
    return jnp.sum(wells.disagreement(_along(turn, theta), jnp))


def _log_likelihood(wells: _Wells, turn: Array | None, observed: Array, theta: Array) -> Array:
    return jnp.sum(wells.log_likelihood(_along(turn, theta), observed))


def double_well(form: Form = "disagreement") -> Problem:
    """C = (t^2 - 1)^2 / 4 with one noisy observation of theta_2.

    Parameters
    ----------
    form : {"residuals", "disagreement"}
        What inference is given: r = (t^2 - 1) / sqrt 2, or C alone.
    """
    return _Wells().problem(
        "double_well", "a double well in one dimension; quadrature", [0.8], form
    )


def rotated_wells(d: int = 5, form: Form = "residuals", seed: int = 0) -> Problem:
    """Return d double wells along the axes of a random rotation: C is the sum over the wells.

    Parameters
    ----------
    d : int
    form : {"residuals", "disagreement"}
    seed : int
        Of the rotation and of the observations, one per well.
    """
    _require_dimension(d)
    rng = np.random.default_rng(seed)
    rotation = random_rotation(rng, d)
    observed = rng.choice([-1.0, 1.0], size=d) * rng.uniform(0.4, 1.2, size=d)
    description = "d double wells behind a rotation; 1-d quadratures"
    return _Wells().problem("rotated_wells", description, observed, form, rotation)


def separate_wells(
    d: int = 8,
    form: Form = "disagreement",
    agreement_strength: float = 200.0,
    first_scale: float = 0.4,
    second_scale: float = 0.5,
    theta_0: float = -1.1,
    observed: float = 1.0,
    width: float = 0.005**0.5,
    rotated: bool = False,
    seed: int = 0,
) -> Problem:
    """Return d deep double wells; theta_0 lies in the left-hand ones, the data in the right-hand.

    The posterior of theta_1 lies in between, where theta_2 given agreement is in either well: a
    negative sample that stays in one well gives a wrong posterior which looks right.

    Parameters
    ----------
    d : int
    form : {"residuals", "disagreement"}
        What inference is given: r = (t^2 - 1) / sqrt 2, or C = sum of (t^2 - 1)^2 / 4 alone.
    agreement_strength : float
        lambda, nats per unit of C.
    first_scale, second_scale : float
    theta_0 : float
        Of every coordinate.
    observed, width : float
        L = -sum of (observed - t)^2 / (2 width^2), nats: a bare log likelihood.
    rotated : bool
        Whether the wells lie along the axes of a random rotation.
    seed : int
        Of the rotation.
    """
    _require_dimension(d)
    wells = _Wells(agreement_strength, first_scale, second_scale, theta_0, width, False)
    rotation = random_rotation(np.random.default_rng(seed), d) if rotated else None
    description = "d deep wells, with data in the far ones; 1-d quadratures"
    return wells.problem("separate_wells", description, np.full(d, observed), form, rotation)


def tilted_wells(
    d: int = 4,
    agreement_strength: float = 60.0,
    tilt: float = 1 / 60,
    first_scale: float = 1.0,
    second_scale: float = 1.0,
    theta_0: float = 0.0,
    observed: float = -1.0,
    width: float = 2**0.5,
    rotated: bool = False,
    seed: int = 0,
) -> Problem:
    """Return d double wells of unequal mass: C = sum of (t^2 - 1)^2 / 4 + tilt (1 - tanh 4t).

    At theta_0 the left-hand well, which the data prefer, has a share of 0.12: an estimate is right
    only if draws given agreement visit both wells in proportion.

    Parameters
    ----------
    d : int
    agreement_strength : float
        lambda, nats per unit of C.
    tilt : float
        The left-hand well costs 2 lambda tilt nats more than the right-hand one.
    first_scale, second_scale : float
    theta_0 : float
        Of every coordinate.
    observed, width : float
        L = -sum of (observed - t)^2 / (2 width^2), nats: a bare log likelihood.
    rotated : bool
        Whether the wells lie along the axes of a random rotation.
    seed : int
        Of the rotation.
    """
    _require_dimension(d)
    wells = _Wells(agreement_strength, first_scale, second_scale, theta_0, width, False, tilt)
    rotation = random_rotation(np.random.default_rng(seed), d) if rotated else None
    description = "d double wells of unequal mass; 1-d quadratures"
    observations = np.full(d, observed)
    return wells.problem("tilted_wells", description, observations, rotation=rotation)


def _require_dimension(d: int) -> None:
    if d < 1:
        raise InvalidInput("d", d, "an integer >= 1")


def random_rotation(rng: np.random.Generator, d: int) -> Float[np.ndarray, "d d"]:
    """Return a random orthogonal matrix, whose rows are the wells' axes."""
    return np.linalg.qr(rng.normal(size=(d, d)))[0]
