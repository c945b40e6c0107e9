"""Stochastic gradient Langevin dynamics with persistent negative samples."""

from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import Field

from generative import InvalidInput, TwoStageModel
from inference.backends.base import Backend, ChainMethod, Draws
from inference.backends.schedules import Constant, Cyclical, Polynomial
from inference.doubling import compare
from inference.functionals import functionals
from inference.kernels.density import describe
from inference.kernels.langevin import Estimator, Langevin, LangevinState, LangevinTuning, Metric
from inference.kernels.langevin_tuning import (
    diagonal_metric,
    fitted_metric,
    flat_metric,
    largest_steps,
    squared_gradients,
)
from inference.loop import Loop
from inference.normalizer.annealing import anneal
from inference.progress import SILENT, Monitor

# Beyond these, stand-ins and annealed starts cost more memory than the chains.
_LARGEST_CURVED, _LARGEST_ANNEALED = 20_000, 30_000
_NUM_ANNEALED = 64
_NUM_ROUNDS, _DRAWS_PER_ROUND = 8, 25
_FITTED_AFTER = (1, 3, 5)
# A fitted metric must allow this much larger steps than the flat one.
_WORTHWHILE = 1.5
_LARGEST_THINNING = 100
_MAX_INNER = 16
_HALVED = "moves per negative sample, with steps of half the size"
# A stream of keys beside those that steps split off.
_READ = 2**20


