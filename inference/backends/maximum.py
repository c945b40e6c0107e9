"""Maximum a posteriori: where the joint density of theta_1 and theta_2 is largest."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float
from pydantic import Field

from generative import InvalidInput, TwoStageModel
from generative.parts import Parts
from inference import prng
from inference.backends.negative_samples import WithNegativeSamples, tuning_of
from inference.backends.schedules import Polynomial
from inference.kernels.langevin import chains
from inference.kernels.langevin.ascent import Ascent, Rule
from inference.kernels.langevin.chains import Chains
from inference.kernels.langevin.dynamics import LangevinState, LangevinTuning, Metric
from inference.kernels.langevin.steps import READ, Langevin
from inference.kernels.langevin.tuning import flat_metric
from inference.results.maximized import Ascended, run_maximizer
from inference.results.run import Run
from inference.running.progress import Monitor

_MAX_RECORDS, _FEWEST_RECORDS, _MAX_KEPT = 200, 4, 2**26
# Curvature that a metric misses leaves noise in the estimates of grad log Z, and slows the climb.
_MAX_ROWS, _SMALL_DIMENSION = 256, 1000
# A curved metric is worth smaller steps, since it takes the noise from grad log Z.
_WORTHWHILE = 0.5
# Negative samples are to be exact, not fast: their steps are a fraction of the stable ones.
_SLOWER_NEGATIVES = 0.25
# Steps at first of this share of all, then of n^-power: noise averages out.
_CONSTANT_SHARE = 0.1
# Stretches in which what remains of the gradient is measured, and their share of the steps.
_NUM_BLOCKS, _HOLDING = 16, 4


class MaximumAPosteriori(WithNegativeSamples):
    """Joint maximum of the posterior density by stochastic approximation, from several starts.

    The source's alternating updates, made exact: theta_2 climbs, theta_1 climbs with it, and
    negative samples that persist from step to step supply grad log Z. What remains of the gradient
    at the end is measured, with its error. In many dimensions the joint maximum is no typical
    draw; compare it with a sampled run. Options of negative samples and metric are those of
    :class:`~inference.backends.negative_samples.WithNegativeSamples`.

    Parameters
    ----------
    num_steps : int
        After warm-up. 200 of them at most are recorded, and the second half of these averaged.
    num_starts : int
        Draws from the prior to start from.
    decay : float
        Steps fall as n^-decay.
    rule : {"stochastic_approximation", "alternating"}
        `alternating` drives theta_1 literally by C(new theta_2) - C(old theta_2) in place of
        grad log Z; its fixed point is another.
    num_ledger_points : int
        Points of the best start's path at which bits saved are estimated; 0 skips the ledger.
    laplace : bool
        Whether to give the log evidence of a Gauss-Newton Laplace approximation, a local value.
    """

    num_negatives: int = Field(4, ge=1)
    kappa: float = Field(2.0, gt=0)
    num_steps: int = Field(2000, ge=16)
    num_starts: int = Field(8, ge=1)
    decay: float = Field(0.7, gt=0.5, le=1)
    rule: Rule = "stochastic_approximation"
    num_ledger_points: int = Field(40, ge=0)
    laplace: bool = True

    def run(
        self, model: TwoStageModel, seed: int, monitor: Monitor, configuration: dict[str, Any]
    ) -> Run:
        """Climb, and put a run together from where the starts end; see :meth:`Backend.run`."""
        key_climb, key_rest = prng.split(jax.random.key(seed))
        found = self.climb(model, key_climb, monitor)
        return run_maximizer(
            model,
            found,
            key_rest,
            configuration,
            num_ledger_points=self.num_ledger_points,
            laplace=self.laplace and self._is_small(model),
            note=self._note(model),
            unverified=self._not_fresh(model),
        )

    def _note(self, model: TwoStageModel) -> str | None:
        if self.rule == "alternating":
            return "not the maximum: theta_1 follows C(new theta_2) - C(old theta_2), not log Z"
        if self.stop_gradient is not None:
            return (
                f"not the maximum: {self.stop_gradient!r} is held fixed where C is differentiated"
            )
        return None

    def climb(self, model: TwoStageModel, key: jax.Array, monitor: Monitor) -> Ascended:
        """Climb from all starts; see :func:`inference.infer`."""
        self._check(model)
        langevin = Langevin(
            model,
            estimator=self.estimator,
            batch_size=self.batch_size,
            held=self.stop_gradient,
        )
        kernel = Ascent(langevin, self.rule)
        key_start, key_chains, key_tune, key_hold = prng.split(key, 4)
        state = Chains(
            chains.start(jax.random.split(key_start, self.num_starts), kernel, self.num_negatives),
            jax.random.split(key_chains, self.num_starts),
            jnp.full(self.num_starts, -self.num_warmup),
            jnp.ones(self.num_starts, model.space.origin.dtype),
            LangevinTuning(self._first_metric(model), *self._steps(model, 1.0, 1.0)),
        )
        offset = _CONSTANT_SHARE * self.num_steps
        schedule = Polynomial(offset=offset, power=self.decay)
        step = Partial(chains.step_all, kernel, Parts(schedule))
        collect = Partial(chains.collect, kernel)
        early_collect = collect
        if not self._is_small(model):  # of large models, only the ascent's few records are kept
            early_collect = Partial(chains.collect_warmup, kernel)
        state, early = self._warm_up(kernel, step, early_collect, key_tune, state, monitor)
        number = self._num_records(model)
        thinning = max(1, self.num_steps // number)
        loop = self._loop(kernel, step, collect, thinning, monitor)
        state = state._replace(step=jnp.zeros_like(state.step))
        state, late = loop.run(state, self.num_steps // thinning, "ascent")
        theta_1, theta_2 = _averaged(kernel, late)
        chain = jax.vmap(kernel.init)(theta_1, theta_2, state.chain.negative)
        length = 1 + self.num_steps // (_HOLDING * _NUM_BLOCKS)
        held = _hold(key_hold, kernel, chain, state.tuning, length, self._is_small(model))
        residuals, negative, negatives = held
        number_early, number_late = (values["lp"].shape[1] for values in (early, late))
        steps = self._warmup_thinning * np.arange(1, number_early + 1)
        steps = np.append(steps, steps[-1] + thinning * np.arange(1, number_late + 1))
        return Ascended(
            theta_1=np.asarray(chain.theta_1),
            theta_2=np.asarray(chain.theta_2),
            negative=np.asarray(negative),
            residuals=np.asarray(residuals),
            negatives=np.asarray(negatives),
            metric=state.tuning.metric.joint,
            path={n: np.concatenate([early[n], x], axis=1) for n, x in late.items() if n in early},
            steps=steps,
            tuning=tuning_of(state) | {"thinning": thinning},
        )

    def _check(self, model: TwoStageModel) -> None:
        super()._check(model)
        size = 2 * self.num_starts * model.dimension
        if size * _FEWEST_RECORDS > _MAX_KEPT:
            allowed = _MAX_KEPT // (2 * model.dimension * _FEWEST_RECORDS)
            if allowed == 0:
                raise InvalidInput("dimension", model.dimension, "a smaller model for `map`")
            raise InvalidInput("num_starts", self.num_starts, f"at most {allowed} for this model")
        if self._has_kinks(model) and self.metric not in ("auto", "flat"):
            raise InvalidInput("metric", repr(self.metric), "auto or flat with Laplace stages")

    def _first_metric(self, model: TwoStageModel) -> Metric:
        if self._chosen_metric(model) == "diagonal":
            return super()._first_metric(model)
        return flat_metric(model, _MAX_ROWS if model.dimension <= _SMALL_DIMENSION else None)

    def _chosen_metric(self, model: TwoStageModel) -> Literal["curved", "diagonal", "flat"]:
        # The proximal step has its own: independent shifts in both stages.
        return "flat" if self._has_kinks(model) else super()._chosen_metric(model)

    @property
    def _worthwhile(self) -> float:
        return _WORTHWHILE

    @staticmethod
    def _has_kinks(model: TwoStageModel) -> bool:
        return Ascent(Langevin(model)).is_proximal

    def _num_records(self, model: TwoStageModel) -> int:
        room = _MAX_KEPT // (2 * self.num_starts * model.dimension)
        return int(np.clip(room, _FEWEST_RECORDS, min(_MAX_RECORDS, self.num_steps)))

    def _steps(self, model: TwoStageModel, size: float, negative: float) -> tuple[Array, ...]:
        return super()._steps(model, size, _SLOWER_NEGATIVES * negative)


def _averaged(kernel: Ascent, records: dict[str, np.ndarray]) -> tuple[Array, Array]:
    """Average the second half of the records; what ends on a kink stays there exactly."""
    origin = np.asarray(kernel.model.space.origin)
    half = records["theta_1"].shape[1] // 2
    first, second = (records[name][:, half:] for name in ("theta_1", "theta_2"))

    def mean(shift: np.ndarray) -> np.ndarray:
        average = shift.mean(axis=1)
        return np.where(shift[:, -1] == 0, 0, average) if kernel.is_proximal else average

    theta_1 = origin + mean(first - origin)
    theta_2 = theta_1 + mean(second - first)
    return jnp.asarray(theta_1, origin.dtype), jnp.asarray(theta_2, origin.dtype)


@partial(jax.jit, static_argnums=5)
def _hold(
    key: jax.Array,
    kernel: Ascent,
    chain: LangevinState,
    tuning: LangevinTuning,
    length: Array,
    with_negatives: bool,
) -> tuple[Float[Array, "start block two_d"], Float[Array, "start M d"], Array]:
    """What remains of the gradient at points that stay, by stretches of the negative samples.

    With it, these at the end, and after every stretch where wanted, shape (start, M, block, d).

    The first stretch, in which they forget how the points moved, is dropped.
    """

    def one(key: jax.Array, chain: LangevinState) -> tuple[Array, Array, Array]:
        def stretch(negative: Array, key: jax.Array) -> tuple[Array, tuple[Array, Array]]:
            def move(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
                negative, total = carry
                held = chain._replace(negative=negative)
                negative, slope = kernel.follow(jax.random.fold_in(key, index), held, tuning)
                return negative, total + slope

            zero = jnp.zeros_like(chain.theta_1)
            negative, total = jax.lax.fori_loop(0, length, move, (negative, zero))
            key_read = jax.random.fold_in(key, READ)
            point = kernel.langevin.read(key_read, chain._replace(negative=negative), tuning)
            kept = point.negative if with_negatives else jnp.zeros((0, 0))
            return negative, (kernel.residual(chain.theta_1, chain.theta_2, total / length), kept)

        keys = jax.random.split(key, _NUM_BLOCKS + 1)
        negative, (residuals, kept) = jax.lax.scan(stretch, chain.negative, keys)
        return residuals[1:], negative, jnp.swapaxes(kept[1:], 0, 1)

    return jax.vmap(one)(jax.random.split(key, len(chain.theta_1)), chain)
