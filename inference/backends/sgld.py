"""Stochastic gradient Langevin dynamics with persistent negative samples."""

from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from pydantic import Field

from generative import InvalidInput, TwoStageModel
from generative.parts import Parts
from inference import prng
from inference.annealing.certificate import check_fresh
from inference.backends.base import ChainMethod, Sampler
from inference.backends.negative_samples import WithNegativeSamples, tuning_of
from inference.backends.schedules import Constant, Cyclical, Polynomial
from inference.checks import Check, check_no_shift
from inference.devices import along, check_divides, replicate, shard
from inference.doubling import compare
from inference.estimate import Estimate, Evidence
from inference.evidence.beside_chains import evidence_beside_any
from inference.evidence.beside_langevin import log_evidence_by_langevin
from inference.functionals import functionals
from inference.kernels.langevin import chains
from inference.kernels.langevin.chains import Chains
from inference.kernels.langevin.dynamics import LangevinTuning
from inference.kernels.langevin.steps import Langevin
from inference.results.draws import Draws
from inference.running.loop import Loop
from inference.running.progress import SILENT, Monitor

_LARGEST_THINNING = 100
_HALVED = "moves per negative sample, with steps of half the size"
# Parameters of so many numbers are kept; beyond, a few of a large network's draws.
_MAX_KEPT, _FEWEST_KEPT = 2**26, 4


