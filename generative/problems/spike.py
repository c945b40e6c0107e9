"""A spike on a slab: a likelihood with a first-order phase transition, and an exact evidence."""

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from generative.errors import InvalidInput
from generative.linear import LinearResiduals
from generative.model import TwoStageModel
from generative.problems.problem import Problem, Truth
from generative.stages import GaussianStage

_STRENGTH = 20.0


def spike_and_slab(
    d: int = 10,
    slab: float = 2.0,
    spike: float = 0.1,
    log_odds: float = 5.0,
    closed_form: bool = False,
) -> Problem:
    """Return exp L = exp(-|t|^2 / (2 slab^2)) + h exp(-|t|^2 / (2 spike^2)).

    The height h gives the spike exp(log_odds) times the slab's evidence. At a lower power of the
    likelihood it holds almost nothing, and beyond a few dimensions no tempered population meets it.

    Parameters
    ----------
    d : int
    slab, spike : float
        Widths; the two-stage prior has a width of about 1.
    log_odds : float
        Nats.
    closed_form : bool
        Whether inference may know log Z.
    """
    if d < 1:
        raise InvalidInput("d", d, "an integer >= 1")
    if not 0 < spike < slab:
        raise InvalidInput("spike", spike, f"a number between 0 and slab = {slab}")
    first = LinearResiduals(np.eye(1, d), np.zeros(1))
    # Prior variance of theta_2 along the constraint, and elsewhere: 1/4 + 1 shrunk by agreement.
    gain = 1 / (1 + 0.25 * _STRENGTH)
    variance = np.full(d, 1.25)
    variance[0] = 0.25 * gain + gain**2
    slab_evidence, spike_evidence = (
        -0.5 * np.sum(np.log1p(variance / width**2)) for width in (slab, spike)
    )
    height = float(log_odds + slab_evidence - spike_evidence)

    model = TwoStageModel(
        jnp.zeros(d),
        GaussianStage(1.0),
        GaussianStage(0.5),
        residuals=first if closed_form else Partial(LinearResiduals.__call__, first),
        agreement_strength=_STRENGTH,
        log_likelihood=Partial(_log_likelihood, slab, spike, height),
    )
    truth = Truth(
        log_evidence=float(np.logaddexp(slab_evidence, slab_evidence + log_odds)),
        mean_1=np.zeros(d),
        mean_2=np.zeros(d),
    )
    return Problem("spike_and_slab", model, truth, "a first-order transition that stops tempering")


def _log_likelihood(slab: float, spike: float, height: float, theta: Array) -> Array:
    square = jnp.sum(theta**2)
    return jnp.logaddexp(-0.5 * square / slab**2, height - 0.5 * square / spike**2)
