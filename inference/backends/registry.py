"""The backends by name: read by the command line, the tests of the protocol and the benchmarks."""

from inference.backends.base import Backend
from inference.backends.hmc import HMC
from inference.backends.maximum import MaximumAPosteriori
from inference.backends.nested import NestedSampling
from inference.backends.rejection_gibbs import RejectionGibbs
from inference.backends.sgld import SGLD
from inference.backends.smc import TemperedSMC

# Options have defaults, all of them: a backend is run without arguments, too.
BACKENDS: dict[str, type[Backend]] = {
    "hmc": HMC,
    "sgld": SGLD,
    "nested": NestedSampling,
    "smc": TemperedSMC,
    "map": MaximumAPosteriori,
    "rejection-gibbs": RejectionGibbs,
}