class _Chains(NamedTuple):
    """State of all chains.

    Attributes
    ----------
    chain : LangevinState
        Leading axis: chains.
    rng_key : PRNG keys, shape (chain,)
    step : int array, shape (chain,)
        Since the schedule began; negative before.
    tuning : LangevinTuning
        Shared.
    """

    chain: LangevinState
    rng_key: jax.Array
    step: Int[Array, " chain"]
    tuning: LangevinTuning


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
    max_halvings : int
        Of the steps, at most, to see whether draws change. 0 skips this check.
    chain_method : {"vectorized", "sequential", "sharded"}
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
    max_halvings: int = Field(1, ge=0, le=8)
    chain_method: ChainMethod = "vectorized"

    def draw(self, model: TwoStageModel, key: jax.Array, monitor: Monitor = SILENT) -> Draws:
        """Draw from the posterior; see :func:`inference.infer`."""
        self._check(model)
        kernel = Langevin(model, self.averaged, self.estimator, self.batch_size, self.stop_gradient)
        key_start, key_chains, key_tune = jax.random.split(key, 3)
        starts = jax.random.split(key_start, self.num_chains)
        state = _Chains(
            _start(starts, kernel, self.num_negatives),
            jax.random.split(key_chains, self.num_chains),
            jnp.full(self.num_chains, -self.num_warmup),
            LangevinTuning(self._first_metric(model), *self._steps(model, 1.0, 1.0)),
        )
        state, notes = self._warm_up(kernel, key_tune, state, monitor)
        thinning = self.thinning or int(
            np.clip(np.ceil(0.5 / float(state.tuning.step_size)), 1, _LARGEST_THINNING)
        )
        loop = self._loop(kernel, thinning, monitor, _collect)
        state = state._replace(step=jnp.zeros_like(state.step))
        state, values = loop.run(state, self.num_draws, "draws")
        draws = Draws(
            values, notes=notes, tuning=self._record(state, thinning), seconds=loop.seconds
        )
        self._halve(model, loop, state, draws)
        return draws

    def _check(self, model: TwoStageModel) -> None:
        if self.batch_size is not None and not model.is_null:
            if model.num_answers is None:
                raise InvalidInput("batch_size", self.batch_size, "None without model inputs")
            if self.batch_size > model.num_answers:
                raise InvalidInput("batch_size", self.batch_size, f"at most {model.num_answers}")
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

    def _loop(self, kernel: Langevin, thinning: int, monitor: Monitor, collect: Any) -> Loop:
        def step(state: _Chains) -> _Chains:
            return _stepped(kernel, self.schedule, state)

        return Loop(step, partial(collect, kernel), thinning, monitor, _described)

    def _warm_up(
        self, kernel: Langevin, key: jax.Array, state: _Chains, monitor: Monitor
    ) -> tuple[_Chains, list[str]]:
        """Move, and choose metric and steps again after every round; the last round keeps them."""
        thinning = max(1, self.num_warmup // (_NUM_ROUNDS * _DRAWS_PER_ROUND))
        loop = self._loop(kernel, thinning, monitor, _collect_warmup)
        num_iterations = self.num_warmup // (_NUM_ROUNDS * thinning)
        kind, flat = self._chosen_metric(kernel.model), state.tuning.metric
        squares = None
        state = self._retuned(kernel, key, state, flat)
        for index in range(_NUM_ROUNDS):
            key_metric, key_steps = jax.random.split(jax.random.fold_in(key, index))
            state, values = loop.run(state, num_iterations, f"warm-up {index + 1}/{_NUM_ROUNDS}")
            if index == _NUM_ROUNDS - 1:
                break
            metric = state.tuning.metric
            if kind == "curved" and index in _FITTED_AFTER:
                late = (
                    values[n].reshape(-1, kernel.model.dimension) for n in ("theta_2", "negative")
                )
                metric = _fitted(key_metric, kernel.model, *map(jnp.asarray, late))
            if kind == "diagonal":
                found = _squares(key_metric, kernel, state.chain)
                squares = (
                    found
                    if squares is None
                    else jax.tree.map(lambda old, new: 0.5 * (old + new), squares, found)
                )
                metric = diagonal_metric(kernel.model, *squares)
            tuned = self._retuned(kernel, key_steps, state, metric)
            if kind == "curved" and index in _FITTED_AFTER:
                plain = self._retuned(kernel, key_steps, state, flat)
                if float(tuned.tuning.step_size) < _WORTHWHILE * float(plain.tuning.step_size):
                    tuned = plain
            state = tuned
        return state, [f"Langevin steps of {float(state.tuning.step_size):.3g} in a {kind} metric"]

    def _retuned(self, kernel: Langevin, key: jax.Array, state: _Chains, metric: Metric) -> _Chains:
        """Take a metric, and steps for the curvature where the chains are, on average."""
        keys = jax.random.split(key, self.num_chains)
        found = _largest(keys, kernel, metric, state.chain)
        joint, negative = (float(1 / np.mean(1 / np.asarray(steps))) for steps in found)
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

    def _halve(self, model: TwoStageModel, loop: Loop, state: _Chains, draws: Draws) -> None:
        """Halve all steps until that changes nothing; keep the last draws."""
        for _ in range(self.max_halvings):
            tuning = state.tuning
            state = state._replace(
                tuning=tuning._replace(
                    step_size=tuning.step_size / 2,
                    step_negative=tuning.step_negative / 2,
                    num_inner=tuning.num_inner * 2,
                )
            )
            loop.thinning *= 2
            state, _ = loop.run(state, max(1, self.num_draws // 10), "halving, burn-in")
            state, values = loop.run(state, self.num_draws, "halving")
            draws.doubling = compare(
                functionals(model, draws.values),
                functionals(model, values),
                int(tuning.num_inner),
            )
            draws.doubling = replace(draws.doubling, of_what=_HALVED)
            draws.values, draws.seconds = values, loop.seconds
            draws.tuning = self._record(state, loop.thinning)
            if draws.doubling.check.passed:
                break
        if draws.doubling is not None:
            draws.checks.append(draws.doubling.check)

    def _record(self, state: _Chains, thinning: int) -> dict[str, Any]:
        return {
            "step_size": float(state.tuning.step_size),
            "step_negative": float(state.tuning.step_negative),
            "num_inner": int(state.tuning.num_inner),
            "thinning": thinning,
        }


def _described(state: _Chains) -> str:
    return f"step {float(state.tuning.step_size):.2g}"


@partial(jax.jit, static_argnums=(1, 2))
def _start(keys: jax.Array, kernel: Langevin, num_negatives: int) -> LangevinState:
    """Draw the first states: annealed under theta_1 from p1, where that is affordable."""
    model = kernel.model

    def one(key: jax.Array) -> LangevinState:
        key_1, key_2 = jax.random.split(key)
        theta_1 = model.first_stage.around(model.space.origin).sample(key_1)
        if model.dimension > _LARGEST_ANNEALED:
            draws = model.second_stage.around(theta_1).sample(key_2, (num_negatives + 1,))
            return kernel.init(theta_1, draws[0], draws[1:])
        particles = anneal(key_2, model, theta_1, _NUM_ANNEALED).particles
        # Resampling leaves siblings side by side.
        chosen = np.arange(1, num_negatives + 1) * _NUM_ANNEALED // (num_negatives + 1)
        first = jnp.argmax(jnp.isfinite(jax.vmap(model.log_likelihood)(particles)))
        return kernel.init(theta_1, particles[first], particles[chosen])

    return jax.vmap(one)(keys)


def _stepped(kernel: Langevin, schedule: Any, state: _Chains) -> _Chains:
    def one(key: jax.Array, chain: LangevinState, step: Array) -> tuple[jax.Array, LangevinState]:
        key, key_step = jax.random.split(key)
        dtype = chain.theta_1.dtype
        scale = jnp.where(step < 0, 1.0, schedule(jnp.maximum(step, 0))).astype(dtype)
        return key, kernel.step(key_step, chain, state.tuning, scale)[0]

    keys, chain = jax.vmap(one)(state.rng_key, state.chain, state.step)
    return state._replace(chain=chain, rng_key=keys, step=state.step + 1)


def _collect(kernel: Langevin, state: _Chains) -> dict[str, Array]:
    def one(key: jax.Array, chain: LangevinState) -> dict[str, Array]:
        key_read = jax.random.fold_in(key, _READ)
        point = kernel.read(key_read, chain, state.tuning)
        costs = jax.vmap(kernel.model.agreement.disagreement)(point.negative)
        return {
            "theta_1": point.theta_1,
            "theta_2": point.theta_2,
            **describe(kernel.model, point.theta_1, point.theta_2),
            "disagreement_negative": costs.mean(),
            "step_size": state.tuning.step_size,
            "acceptance_rate": jnp.ones(()),  # nothing is rejected,
            "diverging": jnp.zeros((), bool),  # and what diverges stops the run
        }

    return jax.vmap(one)(state.rng_key, state.chain)


def _collect_warmup(kernel: Langevin, state: _Chains) -> dict[str, Array]:
    values = _collect(kernel, state)
    return {
        "lp": values["lp"],
        "theta_2": values["theta_2"],
        "negative": state.chain.negative[:, 0],
    }


_fitted = jax.jit(fitted_metric, static_argnums=(1,))


@partial(jax.jit, static_argnums=(1,))
def _squares(
    key: jax.Array, kernel: Langevin, chain: LangevinState
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    keys = jax.random.split(key, len(chain.theta_1))
    squares = jax.vmap(lambda k, s: squared_gradients(k, kernel, s))(keys, chain)
    return jax.tree.map(lambda x: x.mean(axis=0), squares)


@partial(jax.jit, static_argnums=(1,))
def _largest(
    keys: jax.Array, kernel: Langevin, metric: Metric, chain: LangevinState
) -> tuple[Array, Array]:
    return jax.vmap(lambda k, s: largest_steps(k, kernel, metric, s))(keys, chain)
