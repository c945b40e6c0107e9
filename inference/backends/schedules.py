"""Step-size schedules of Langevin dynamics: factors of the step that warm-up found."""

from abc import abstractmethod

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from pydantic import BaseModel, ConfigDict, Field


class Schedule(BaseModel):
    """Abstract: a factor of the step size, by the number of steps since warm-up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the factor, dimensionless."""


class Constant(Schedule):
    """The step stays as it is, and so does its bias."""

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return 1."""
        return jnp.ones(())


class Polynomial(Schedule):
    """(1 + step / offset)^-power: the bias dies out, and so, slowly, does the movement.

    M. Welling and Y. W. Teh, ICML 2011. Late draws then move less than early ones.

    Parameters
    ----------
    offset : float
        Steps.
    power : float
        Averages of draws converge fastest with 1/3 (Y. W. Teh, A. H. Thiery and S. J. Vollmer,
        JMLR 17(7), 2016); the classical conditions ask for more than 1/2.
    """

    offset: float = Field(1000.0, gt=0)
    power: float = Field(1 / 3, gt=0, le=1)

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the factor at a step."""
        return (1 + step / self.offset) ** -self.power


class Cyclical(Schedule):
    """Half a cosine per period, from 1 to `lowest`: large steps explore, small ones sample.

    R. Zhang, C. Li, J. Zhang, C. Chen and A. G. Wilson, ICLR 2020, arXiv:1902.03932.

    Parameters
    ----------
    period : int
        Steps.
    lowest : float
        Factor at the end of a period.
    """

    period: int = Field(2000, ge=2)
    lowest: float = Field(0.05, gt=0, le=1)

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the factor at a step."""
        return optax.cosine_decay_schedule(1.0, self.period - 1, self.lowest)(step % self.period)
