"""Was last night frosty, mild or warm? As gauge.py, with three answers to a question."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from generative import GaussianStage, TwoStageModel


def logits(theta, x):
    """Both heads' logits, shape (2, question, class)."""
    first = theta["intended"]["bias"] + x @ theta["intended"]["weight"]
    second = theta["instrumental"]["bias"] + x[:, :1] * theta["instrumental"]["weight"]
    return jnp.stack([first, second])


def heads(theta, x):
    """Both heads' probabilities of the classes, shape (2, question, class)."""
    return jax.nn.softmax(logits(theta, x))


def right(theta, questions):
    """Both heads' probabilities of the true class, shape (2, question)."""
    x, truth = questions
    return jnp.take_along_axis(heads(theta, x), truth[None, :, None], axis=2)[..., 0]


def three_classes(one_number: bool = False, strength_per_question: float = 20.0):
    """Inputs: the reading, and whether a lamp warmed the gauge by 2 degrees, unseen by humans."""
    rng = np.random.default_rng(0)

    def nights(number, lamp):
        x = np.column_stack([rng.normal(size=number) + 2 * lamp, np.full(number, lamp)])
        return x, np.digitize(x[:, 0] - 2 * x[:, 1], [-0.5, 0.5])

    small, large = nights(20, lamp=0.0), nights(4, lamp=1.0)
    large = tuple(np.concatenate(pair) for pair in zip(small, large, strict=True))
    held_out = nights(40, lamp=1.0)

    def residuals(theta):
        """C = |r|^2 / 2: the *mean* over questions of the squared Hellinger distance."""
        first, second = jnp.exp(0.5 * jax.nn.log_softmax(logits(theta, small[0])))
        return (first - second).ravel() / np.sqrt(len(small[0]))

    def observation(theta):
        numpyro.sample("answers", dist.Categorical(logits=logits(theta, large[0])[0]))

    shown = {
        "heads": heads,
        "questions": {"held_out": held_out[0]},
        "columns": {"held_out": {"truth": held_out[1]}},
    }
    if one_number:
        shown = {
            "heads": right,
            "questions": {"held_out": held_out},
            "labels": {"held_out": np.ones(len(held_out[1]), int)},
        }
    return TwoStageModel(
        theta_0={
            "intended": {"bias": jnp.zeros(3), "weight": jnp.zeros((2, 3))},
            "instrumental": {"bias": jnp.zeros(3), "weight": jnp.zeros(3)},
        },
        first_stage=GaussianStage(scale=1.0),
        second_stage=GaussianStage(scale={"intended": 2.0, "instrumental": 1.0}),
        residuals=residuals,
        agreement_strength=strength_per_question * len(small[0]),
        observation=observation,
        data={"answers": large[1]},
        **shown,
    )
