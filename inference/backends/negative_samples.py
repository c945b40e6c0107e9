"""What is shared by backends whose negative samples move by Langevin dynamics."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from pydantic import Field

from generative import InvalidInput, TwoStageModel
from inference.backends.base import Backend
from inference.kernels.langevin import chains
from inference.kernels.langevin.chains import Chains
from inference.kernels.langevin.continuity import require_continuous
from inference.kernels.langevin.dynamics import Dynamics, LangevinTuning, Metric
from inference.kernels.langevin.steps import Estimator
from inference.kernels.langevin.tuning import diagonal_metric, flat_metric
from inference.kernels.langevin.warmup import NUM_ROUNDS, WORTHWHILE, warm_up
from inference.running.loop import Loop, NonFiniteState
from inference.running.progress import Monitor

# Beyond this, stand-ins cost more than the gradients.
_LARGEST_CURVED = 20_000
_DRAWS_PER_ROUND = 25
_MAX_INNER = 16


class WithNegativeSamples(Backend):
    """Base: options of the negative samples and of the metric, and a warm-up that tunes both.

    Parameters
    ----------
    num_warmup : int
        Steps.
    num_negatives : int
        Negative samples per chain.
    kappa : float
        Speed of the negative samples over that of the chain, at least. Too small: they lag, and the
        variance of theta_1 grows by about 1 / kappa times the share of the noise of grad log Z that
        the estimator leaves: none where C is quadratic.
    num_inner : int, optional
        Steps of each negative sample per step of the chain; by default as many as `kappa` asks
        for, 16 at most. The chain's step is shortened to keep the ratio.
    step_size : float, optional
        In units in which the metric is the covariance; by default half over the largest
        eigenvalue of metric times Hessian, 0.5 at most.
    metric : {"auto", "curved", "diagonal", "flat"}
        One for all chains, frozen after warm-up. `curved` fits stand-ins for C and L, `diagonal`
        mean squared gradients (RMSProp's statistic), `flat` is the covariance of the stages.
        `auto` takes `curved` up to 20 000 parameters, then `diagonal`.
    estimator : {"control", "score"}
        Of grad log Z: with the metric as control variate, or the plain score of p2.
    batch_size : int, optional
        Answers per step; needs a model with `inputs`.
    stop_gradient : str, optional
        Parameters whose names start so, such as `intended`, are held fixed where C is
        differentiated: another target, not the posterior.
    num_fresh : int
        So many negative samples are compared with freshly annealed draws; up to 20 000 parameters.
        0 skips this check, and the run ends as `unverified`.
    """

    num_warmup: int = Field(2000, ge=80)
    num_negatives: int = Field(2, ge=1)
    kappa: float = Field(40.0, gt=0)
    num_inner: int | None = Field(None, ge=1)
    step_size: float | None = Field(None, gt=0, lt=2)
    metric: Literal["auto", "curved", "diagonal", "flat"] = "auto"
    estimator: Estimator = "control"
    batch_size: int | None = Field(None, ge=1)
    stop_gradient: str | None = None
    num_fresh: int = Field(128, ge=0)

    def _check(self, model: TwoStageModel) -> None:
        require_continuous(model, type(self).__name__)
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

    def _not_fresh(self, model: TwoStageModel) -> list[str]:
        """Say why negative samples are not compared with fresh ones, if they are not."""
        if self.num_fresh == 0:
            return ["fresh negatives (num_fresh = 0)"]
        if not self._is_small(model):
            return [f"fresh negatives (more than {_LARGEST_CURVED} parameters)"]
        return []

    def _chosen_metric(self, model: TwoStageModel) -> Literal["curved", "diagonal", "flat"]:
        if self.metric != "auto":
            return self.metric
        return "curved" if self._is_small(model) else "diagonal"

    @staticmethod
    def _is_small(model: TwoStageModel) -> bool:
        return model.dimension <= _LARGEST_CURVED

    def _first_metric(self, model: TwoStageModel) -> Metric:
        is_curved = self._chosen_metric(model) == "curved"
        return flat_metric(model) if is_curved else diagonal_metric(model)

    def _loop(
        self, kernel: Dynamics, step: Any, collect: Any, thinning: int, monitor: Monitor
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
        self,
        kernel: Dynamics,
        step: Any,
        collect: Any,
        key: jax.Array,
        state: Chains,
        monitor: Monitor,
    ) -> tuple[Chains, dict[str, np.ndarray]]:
        thinning = self._warmup_thinning
        kind = self._chosen_metric(kernel.model)
        loop = self._loop(kernel, step, collect, thinning, monitor)
        number = self.num_warmup // (NUM_ROUNDS * thinning)
        return warm_up(kernel, loop, key, state, number, kind, self._retuned, self._worthwhile)

    @property
    def _worthwhile(self) -> float:
        return WORTHWHILE

    @property
    def _warmup_thinning(self) -> int:
        return max(1, self.num_warmup // (NUM_ROUNDS * _DRAWS_PER_ROUND))

    def _retuned(self, kernel: Dynamics, key: jax.Array, state: Chains, metric: Metric) -> Chains:
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


def tuning_of(state: Chains) -> dict[str, Any]:
    """Return what warm-up chose, for the configuration."""
    return {
        "step_size": float(state.tuning.step_size),
        "step_negative": float(state.tuning.step_negative),
        "num_inner": int(state.tuning.num_inner),
    }


def _described(state: Chains) -> str:
    return f"step {float(state.tuning.step_size):.2g}"
