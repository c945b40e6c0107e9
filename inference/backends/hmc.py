"""Hamiltonian Monte Carlo: NUTS where log Z is known, transported exchange where it is not."""

from dataclasses import replace
from typing import Any, Literal

import jax
import numpy as np
from jax.tree_util import Partial
from pydantic import Field

from generative import TwoStageModel
from inference import prng
from inference.annealing.certificate import check_fresh
from inference.backends.base import ChainMethod, Sampler, place
from inference.backends.exchange_warmup import warm_up
from inference.checks import Check, check_divergences
from inference.doubling import compare
from inference.estimate import Evidence
from inference.evidence.beside_chains import NOT_ASKED_FOR, evidence_beside
from inference.evidence.population import Recipe
from inference.evidence.prior import MOVES_TO_FORGET
from inference.functionals import functionals
from inference.kernels.exchange.hmc import ExchangeHMC
from inference.kernels.exchange.kernel import ExchangeKernel
from inference.kernels.exchange.lag import MOST
from inference.kernels.exchange.state import ExchangeState
from inference.kernels.exchange.transported import TransportedExchange
from inference.kernels.negative import NegativeSampler, RejectionNegative
from inference.kernels.negative_choice import NegativeChoice, choose, without_rejection
from inference.kernels.nuts import nuts_program
from inference.moves.chain_kernel import start, sweeps
from inference.results.draws import Draws
from inference.running.loop import Loop
from inference.running.progress import SILENT, Monitor

_MAX_FAILURE_RATE = 1e-3
# Moves per persistent negative sample, until warm-up has measured how many it takes.
_FIRST_MOVES = 4


