"""How the posterior is estimated: backends, kernels, log normalisers, results."""

from inference.backends.base import Backend, Sampler
from inference.backends.hmc import HMC
from inference.backends.maximum import MaximumAPosteriori
from inference.backends.nested import NestedSampling
from inference.backends.rejection_gibbs import RejectionGibbs
from inference.backends.sgld import SGLD
from inference.backends.smc import TemperedSMC
from inference.checks import Check
from inference.estimate import Estimate
from inference.evidence.bracket import Bracket, bracket_evidence
from inference.infer import infer
from inference.normalizer.along import log_normalizer_along
from inference.normalizer.difference import log_normalizer_difference
from inference.normalizer.log_normalizer import log_normalizer
from inference.normalizer.score import differentiable_log_normalizer
from inference.results.bit_ledger import bit_ledger
from inference.results.run import Result, Run
from inference.running.loop import NonFiniteState

__all__ = [
    "HMC",
    "SGLD",
    "Backend",
    "Bracket",
    "Check",
    "Estimate",
    "MaximumAPosteriori",
    "NestedSampling",
    "NonFiniteState",
    "RejectionGibbs",
    "Result",
    "Run",
    "Sampler",
    "TemperedSMC",
    "bit_ledger",
    "bracket_evidence",
    "differentiable_log_normalizer",
    "infer",
    "log_normalizer",
    "log_normalizer_along",
    "log_normalizer_difference",
]
