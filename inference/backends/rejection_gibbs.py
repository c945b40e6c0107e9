"""Rejection Gibbs: the slow, exact reference."""

import jax
import numpy as np
from jax.tree_util import Partial
from pydantic import Field

from generative import TwoStageModel
from inference.backends.base import ChainMethod, Sampler, place
from inference.checks import Check, check_divergences
from inference.estimate import Evidence
from inference.evidence.beside_chains import evidence_beside_any
from inference.kernels.exchange.lag import MOST
from inference.kernels.rejection_gibbs import RejectionGibbsKernel, RejectionGibbsState
from inference.moves.chain_kernel import start, sweeps
from inference.results.draws import Draws
from inference.running.loop import Loop
from inference.running.progress import SILENT, Monitor

_MAX_CAP_RATE = 1e-3


class RejectionGibbs(Sampler):
    """Exact chains for any C, at a cost of 1 / Z(theta_1) a sweep.

    Parameters
    ----------
    num_warmup, num_draws : int
        Sweeps of warm-up, and draws that are kept, per chain.
    num_chains : int
    thinning : int
        Sweeps per draw.
    cap : int
        Proposals per sweep, at most. A run whose sweeps hit it at a rate above 0.1 % ends as
        `budget_exhausted`: silently rejecting them would target another posterior.
    max_num_steps : int
        Leapfrog steps of one move of theta_2, at most.
    evidence_particles : int
        Per run of the tempered SMC (eight runs) that estimates the log evidence beside the
        chains, with which these must agree; up to 2000 parameters. 0 skips it.
    chain_method : {"vectorized", "sequential", "sharded"}
    """

    num_warmup: int = Field(500, ge=0)
    num_draws: int = Field(2000, ge=4)
    num_chains: int = Field(4, ge=1)
    thinning: int = Field(1, ge=1)
    cap: int = Field(2000, ge=1)
    max_num_steps: int = Field(32, ge=1)
    evidence_particles: int = Field(64, ge=0)
    chain_method: ChainMethod = "vectorized"

    def draw(self, model: TwoStageModel, key: jax.Array, monitor: Monitor = SILENT) -> Draws:
        """Draw from the posterior; see :func:`inference.infer`."""
        kernel = RejectionGibbsKernel(model, self.cap, self.max_num_steps)
        iterations = -(-self.num_warmup // self.thinning)
        keys = jax.random.split(key, self.num_chains)
        state = start(kernel, keys, iterations * self.thinning)
        step, state = place(sweeps(kernel), state, self.chain_method, self.num_chains)
        loop = Loop(step, Partial(_collect), self.thinning, monitor, kernel.get_diagnostics_str)
        state, _ = loop.run(state, iterations, "warm-up")
        state, values = loop.run(state, self.num_draws, "draws")
        rate = float(np.max(np.asarray(state.num_capped))) / (self.num_draws * self.thinning)
        check = Check(
            "cap",
            rate <= _MAX_CAP_RATE,
            f"{rate:.2%} of a chain's sweeps hit the cap of {self.cap} proposals, at most "
            f"{_MAX_CAP_RATE:.1%}; where Z(theta_1) is small rejection cannot work: use HMC",
        )
        return Draws(
            values,
            (check_divergences(values["diverging"]), check),
            notes=(f"mean number of proposals per sweep: {values['num_tries'].mean():.1f}",),
            tuning={"step_theta_2": np.asarray(state.step_2.value).tolist()},
            exhausted=not check.passed,
            seconds=loop.seconds,
        )

    def log_evidence(
        self, model: TwoStageModel, draws: Draws, key: jax.Array, monitor: Monitor = SILENT
    ) -> Evidence:
        """Estimate log p(data) by tempered SMC; see :meth:`Sampler.log_evidence`."""
        if draws.exhausted:
            return Evidence(None, "log evidence: not estimated, since sweeps hit the cap")
        effort = (self.evidence_particles, MOST, monitor)
        return evidence_beside_any(model, draws.values, key, *effort)


def _collect(state: RejectionGibbsState) -> dict[str, jax.Array]:
    return state.z | {
        "lp": state.lp,
        "disagreement": state.disagreement,
        "disagreement_theta_1": state.disagreement_theta_1,
        "log_likelihood": state.log_likelihood,
        "acceptance_rate": state.acceptance_rate,
        "diverging": state.diverging,
        "step_size": state.step_2.value,
        "num_tries": state.num_tries,
    }
