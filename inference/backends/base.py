"""What every backend is: a validated configuration, and a way to draw from the posterior."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import jax
from jax.tree_util import Partial
from jaxtyping import PyTree
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from generative import InvalidInput, TwoStageModel
from generative.values import is_integer, require_kind
from inference import prng
from inference.annealing.certificate import check_renewed
from inference.devices import shard
from inference.estimate import Evidence
from inference.results.draws import Draws
from inference.results.run import Run
from inference.results.sampled import run_of
from inference.running.progress import SILENT, Monitor

# Beyond this, conditional SMC would need more memory than the draws.
_LARGEST_RENEWED = 20_000

ChainMethod = Literal["vectorized", "sequential", "sharded"]


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

    Parameters
    ----------
    num_renewed : int
        theta_2 at so many draws is compared with what conditional SMC makes of it, which reaches
        basins that the run may have missed; up to 20 000 parameters. 0 skips this check, and the
        run ends as `unverified`.

    Attributes
    ----------
    evidence_stands_alone : bool
        Whether the log evidence comes from independent runs of its own, and may be used though the
        draws may not.
    """

    evidence_stands_alone: ClassVar[bool] = False
    num_renewed: int = Field(64, ge=0)

    @abstractmethod
    def draw(self, model: TwoStageModel, key: jax.Array, monitor: Monitor = SILENT) -> Draws:
        """Draw from the posterior of a model."""

    def log_evidence(
        self, model: TwoStageModel, draws: Draws, key: jax.Array, monitor: Monitor = SILENT
    ) -> Evidence:
        """Estimate log p(data) beside the draws."""
        how = f"log evidence: by the {type(self).__name__} runs themselves"
        return Evidence(draws.log_evidence, how)

    def run(
        self, model: TwoStageModel, seed: int, monitor: Monitor, configuration: dict[str, Any]
    ) -> Run:
        """Draw, and put a run together from the draws; see :meth:`Backend.run`."""
        key = jax.random.key(seed)
        draws = self.renewed(model, self.draw(model, prng.split(key, 3)[0], monitor), key)

        def evidence(key: jax.Array) -> Evidence:
            return self.log_evidence(model, draws, key, monitor)

        return run_of(model, draws, key, configuration, evidence, self.evidence_stands_alone)

    def renewed(self, model: TwoStageModel, draws: Draws, key: jax.Array) -> Draws:
        """Check that conditional SMC leaves the law of theta_2 as it is, where that can be done.

        Parameters
        ----------
        model : TwoStageModel
        draws : Draws
            From :meth:`draw`.
        key : PRNG key
            Of the run.
        """
        if draws.other_target or draws.exhausted or model.dimension > _LARGEST_RENEWED:
            return draws
        if self.num_renewed == 0:
            return draws.also(unverified=["renewed theta_2 (num_renewed = 0)"])
        pair = (draws.values["theta_1"], draws.values["theta_2"])
        return draws.also([check_renewed(model, prng.fold_in(key, 4), *pair, self.num_renewed)])


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