class HMC(Sampler):
    """Markov chains by Hamiltonian Monte Carlo.

    Where log Z(theta_1) has a closed form this is NUTS on the program `two_stage`. Elsewhere
    theta_2 moves by HMC, which needs no Z, and theta_1 by an exchange move whose negative samples
    make the unknown Z cancel: exactly where they are drawn by rejection, else with the evidence
    that doubling the moves per sample changes nothing.

    Parameters
    ----------
    num_warmup, num_draws : int
        Sweeps of warm-up, and draws that are kept, per chain.
    num_chains : int
    thinning : int
        Sweeps per draw.
    kernel : {"auto", "nuts", "exchange", "joint"}
        `auto` takes NUTS where log Z has a closed form, else `joint`: a move of theta_2, then one
        trajectory of both, which draws almost independently where C and L are close to
        quadratic. `exchange` moves theta_2 and theta_1 in turn; its sweeps are cheaper.
    negative : {"auto", "rejection", "persistent", "library", "annealed"}
        `auto` takes rejection where a pilot finds it affordable, then persistent samples where
        these cross basins, then those that a library of draws takes from basin to basin
        (`library`, in few dimensions), and else conditional SMC, at about ten times the cost.
    num_moves : int, optional
        HMC moves per persistent negative sample. By default warm-up measures how many leave a
        hundredth of the correlation with where the sample was.
    rejection_cap : int
        Proposals per negative sample, at most.
    max_num_steps : int
        Leapfrog steps per trajectory, at most.
    target_acceptance : float
        Of the exchange move; warm-up shortens trajectories until it is reached. Where sweeps then
        make little progress, and moves of negative samples are cheap, the ratio is bridged and its
        force learned.
    max_doublings : int
        With persistent negative samples the draws are repeated with twice the moves per sample,
        so many times at most, until that changes nothing beyond Monte Carlo error; the last ones
        are kept. 0 skips this check, and the run ends as `unverified`.
    num_fresh : int
        Persistent negative samples at so many draws are compared with freshly annealed ones. 0
        skips this check, and the run ends as `unverified`.
    evidence_particles : int
        Per run of the tempered SMC (eight runs) that estimates the log evidence beside the
        chains, with which these must agree; 0 skips it.
    chain_method : {"vectorized", "sequential", "sharded"}
    """

    num_warmup: int = Field(800, ge=0)
    num_draws: int = Field(1000, ge=4)
    num_chains: int = Field(4, ge=1)
    thinning: int = Field(1, ge=1)
    kernel: Literal["auto", "nuts", "exchange", "joint"] = "auto"
    negative: NegativeChoice = "auto"
    num_moves: int | None = Field(None, ge=1)
    rejection_cap: int = Field(100_000, ge=1)
    max_num_steps: int = Field(32, ge=1)
    target_acceptance: float = Field(0.5, gt=0, lt=1)
    max_doublings: int = Field(3, ge=0, le=8)
    num_fresh: int = Field(128, ge=0)
    evidence_particles: int = Field(64, ge=0)
    chain_method: ChainMethod = "vectorized"

    def draw(self, model: TwoStageModel, key: jax.Array, monitor: Monitor = SILENT) -> Draws:
        """Draw from the posterior; see :func:`inference.infer`."""
        if self.kernel == "nuts" or (self.kernel == "auto" and model.agreement.is_tractable):
            return self._draw_nuts(model, key, monitor)
        sampler, note = choose(model, *self._settings(MOST), for_chains=True)
        draws = self._draw_exchange(model, sampler, key, monitor)
        failed = draws.exhausted and isinstance(sampler, RejectionNegative)
        if failed and self.negative == "auto":
            # The posterior prefers small Z, which the pilot under the prior may not have seen.
            why = "rejection hit its cap in the posterior"
            moves = self.num_moves or MOST
            sampler, note = without_rejection(model, self.max_num_steps, moves, why)
            draws = self._draw_exchange(model, sampler, key, monitor)
        notes = [note]
        if "num_moves" in draws.tuning:
            notes.append(f"{draws.tuning['num_moves']} HMC moves per negative sample")
        if "explained" in draws.tuning:
            notes.append(
                f"the exchange ratio is bridged in {draws.tuning['num_bridges']} steps, with a "
                "learned normaliser that explains at least "
                f"{draws.tuning['explained']:.2f} of the score's variance"
            )
        return replace(draws, negative=sampler).also(notes=notes)

    def log_evidence(
        self, model: TwoStageModel, draws: Draws, key: jax.Array, monitor: Monitor = SILENT
    ) -> Evidence:
        """Estimate log p(data) by tempered SMC; see :meth:`Sampler.log_evidence`."""
        if self.evidence_particles == 0:
            return NOT_ASKED_FOR
        sampler, num_moves = draws.negative, draws.tuning.get("num_moves", self.num_moves)
        if sampler is None or sampler.is_exact:  # what a few chains afford, a population may not
            sampler, _ = choose(model, *self._settings(MOVES_TO_FORGET))
            num_moves = self.num_moves
        if draws.doubling is not None and draws.doubling.check.passed:
            num_moves = draws.doubling.num_moves  # half as many, which gave the same draws
        recipe = Recipe(model, sampler, self.max_num_steps)
        effort = (self.evidence_particles, num_moves, monitor)
        return evidence_beside(recipe, draws.values, key, *effort)

    def _settings(self, moves: int) -> tuple[NegativeChoice, int, int, int]:
        """What the choice of negative samples depends on; in so many moves, or those given."""
        moves = self.num_moves or moves
        return self.negative, self.rejection_cap, self.max_num_steps, moves

    def _draw_nuts(self, model: TwoStageModel, key: jax.Array, monitor: Monitor) -> Draws:
        if model.is_null:
            # Without data the program's sites would be parameters to NUTS.
            model = model.replace(observation=None)
        program = nuts_program(model, self.num_warmup, self.num_chains)
        state = program.start(model, jax.random.split(key, self.num_chains))
        step, state = place(program.step(model), state, self.chain_method, self.num_chains)
        loop = Loop(step, program.collect(model), self.thinning, monitor)
        state, _ = loop.run(state, -(-self.num_warmup // self.thinning), "warm-up")
        state, values = loop.run(state, self.num_draws, "draws")
        return Draws(
            values,
            (check_divergences(values["diverging"]),),
            notes=("log Z(theta_1) has a closed form: NUTS on the program itself",),
            tuning={"kernel": "nuts", "step_size": values["step_size"][:, -1].tolist()},
            seconds=loop.seconds,
        )

    def _draw_exchange(
        self, model: TwoStageModel, sampler: NegativeSampler, key: jax.Array, monitor: Monitor
    ) -> Draws:
        kernel_class = TransportedExchange if self.kernel == "exchange" else ExchangeHMC
        kernel = kernel_class(
            model,
            sampler,
            num_moves=sampler.whole(self.num_moves or _FIRST_MOVES),
            max_num_steps=self.max_num_steps,
            target_acceptance=self.target_acceptance,
        )
        key_start, key_moves, key_fresh = prng.split(key, 3)
        keys = jax.random.split(key_start, self.num_chains)
        state = start(kernel, keys, 0)
        state = place(sweeps(kernel), state, self.chain_method, self.num_chains)[1]

        def loop_of(kernel: ExchangeKernel) -> Loop:
            step, _ = place(sweeps(kernel), state, self.chain_method, self.num_chains)
            collect = Partial(collect_exchange, model)
            return Loop(step, collect, self.thinning, monitor, kernel.get_diagnostics_str)

        length, choose_moves = self.num_warmup, self.num_moves is None
        kernel, loop, state = warm_up(kernel, loop_of, state, key_moves, length, choose_moves)
        state, values = loop.run(state, self.num_draws, "draws")
        num_failed = int(np.max(np.asarray(state.num_failed)))
        rate = num_failed / (self.num_draws * self.thinning)
        checks = (
            check_divergences(values["diverging"]),
            Check(
                "negative_samples",
                rate <= _MAX_FAILURE_RATE,
                f"{num_failed} rejection caps hit in a chain, rate at most {_MAX_FAILURE_RATE}; "
                "raise rejection_cap or use negative=persistent",
            ),
        )
        draws = Draws(
            values,
            checks,
            tuning=_record(kernel, state),
            exhausted=not checks[1].passed,
            seconds=loop.seconds,
        )
        return draws if sampler.is_exact else self._verified(model, loop, state, draws, key_fresh)

    def _verified(
        self, model: TwoStageModel, loop: Loop, state: ExchangeState, draws: Draws, key: jax.Array
    ) -> Draws:
        """Check negative samples that are not exact: by doubling, and against fresh ones."""
        if self.max_doublings:
            draws = self._doubled(model, loop, state, draws)
        else:
            draws = draws.also(unverified=["doubling (max_doublings = 0)"])
        if self.num_fresh == 0:
            return draws.also(unverified=["fresh negatives (num_fresh = 0)"])
        pair = (draws.values["theta_1"], draws.values["negative"])
        return draws.also([check_fresh(model, key, *pair, self.num_fresh)])

    def _doubled(
        self, model: TwoStageModel, loop: Loop, state: ExchangeState, draws: Draws
    ) -> Draws:
        """Double the moves per negative sample until that changes nothing; keep the last draws."""
        burn_in = max(1, self.num_draws // 10)
        for _ in range(self.max_doublings):
            num_moves = int(state.num_moves[0])
            state = state._replace(num_moves=2 * state.num_moves)
            state, _ = loop.run(state, burn_in, "doubling, burn-in")
            state, values = loop.run(state, self.num_draws, "doubling")
            before, after = functionals(model, draws.values), functionals(model, values)
            found = compare(before, after, num_moves)
            draws = replace(
                draws,
                values=values,
                checks=(check_divergences(values["diverging"]), *draws.checks[1:]),
                doubling=found,
                tuning=draws.tuning | {"num_moves": 2 * num_moves},
                seconds=loop.seconds,
            )
            if found.check.passed:
                break
        return draws.also([found.check])


def collect_exchange(model: TwoStageModel, state: ExchangeState) -> dict[str, jax.Array]:
    """What a sweep's state contributes to the tree."""
    log_z = model.agreement.log_normalizer
    known = {} if log_z is None else {"log_normalizer": jax.vmap(log_z)(state.z["theta_1"])}
    return (known | state.z) | {
        "negative": state.negative,
        "lp": state.lp,
        "disagreement": state.disagreement,
        "disagreement_theta_1": state.disagreement_theta_1,
        "disagreement_negative": state.negative_disagreement,
        "log_likelihood": state.log_likelihood,
        "acceptance_rate": state.acceptance_rate,
        "acceptance_rate_theta_2": state.acceptance_rate_2,
        "diverging": state.diverging,
        "step_size": state.tuning.step_2.value,
    }


def _record(kernel: ExchangeKernel, state: ExchangeState) -> dict[str, Any]:
    tuning = state.tuning
    found: dict[str, Any] = {
        "kernel": type(kernel).__name__,
        "negative": type(kernel.negative).__name__,
        "step_theta_1": np.asarray(tuning.step_1.value).tolist(),
        "step_theta_2": np.asarray(tuning.step_2.value).tolist(),
        "step_negative": np.asarray(tuning.step_negative.value).tolist(),
    }
    if not kernel.negative.is_exact:
        found["num_moves"] = int(np.max(np.asarray(state.num_moves)))
    if (num_bridges := int(np.max(np.asarray(tuning.num_bridges)))) > 1:
        explained = float(np.asarray(tuning.explained)[0])
        found |= {"num_bridges": num_bridges, "explained": explained}
    return found
