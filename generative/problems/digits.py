"""A two-headed network on real images, with a labeller who errs systematically."""

from typing import Literal

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array

from generative import networks
from generative.labelling import split_cases
from generative.model import TwoStageModel
from generative.problems.problem import Problem
from generative.stages import GaussianStage, LaplaceStage
from generative.worlds import digits as world


def digits(
    num_small: int = 50,
    corrected_fraction: float = 0.1,
    num_held_out: int = 60,
    scene: int = 4,
    human: int = 2,
    hidden: int = 3,
    setting: Literal["uniform", "split"] = "uniform",
    stage: Literal["gaussian", "laplace"] = "gaussian",
    first_scale: float = 0.5,
    second_scale: float = 2.0,
    strength_per_question: float = 10.0,
    seed: int = 0,
) -> Problem:
    """Return "is this a 3?" for images of 3, 5 and 8; the labeller sees the right half only.

    Parameters
    ----------
    num_small : int
        Size of the small set, where the labeller is right; it defines C, the mean over the set of
        the squared Hellinger distance between the heads' answers.
    corrected_fraction : float
        Cases where the labeller errs, with true labels, relative to the small set; together they
        are the large set, which defines L.
    num_held_out : int
        Held-out cases of either kind, at most.
    scene, human, hidden : int
        Sizes of the world model's scene and human part and of the intended head.
    setting : {"uniform", "split"}
    stage : {"gaussian", "laplace"}
    first_scale, second_scale : float
        Standard deviation of both stages for a parameter with one input.
    strength_per_question : float
        lambda / num_small, nats per unit of squared Hellinger distance in one question.
    seed : int
        Of the split into data sets.
    """
    sets = split_cases(world.cases(), num_small, corrected_fraction, num_held_out, seed)
    small = jnp.asarray(sets.small.inputs)
    large = jnp.asarray(sets.large.inputs)
    network = networks.TwoHeadedNetwork.zeros(small.shape[1], scene, human, hidden)
    scales = networks.stage_scales(network, first_scale, second_scale, setting)
    if stage == "laplace":
        # Equal variance: a Laplace scale is its standard deviation over sqrt(2).
        stages = [LaplaceStage(networks.rescale(s, 0.5**0.5)) for s in scales]
    else:
        stages = [GaussianStage(s) for s in scales]

    def observation(theta: networks.TwoHeadedNetwork, inputs: Array) -> None:
        first = networks.logits(theta, inputs)[0]
        numpyro.sample("answers", dist.Bernoulli(logits=first))

    model = TwoStageModel(
        theta_0=network,
        first_stage=stages[0],
        second_stage=stages[1],
        residuals=lambda theta: networks.hellinger_residuals(theta, small),
        agreement_strength=strength_per_question * num_small,
        observation=observation,
        data={"answers": sets.large.alice_label},
        inputs=large,
        heads=networks.heads,
        questions={
            "small": small,
            "large": large,
            "held_out_right": jnp.asarray(sets.held_out_right.inputs),
            "held_out_wrong": jnp.asarray(sets.held_out_wrong.inputs),
        },
        labels={
            "small": sets.small.alice_label,
            "large": sets.large.alice_label,
            "held_out_right": sets.held_out_right.alice_label,
            "held_out_wrong": sets.held_out_wrong.alice_label,
        },
    )
    return Problem(
        "digits",
        model,
        description="a two-headed network on images of 3, 5 and 8",
        pictures={name: world.pictures(inputs) for name, inputs in model.questions.items()},
    )
