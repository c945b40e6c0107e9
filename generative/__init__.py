"""What the model is: stages, agreement, the NumPyro program, networks, problems."""

from generative import problems
from generative.agreement import Agreement, AgreementConditioned
from generative.errors import AgreementNotReached, IntractableNormalizer, InvalidInput
from generative.linear import (
    CentredGaussian,
    GaussianConditional,
    LinearGaussianAgreement,
    LinearResiduals,
)
from generative.model import TwoStageModel
from generative.parameters import ParameterSpace
from generative.program import two_stage
from generative.simulate import Simulation, simulate, simulate_data
from generative.stage import Stage
from generative.stages import GaussianStage, LaplaceStage, StudentTStage

__all__ = [
    "Agreement",
    "AgreementConditioned",
    "AgreementNotReached",
    "CentredGaussian",
    "GaussianConditional",
    "GaussianStage",
    "IntractableNormalizer",
    "InvalidInput",
    "LaplaceStage",
    "LinearGaussianAgreement",
    "LinearResiduals",
    "ParameterSpace",
    "Simulation",
    "Stage",
    "StudentTStage",
    "TwoStageModel",
    "problems",
    "simulate",
    "simulate_data",
    "two_stage",
]
