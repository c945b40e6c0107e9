"""What the exchange kernels learn in warm-up: surrogates fitted to draws, and steps begun anew."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from generative import LinearGaussianAgreement, TwoStageModel
from inference.gaussians import surrogate as surrogates
from inference.gaussians.first_given_second import FirstGivenSecond
from inference.gaussians.joint import first_variance
from inference.kernels.exchange.learned import NormalizerSurrogate
from inference.kernels.exchange.state import Tuning
from inference.moves import step_size as step_sizes

_NUM_CURVATURE_POINTS = 8
_FIRST_STEP = 0.3  # radians
# A curved metric must buy this much larger steps before it replaces the flat one.
_WORTHWHILE = 1.5


@jax.jit
def untuned(key: jax.Array, model: TwoStageModel, draws: Float[Array, "n d"]) -> Tuning:
    """Return flat metrics and small steps, with a transport fitted to draws of q."""
    potential = surrogates.agreement_potential(model)
    transport = surrogates.fit(key, model, potential, draws, _NUM_CURVATURE_POINTS)
    flat = surrogates.flat(model, surrogates.rank(model))
    steps = (step_sizes.initial(_FIRST_STEP, draws.dtype) for _ in range(4))
    normalizer = NormalizerSurrogate.uncorrected(model, transport)
    first = FirstGivenSecond(model, transport)
    unknown = jnp.asarray(jnp.nan, draws.dtype)
    learned = (normalizer, unknown, jnp.ones((), int))
    return Tuning(first_variance(model), transport, *learned, first, flat, flat, flat, *steps)


@jax.jit
def refitted(
    key: jax.Array,
    model: TwoStageModel,
    draws: dict[str, Float[Array, "n d"]],
    tuning: Tuning,
    previous: Tuning,
    judge: Bool[Array, ""],
) -> Tuning:
    """Refit the surrogates to warm-up draws and restart the adaptation of step sizes.

    A learned normaliser stays.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    draws : dict
        Of theta_2 and of the negative samples.
    tuning : Tuning
    previous : Tuning
        The tuning of a warm-up phase with flat metrics.
    judge : bool array
        Whether the steps of `tuning` were made with curved metrics: each of these must then have
        bought much larger steps than the flat one, or the flat one returns.
    """
    transport, metric_2, likelihood = (
        surrogates.fit(key, model, potential(model), draws[name], _NUM_CURVATURE_POINTS)
        for key, potential, name in zip(
            jax.random.split(key, 3),
            (
                surrogates.agreement_potential,
                surrogates.posterior_potential,
                surrogates.likelihood_potential,
            ),
            ("negative", "theta_2", "theta_2"),
            strict=True,
        )
    )

    def better(name: str, curved: LinearGaussianAgreement) -> LinearGaussianAgreement:
        flat, step = getattr(previous, f"metric_{name}"), f"step_{name}"
        larger = getattr(tuning, step).value > _WORTHWHILE * getattr(previous, step).value
        return jax.tree.map(lambda x, y: jnp.where(~judge | larger, x, y), curved, flat)

    dtype = draws["negative"].dtype
    normalizers = (tuning.normalizer, NormalizerSurrogate.uncorrected(model, transport))
    return Tuning(
        tuning.variance_1,
        transport,
        jax.tree.map(lambda x, y: jnp.where(tuning.normalizer.is_learned, x, y), *normalizers),
        tuning.explained,
        tuning.num_bridges,
        FirstGivenSecond(model, transport),
        better("2", metric_2),
        better("negative", transport),
        likelihood,
        *(
            step_sizes.initial(step.value, dtype)
            for step in (tuning.step_1, tuning.step_2, tuning.step_negative, tuning.step_joint)
        ),
    )
