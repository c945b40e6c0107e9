"""Did it freeze last night? Two heads answer from a gauge that a lamp can fool."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from generative import GaussianStage, TwoStageModel


def logits(theta, x):
    """Both heads' logits: one reads everything, the other only what a human sees."""
    first = theta["intended"]["bias"] + x @ theta["intended"]["weight"]
    second = theta["instrumental"]["bias"] + x[:, 0] * theta["instrumental"]["weight"]
    return jnp.stack([first, second])


def heads(theta, x):
    """Both heads' probabilities of yes, shape (2, question)."""
    return jax.nn.sigmoid(logits(theta, x))


def gauge(num_small: int = 20, num_corrected: int = 4, strength_per_question: float = 20.0):
    """Inputs: the reading, and whether a lamp warmed the gauge by 2 degrees, unseen by humans."""
    rng = np.random.default_rng(0)

    def nights(number, lamp):
        return np.column_stack([rng.normal(size=number) + 2 * lamp, np.full(number, lamp)])

    def froze(x):
        return (x[:, 0] < 2 * x[:, 1]).astype(int)

    small = nights(num_small, lamp=0.0)  # no lamp, the human is right
    large = np.concatenate([small, nights(num_corrected, lamp=1.0)])
    held_out = nights(40, lamp=1.0)

    def residuals(theta):
        """C = |r|^2 / 2: half of the *mean* over questions of the squared difference."""
        first, second = heads(theta, small)
        return (first - second) / np.sqrt(num_small)

    def observation(theta):
        numpyro.sample("answers", dist.Bernoulli(logits=logits(theta, large)[0]))

    return TwoStageModel(
        theta_0={
            "intended": {"bias": jnp.zeros(()), "weight": jnp.zeros(2)},
            "instrumental": {"bias": jnp.zeros(()), "weight": jnp.zeros(())},
        },
        first_stage=GaussianStage(scale=1.0),
        second_stage=GaussianStage(scale={"intended": 2.0, "instrumental": 1.0}),
        residuals=residuals,
        agreement_strength=strength_per_question * num_small,
        observation=observation,
        data={"answers": froze(large)},
        heads=heads,
        questions={"small": small, "held_out": held_out},
        labels={"small": froze(small), "held_out": froze(held_out)},
    )
