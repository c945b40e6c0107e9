"""What the exchange kernels carry from sweep to sweep, and what warm-up learns."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int

from generative import LinearGaussianAgreement
from inference.gaussians.first_given_second import FirstGivenSecond
from inference.kernels.exchange.learned import NormalizerSurrogate
from inference.moves.step_size import StepSize


class Tuning(NamedTuple):
    """What warm-up learns and sampling keeps fixed.

    Attributes
    ----------
    variance_1 : array, shape (d,)
        Of theta_1, by which references of joint moves are made.
    transport : LinearGaussianAgreement
        Surrogate of q(. | theta_1), by which references are made.
    normalizer : NormalizerSurrogate
        Surrogate of log Z: the force, and the map T.
    explained : float array
        Share of the variance of grad log Z that it explains, at least; NaN where nothing was
        learned.
    num_bridges : int array
        Steps in which the ratio of normalisers is estimated.
    reference_1 : FirstGivenSecond
        Reference of moves of theta_1.
    metric_2, metric_negative : LinearGaussianAgreement
        References of moves of theta_2 and of negative samples.
    likelihood : LinearGaussianAgreement
        Surrogate of -L, for joint moves.
    step_1, step_2, step_negative : StepSize
        Angle of moves of theta_1; of one leapfrog step of theta_2, and of negative samples.
    step_joint : StepSize
        Angle of one leapfrog step of a joint move.
    """

    variance_1: Float[Array, " d"]
    transport: LinearGaussianAgreement
    normalizer: NormalizerSurrogate
    explained: Float[Array, ""]
    num_bridges: Int[Array, ""]
    reference_1: FirstGivenSecond
    metric_2: LinearGaussianAgreement
    metric_negative: LinearGaussianAgreement
    likelihood: LinearGaussianAgreement
    step_1: StepSize
    step_2: StepSize
    step_negative: StepSize
    step_joint: StepSize


class ExchangeState(NamedTuple):
    """State of one chain; `z` is the draw, `negative` the current negative sample.

    Attributes
    ----------
    z : dict
        theta_1 and theta_2, each of shape (d,).
    negative : array, shape (d,)
    rng_key : PRNG key
    i, num_warmup, num_moves : int arrays
        Iteration, length of warm-up, and HMC moves per negative sample.
    tuning : Tuning
    acceptance_rate, acceptance_rate_2 : float arrays
        Of the exchange move and of the move of theta_2.
    diverging : bool array
    num_failed : int array
        Negative samples that were not found, so far after warm-up.
    lp, disagreement, log_likelihood, negative_disagreement, disagreement_theta_1 : float arrays
        Log joint without -log Z (nats), C(theta_2), L(theta_2) (nats), C(w), C(theta_1).
    """

    z: dict[str, Float[Array, " d"]]
    negative: Float[Array, " d"]
    rng_key: jax.Array
    i: Int[Array, ""]
    num_warmup: Int[Array, ""]
    num_moves: Int[Array, ""]
    tuning: Tuning
    acceptance_rate: Float[Array, ""]
    acceptance_rate_2: Float[Array, ""]
    diverging: Bool[Array, ""]
    num_failed: Int[Array, ""]
    lp: Float[Array, ""]
    disagreement: Float[Array, ""]
    log_likelihood: Float[Array, ""]
    negative_disagreement: Float[Array, ""]
    disagreement_theta_1: Float[Array, ""]
