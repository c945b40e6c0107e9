"""Stochastic gradient Langevin dynamics with persistent negative samples."""

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from pydantic import Field

from generative import InvalidInput, TwoStageModel
from inference.backends.base import Backend, ChainMethod, Draws
from inference.backends.schedules import Constant, Cyclical, Polynomial
from inference.devices import along, check_divides, replicate, shard
from inference.doubling import compare
from inference.estimate import Estimate
from inference.evidence.langevin import log_evidence_by_langevin
from inference.functionals import functionals
from inference.kernels import langevin_chains as chains
from inference.kernels.langevin import Estimator, Langevin, LangevinTuning, Metric
from inference.kernels.langevin_chains import Chains
from inference.kernels.langevin_tuning import diagonal_metric, flat_metric
from inference.kernels.langevin_warmup import NUM_ROUNDS, warm_up
from inference.loop import Loop, NonFiniteState
from inference.progress import SILENT, Monitor

# Beyond this, stand-ins cost more than the gradients.
_LARGEST_CURVED = 20_000
_DRAWS_PER_ROUND = 25
_LARGEST_THINNING, _MAX_INNER = 100, 16
_HALVED = "moves per negative sample, with steps of half the size"
# Parameters of so many numbers are kept; beyond, a few of a large network's draws.
_MAX_KEPT, _FEWEST_KEPT = 2**26, 4