class SGLD(WithNegativeSamples, Sampler):
    """Langevin dynamics on (theta_1, theta_2), with negative samples for grad log Z.

    For large networks (timed at up to 10^7 parameters), and answers in mini-batches. Unlike others
    it is never exact: its steps are finite, its negative samples lag, and mini-batches are noisy.
    The first two are made small (:mod:`inference.kernels.langevin.steps`), and all are looked at:
    draws are repeated with half the steps and twice the moves per negative sample until nothing
    changes. Options of
    negative samples and metric are those of
    :class:`~inference.backends.negative_samples.WithNegativeSamples`.

    Parameters
    ----------
    num_draws : int
        That are kept, per chain.
    num_chains : int
    thinning : int, optional
        Steps per draw; by default half the inverse step size, 100 at most.
    schedule : {Constant, Polynomial, Cyclical}
        Factor of the step size after warm-up.
    averaged : bool
        Gradients at averaged points (Leimkuhler and Matthews); False is the classical step.
    num_powers : int
        Of the likelihood, for a log evidence by thermodynamic integration; 0 skips it.
    evidence_particles : int
        Per run of a tempered SMC (eight runs) from the prior, with which the draws must agree;
        up to 2000 parameters, and 0 skips it.
    max_halvings : int
        Of the steps, at most, to see whether draws change. 0 skips this check, and the run ends as
        `unverified`.
    chain_method : {"vectorized", "sequential", "sharded"}
    shard : {"chains", "negatives", "data"}
        What `sharded` spreads over all devices; for data, the answers of a full batch.
    """

    num_draws: int = Field(1000, ge=4)
    num_chains: int = Field(4, ge=1)
    thinning: int | None = Field(None, ge=1)
    schedule: Constant | Polynomial | Cyclical = Constant()
    averaged: bool = True
    num_powers: int = Field(12, ge=0)
    evidence_particles: int = Field(64, ge=0)
    max_halvings: int = Field(1, ge=0, le=8)
    chain_method: ChainMethod = "vectorized"
    shard: Literal["chains", "negatives", "data"] = "chains"

    def draw(self, model: TwoStageModel, key: jax.Array, monitor: Monitor = SILENT) -> Draws:
        """Draw from the posterior; see :func:`inference.infer`."""
        self._check(model)
        if self.chain_method == "sharded" and self.shard == "data":
            model = model.shard_data(along(0))
        kernel = Langevin(
            model,
            self.averaged,
            self.estimator,
            self.batch_size,
            self.stop_gradient,
        )
        key_start, key_chains, key_tune, key_evidence, key_fresh = prng.split(key, 5)
        state = Chains(
            chains.start(jax.random.split(key_start, self.num_chains), kernel, self.num_negatives),
            jax.random.split(key_chains, self.num_chains),
            jnp.full(self.num_chains, -self.num_warmup),
            jnp.ones(self.num_chains, model.space.origin.dtype),
            LangevinTuning(self._first_metric(model), *self._steps(model, 1.0, 1.0)),
        )
        step, state = self._placed(kernel, state)
        is_curved = self._chosen_metric(model) == "curved"
        collect = Partial(chains.collect_draws if is_curved else chains.collect_warmup, kernel)
        state, _ = self._warm_up(kernel, step, collect, key_tune, state, monitor)
        thinning = self.thinning or int(
            np.clip(np.ceil(0.5 / float(state.tuning.step_size)), 1, _LARGEST_THINNING)
        )
        with_theta = self._num_kept(model) == self.num_draws
        collect = Partial(chains.collect if with_theta else chains.collect_answers, kernel)
        loop = self._loop(kernel, step, collect, thinning, monitor)
        state = state._replace(step=jnp.zeros_like(state.step))
        state, draws = self._sample(kernel, loop, state, "draws")
        state, draws = self._halve(kernel, loop, state, draws)
        draws = self._verified(model, key_fresh, draws).also(notes=[self._note(model, state)])
        if self.num_powers == 0 or model.is_null:
            return draws
        found = log_evidence_by_langevin(
            kernel,
            key_evidence,
            state.chain,
            state.tuning,
            self.num_powers,
            max(4, self.num_draws // 5),
            loop.thinning,
            monitor,
        )
        return replace(draws, log_evidence=found)

    def log_evidence(
        self, model: TwoStageModel, draws: Draws, key: jax.Array, monitor: Monitor = SILENT
    ) -> Evidence:
        """Return what :meth:`draw` found; see :meth:`Sampler.log_evidence`."""
        if model.is_null:
            return Evidence((exact := Estimate.of_no_data()), exact.note)
        how = "log evidence: not estimated, as num_powers = 0 asks"
        if draws.log_evidence is not None:
            path = f"thermodynamic integration over {self.num_powers} powers of the likelihood"
            how = f"log evidence: {path}; local, of what the chains reached"
        if draws.other_target is not None:
            return Evidence(draws.log_evidence, how)
        effort = (self.evidence_particles, None, monitor)
        beside = evidence_beside_any(model, draws.values, key, *effort)
        how += f"; populations: {beside.how.removeprefix('log evidence: ')}"
        same = _same(draws.log_evidence, beside.estimate)
        if not same.passed:
            return Evidence(None, f"log evidence: not given, since {same.message}", beside.checks)
        return Evidence(draws.log_evidence, how, beside.checks)

    def _verified(self, model: TwoStageModel, key: jax.Array, draws: Draws) -> Draws:
        """Compare negative samples with fresh ones, and say what is not checked, or not sought."""
        if self.max_halvings == 0:
            draws = draws.also(unverified=["halving (max_halvings = 0)"])
        if self.stop_gradient is not None:
            held = f"{self.stop_gradient!r} is held fixed where C is differentiated"
            return replace(draws, other_target=held)  # its negative samples are no draws of q
        unchecked = self._not_fresh(model)
        if unchecked:
            return draws.also(unverified=unchecked)
        pair = (draws.values["theta_1"], draws.values["negative"])
        return draws.also([check_fresh(model, key, *pair, self.num_fresh)])

    def _note(self, model: TwoStageModel, state: Chains) -> str:
        size, kind = float(state.tuning.step_size), self._chosen_metric(model)
        return (
            f"Langevin steps of {size:.3g} in a {kind} metric, with {int(state.tuning.num_inner)} "
            "steps of each negative sample"
        )

    def _check(self, model: TwoStageModel) -> None:
        super()._check(model)
        if self.chain_method == "sharded" and self.shard == "data":
            if model.num_answers is None:
                raise InvalidInput("shard", "data", "chains or negatives, without model inputs")
            check_divides(model.num_answers, "number of answers")

    def _num_kept(self, model: TwoStageModel) -> int:
        """Number of draws whose parameters are kept."""
        room = _MAX_KEPT // (2 * self.num_chains * model.dimension)
        return min(self.num_draws, max(_FEWEST_KEPT, room))

    def _placed(self, kernel: Langevin, state: Chains) -> tuple[Any, Chains]:
        """Lay the chains out; with them, the step of all."""
        step = Partial(chains.step_all, kernel, Parts(self.schedule))
        if self.chain_method == "sequential":
            return Partial(chains.step_in_turn, kernel, Parts(self.schedule)), state
        if self.chain_method == "vectorized":
            return step, state
        tuning, rest = state.tuning, chains.without_tuning(state)
        if self.shard == "chains":
            rest = shard(rest, self.num_chains, "num_chains")
        else:
            rest = replicate(rest)
        if self.shard == "negatives":
            negative = shard(rest.chain.negative, self.num_negatives, "num_negatives", axis=1)
            rest = rest._replace(chain=rest.chain._replace(negative=negative))
        return step, rest._replace(tuning=tuning)

    def _sample(
        self, kernel: Langevin, loop: Loop, state: Chains, label: str
    ) -> tuple[Chains, Draws]:
        """Draw; of a large network only the last draw of each of a few stretches is kept whole."""
        number = self._num_kept(kernel.model)
        if number == self.num_draws:
            state, values = loop.run(state, self.num_draws, label)
            return state, self._gathered(state, loop, values)
        lengths = np.diff(np.linspace(0, self.num_draws, number + 1).astype(int))
        parts, kept, seconds = [], [], 0.0
        for index, length in enumerate(lengths):
            state, values = loop.run(state, int(length), f"{label}, part {index + 1}/{number}")
            point = chains.read_all(kernel, state)
            kept.append([point.theta_1, point.theta_2, point.negative[:, 0]])
            parts.append(values)
            seconds += loop.seconds
        values = {name: np.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}
        answers = {n.removeprefix("answers_"): x for n, x in values.items() if "answers_" in n}
        values = {name: x for name, x in values.items() if "answers_" not in name}
        whole = (np.stack(x, axis=1) for x in zip(*kept, strict=True))
        values |= dict(zip(("theta_1", "theta_2", "negative"), whole, strict=True))
        loop.seconds = seconds
        draws = replace(self._gathered(state, loop, values), answers=answers)
        return state, draws.also(
            notes=[f"parameters of {number} draws are kept, functionals of all"]
        )

    def _gathered(self, state: Chains, loop: Loop, values: dict[str, np.ndarray]) -> Draws:
        tuning = tuning_of(state) | {"thinning": loop.thinning}
        return Draws(values, tuning=tuning, seconds=loop.seconds)

    def _halve(
        self, kernel: Langevin, loop: Loop, state: Chains, draws: Draws
    ) -> tuple[Chains, Draws]:
        """Halve all steps until that changes nothing; return the last draws."""
        for _ in range(self.max_halvings):
            tuning = state.tuning
            halved = tuning._replace(
                step_size=tuning.step_size / 2,
                step_negative=tuning.step_negative / 2,
                num_inner=tuning.num_inner * 2,
            )
            loop.thinning *= 2
            state = state._replace(tuning=halved, step=jnp.zeros_like(state.step))
            state, _ = loop.run(state, max(1, self.num_draws // 10), "halving, burn-in")
            state, again = self._sample(kernel, loop, state, "halving")
            before, after = (functionals(kernel.model, x.values, x.answers) for x in (draws, again))
            doubling = compare(before, after, int(tuning.num_inner))
            draws = replace(again, doubling=doubling.of(_HALVED))
            if doubling.check.passed:
                break
        return state, draws if draws.doubling is None else draws.also([draws.doubling.check])


def _same(local: Estimate | None, beside: Estimate | None) -> Check:
    """Check that the chains' evidence is that of the populations, where there are both."""
    what, found = "evidences of chains at powers and of tempered populations", {}
    if local is not None and beside is not None:
        error = float(np.hypot(local.standard_error, beside.standard_error))
        found["log evidence"] = (float(local.value - beside.value), error, 1.0)
    return check_no_shift("evidence", found, what, about="evidence", unit="nats")
