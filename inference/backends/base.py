"""What every backend is: a validated configuration, and a way to draw from the posterior."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree
from pydantic import BaseModel, ConfigDict, ValidationError

from generative import InvalidInput, TwoStageModel
from generative.values import is_integer, require_kind
from inference.checks import Check
from inference.devices import shard
from inference.doubling import Doubling
from inference.estimate import Estimate
from inference.kernels.negative import NegativeSampler
from inference.progress import SILENT, Monitor
from inference.run import Run

ChainMethod = Literal["vectorized", "sequential", "sharded"]


@dataclass
class Draws:
    """What a backend hands to :func:`inference.infer`.

    Attributes
    ----------
    values : dict
        `theta_1`, `theta_2`, shape (chain, draw, d), and statistics, shape (chain, draw).
    checks : list of Check
        The backend's own, beside those on chains.
    doubling : Doubling or None
    notes : list of str
    negative : NegativeSampler or None
        How negative samples were made, where there were any.
    unverified : list of str
        Checks that its options switched off, though the method is not exact without them.
    other_target : str or None
        What the draws are of, where that is not the posterior.
    tuning : dict
        Every choice that warm-up made, for the configuration attribute.
    exhausted : bool
        Whether a budget ran out, so that the draws must not be used.
    seconds : float
        Wall time of the draws, warm-up and compilation not counted.
    log_evidence : Estimate or None
        log p(data), nats, where the draws come with it; see :meth:`Sampler.log_evidence`.
    weighted : dict or None
        `theta_1`, `theta_2`, shape (sample, d), and statistics, shape (sample,), among them
        `log_weight`, nats: the log of their mean is the log evidence.
    answers : dict or None
        As from :func:`inference.datatree.answers`, of every draw, where only some draws'
        parameters are in `values`.
    """

    values: dict[str, np.ndarray]
    checks: list[Check] = field(default_factory=list)
    doubling: Doubling | None = None
    notes: list[str] = field(default_factory=list)
    negative: NegativeSampler | None = None
    unverified: list[str] = field(default_factory=list)
    other_target: str | None = None
    tuning: dict[str, Any] = field(default_factory=dict)
    exhausted: bool = False
    seconds: float = float("nan")
    log_evidence: Estimate | None = None
    weighted: dict[str, np.ndarray] | None = None
    answers: dict[str, np.ndarray] | None = None


class Backend(BaseModel):
    """Base of the backends' configurations.

    Raises
    ------
    InvalidInput
        On construction, if a field is unknown or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any):
        # Pydantic would take "7" and True for numbers. Ranges of integers it refuses itself.
        for name, given in values.items():
            known = type(self).model_fields.get(name)
            if known is not None and (known.annotation is bool or not is_integer(given)):
                require_kind(f"{type(self).__name__}.{name}", given, known.annotation)
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join([type(self).__name__, *map(str, first["loc"])])
            found = "an unknown field" if first["type"] == "extra_forbidden" else first["input"]
            allowed = first["msg"]
            if first["type"] == "extra_forbidden":
                allowed = ", ".join(type(self).model_fields)
            raise InvalidInput(name, repr(found), allowed) from None

    @abstractmethod
    def run(
        self, model: TwoStageModel, seed: int, monitor: Monitor, configuration: dict[str, Any]
    ) -> Run:
        """Do what :func:`inference.infer` asks for.

        Parameters
        ----------
        model : TwoStageModel
        seed : int
        monitor : Monitor
        configuration : dict
            What the tree records as such, with the backend's own choices added.
        """


class Sampler(Backend):
    """Base of the backends that draw from the posterior.

    Attributes
    ----------
    evidence_stands_alone : bool
        Whether the log evidence comes from independent runs of its own, and may be used though the
        draws may not.
    """

    evidence_stands_alone: ClassVar[bool] = False

    @abstractmethod
    def draw(self, model: TwoStageModel, key: jax.Array, monitor: Monitor = SILENT) -> Draws:
        """Draw from the posterior of a model."""

    def log_evidence(
        self, model: TwoStageModel, draws: Draws, key: jax.Array, monitor: Monitor = SILENT
    ) -> tuple[Estimate | None, str]:
        """Estimate log p(data), nats, beside the draws; with it, how, or why not."""
        return draws.log_evidence, f"log evidence: by the {type(self).__name__} runs themselves"

    def run(
        self, model: TwoStageModel, seed: int, monitor: Monitor, configuration: dict[str, Any]
    ) -> Run:
        """Draw, and put a run together from the draws; see :meth:`Backend.run`."""
        from inference.sampled import run_sampler  # which knows this class

        return run_sampler(self, model, seed, monitor, configuration)


def place(
    step: Partial, state: PyTree, method: ChainMethod, num_chains: int
) -> tuple[Partial, PyTree]:
    """Lay the chains out: all at once, one after the other, or over all devices.

    Parameters
    ----------
    step : Partial
        Works on one chain and on a batch of chains.
    state : pytree
        Leading axis: chains.
    method : {"vectorized", "sequential", "sharded"}
    num_chains : int

    Raises
    ------
    InvalidInput
        If the chains do not divide over the devices.
    """
    if method == "sequential":
        return Partial(jax.lax.map, step), state
    if method == "sharded":
        return step, shard(state, num_chains, "num_chains")
    return step, state