class SGLD(Backend):
    """Langevin dynamics on (theta_1, theta_2), with negative samples for grad log Z.

    For networks of up to 10^7 parameters, and answers in mini-batches. Unlike the other backends
    it is never exact: its steps are finite and its negative samples lag. Both biases are small by
    construction (:mod:`inference.kernels.langevin`), and measured: draws are repeated with half
    the steps and twice the moves per negative sample until nothing changes.

    Parameters
    ----------
    num_warmup : int
        Steps.
    num_draws, num_chains : int
        Per chain; draws after thinning.
    thinning : int, optional
        Steps per draw; by default half the inverse step size, 100 at most.
    num_negatives : int
        Negative samples per chain.
    kappa : float
        Speed of the negative samples over that of the chain, at least. Too small: they lag.
    num_inner : int, optional
        Steps of each negative sample per step of the chain; by default as many as `kappa` asks
        for, 16 at most. The chain's step is shortened to keep the ratio.
    step_size : float, optional
        In units in which the metric is the covariance; by default half over the largest
        eigenvalue of metric times Hessian, 0.5 at most.
    schedule : {Constant, Polynomial, Cyclical}
        Factor of the step size after warm-up.
    metric : {"auto", "curved", "diagonal", "flat"}
        One for all chains, frozen after warm-up. `curved` fits stand-ins for C and L, `diagonal`
        mean squared gradients (RMSProp's statistic), `flat` is the covariance of the stages.
        `auto` takes `curved` up to 20 000 parameters, then `diagonal`.
    averaged : bool
        Gradients at averaged points (Leimkuhler and Matthews); False is the classical step.
    estimator : {"control", "score"}
        Of grad log Z: with the metric as control variate, or the plain score of p2.
    batch_size : int, optional
        Answers per step; needs a model with `inputs`.
    stop_gradient : str, optional
        Parameters whose names start so, such as `intended`, are held fixed where C is
        differentiated: another target, not the posterior.
    num_powers : int
        Of the likelihood, for a log evidence by thermodynamic integration; 0 skips it.
    max_halvings : int
        Of the steps, at most, to see whether draws change. 0 skips this check.
    chain_method : {"vectorized", "sequential", "sharded"}
    shard : {"chains", "negatives", "data"}
        What `sharded` spreads over all devices; for data, the answers of a full batch.
    """

    num_warmup: int = Field(2000, ge=80)
    num_draws: int = Field(1000, ge=4)
    num_chains: int = Field(4, ge=1)
    thinning: int | None = Field(None, ge=1)
    num_negatives: int = Field(2, ge=1)
    kappa: float = Field(10.0, gt=0)
    num_inner: int | None = Field(None, ge=1)
    step_size: float | None = Field(None, gt=0, lt=2)
    schedule: Constant | Polynomial | Cyclical = Constant()
    metric: Literal["auto", "curved", "diagonal", "flat"] = "auto"
    averaged: bool = True
    estimator: Estimator = "control"
    batch_size: int | None = Field(None, ge=1)
    stop_gradient: str | None = None
    num_powers: int = Field(12, ge=0)
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
            refresh=self._is_small(model) and self.stop_gradient is None,
        )
        key_start, key_chains, key_tune, key_evidence = jax.random.split(key, 4)
        state = Chains(
            chains.start(jax.random.split(key_start, self.num_chains), kernel, self.num_negatives),
            jax.random.split(key_chains, self.num_chains),
            jnp.full(self.num_chains, -self.num_warmup),
            LangevinTuning(self._first_metric(model), *self._steps(model, 1.0, 1.0)),
        )
        step, state = self._placed(kernel, state)
        state = self._warm_up(kernel, step, key_tune, state, monitor)
        thinning = self.thinning or int(
            np.clip(np.ceil(0.5 / float(state.tuning.step_size)), 1, _LARGEST_THINNING)
        )
        with_theta = self._num_kept(model) == self.num_draws
        collect = partial(chains.collect, kernel, with_theta)
        loop = self._loop(kernel, step, collect, thinning, monitor)
        state = state._replace(step=jnp.zeros_like(state.step))
        state, draws = self._sample(kernel, loop, state, "draws")
        state, draws = self._halve(kernel, loop, state, draws)
        draws.notes.append(self._note(model, state))
        if self.num_powers and not model.is_null:
            draws.log_evidence = log_evidence_by_langevin(
                kernel,
                key_evidence,
                state.chain,
                state.tuning,
                self.num_powers,
                max(4, self.num_draws // 5),
                loop.thinning,
                monitor,
            )
        return draws

    def log_evidence(
        self, model: TwoStageModel, draws: Draws, key: jax.Array, monitor: Monitor = SILENT
    ) -> tuple[Estimate | None, str]:
        """Return what :meth:`draw` found; see :meth:`Backend.log_evidence`."""
        if model.is_null:
            found = Estimate.of_no_data()
            return found, found.note
        if draws.log_evidence is None:
            return None, "log evidence: not estimated, as num_powers = 0 asks"
        local = "" if model.heads is None else "; local, of the region that the chains reached"
        powers = f"{self.num_powers} powers of the likelihood"
        return draws.log_evidence, f"log evidence: thermodynamic integration over {powers}{local}"

    def _note(self, model: TwoStageModel, state: Chains) -> str:
        size, kind = float(state.tuning.step_size), self._chosen_metric(model)
        note = f"Langevin steps of {size:.3g} in a {kind} metric"
        if self.stop_gradient is not None:
            note += (
                f"; not the posterior: {self.stop_gradient!r} is held fixed where C is "
                "differentiated"
            )
        return note

    def _check(self, model: TwoStageModel) -> None:
        if self.batch_size is not None and not model.is_null:
            if model.num_answers is None:
                raise InvalidInput("batch_size", self.batch_size, "None without model inputs")
            if self.batch_size > model.num_answers:
                raise InvalidInput("batch_size", self.batch_size, f"at most {model.num_answers}")
        if self.chain_method == "sharded" and self.shard == "data":
            if model.num_answers is None:
                raise InvalidInput("shard", "data", "chains or negatives, without model inputs")
            check_divides(model.num_answers, "number of answers")
        if self.stop_gradient is not None:
            names = list(model.space.blocks)
            if not any(name.startswith(self.stop_gradient) for name in names):
                raise InvalidInput(
                    "stop_gradient", repr(self.stop_gradient), f"the start of one of {names}"
                )

    def _chosen_metric(self, model: TwoStageModel) -> str:
        if self.metric != "auto":
            return self.metric
        return "curved" if self._is_small(model) else "diagonal"

    @staticmethod
    def _is_small(model: TwoStageModel) -> bool:
        return model.dimension <= _LARGEST_CURVED

    def _first_metric(self, model: TwoStageModel) -> Metric:
        is_curved = self._chosen_metric(model) == "curved"
        return flat_metric(model) if is_curved else diagonal_metric(model)

    def _num_kept(self, model: TwoStageModel) -> int:
        """Number of draws whose parameters are kept."""
        room = _MAX_KEPT // (2 * self.num_chains * model.dimension)
        return min(self.num_draws, max(_FEWEST_KEPT, room))

    def _placed(self, kernel: Langevin, state: Chains) -> tuple[Any, Chains]:
        """Lay the chains out; with them, the step of all."""
        step = partial(chains.step_all, kernel, self.schedule)
        if self.chain_method == "sequential":
            return partial(chains.step_in_turn, kernel, self.schedule), state
        if self.chain_method == "vectorized":
            return step, state
        tuning, rest = state.tuning, state._replace(tuning=())
        if self.shard == "chains":
            rest = shard(rest, self.num_chains, "num_chains")
        else:
            rest = replicate(rest)
        if self.shard == "negatives":
            negative = shard(rest.chain.negative, self.num_negatives, "num_negatives", axis=1)
            rest = rest._replace(chain=rest.chain._replace(negative=negative))
        return step, rest._replace(tuning=tuning)

    def _loop(
        self, kernel: Langevin, step: Any, collect: Any, thinning: int, monitor: Monitor
    ) -> Loop:
        def check(values: dict[str, np.ndarray], done: int, label: str) -> None:
            found = chains.runaway(kernel.model, values)
            if found is not None:
                draw, chain, block = found
                raise NonFiniteState(
                    f"chain {chain} ran away in block {block!r} at {label} draw "
                    f"{done + draw + 1}: use a smaller step_size, or a longer warm-up"
                )

        return Loop(step, collect, thinning, monitor, _described, check)

    def _warm_up(
        self, kernel: Langevin, step: Any, key: jax.Array, state: Chains, monitor: Monitor
    ) -> Chains:
        thinning = max(1, self.num_warmup // (NUM_ROUNDS * _DRAWS_PER_ROUND))
        kind = self._chosen_metric(kernel.model)
        collect = partial(chains.collect_warmup, kernel, kind == "curved")
        loop = self._loop(kernel, step, collect, thinning, monitor)
        number = self.num_warmup // (NUM_ROUNDS * thinning)
        return warm_up(kernel, loop, key, state, number, kind, self._retuned)

    def _retuned(self, kernel: Langevin, key: jax.Array, state: Chains, metric: Metric) -> Chains:
        """Take a metric, and steps for the curvature where the chains are."""
        joint, negative = map(float, chains.typical_steps(key, kernel, metric, state.chain))
        size = joint if self.step_size is None else self.step_size
        steps = self._steps(kernel.model, size, negative)
        return state._replace(tuning=LangevinTuning(metric, *steps))

    def _steps(self, model: TwoStageModel, size: float, negative: float) -> tuple[Array, ...]:
        """Return steps and inner steps that keep negative samples `kappa` times as fast."""
        wanted = int(np.clip(np.ceil(self.kappa * size / negative), 1, _MAX_INNER))
        number = self.num_inner or wanted
        if self.step_size is None:
            size = min(size, number * negative / self.kappa)
        dtype = model.space.origin.dtype
        return jnp.asarray(size, dtype), jnp.asarray(negative, dtype), jnp.asarray(number)

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
            kept.append([np.asarray(point.theta_1), np.asarray(point.theta_2)])
            parts.append(values)
            seconds += loop.seconds
        values = {name: np.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}
        answers = {n.removeprefix("answers_"): x for n, x in values.items() if "answers_" in n}
        values = {name: x for name, x in values.items() if "answers_" not in name}
        values |= {f"theta_{i + 1}": np.stack([k[i] for k in kept], axis=1) for i in (0, 1)}
        loop.seconds = seconds
        draws = self._gathered(state, loop, values)
        draws.answers = answers
        draws.notes.append(f"parameters of {number} draws are kept, functionals of all")
        return state, draws

    def _gathered(self, state: Chains, loop: Loop, values: dict[str, np.ndarray]) -> Draws:
        tuning = {
            "step_size": float(state.tuning.step_size),
            "step_negative": float(state.tuning.step_negative),
            "num_inner": int(state.tuning.num_inner),
            "thinning": loop.thinning,
        }
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
            state = state._replace(tuning=halved)
            state, _ = loop.run(state, max(1, self.num_draws // 10), "halving, burn-in")
            state, again = self._sample(kernel, loop, state, "halving")
            before, after = (functionals(kernel.model, x.values, x.answers) for x in (draws, again))
            doubling = compare(before, after, int(tuning.num_inner))
            draws, draws.doubling = again, replace(doubling, of_what=_HALVED)
            if draws.doubling.check.passed:
                break
        if draws.doubling is not None:
            draws.checks.append(draws.doubling.check)
        return state, draws


def _described(state: Chains) -> str:
    return f"step {float(state.tuning.step_size):.2g}"
