"""The result of a run."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Array

from generative import InvalidInput, TwoStageModel
from generative.parts import Parts
from generative.user_code import traced
from generative.values import require_integer
from inference.batches import over_points
from inference.checks import Check
from inference.estimate import Estimate
from inference.running import folder


class Result(Enum):
    """How a run ended; only `converged` may be used as the posterior.

    `unverified` passed the checks that were made, but one that its method needs was switched off.
    `other_target` passed, and its draws are of another law than the posterior, as was asked for.
    """

    converged = "converged"
    not_converged = "not_converged"
    unverified = "unverified"
    other_target = "other_target"
    non_finite = "non_finite"
    budget_exhausted = "budget_exhausted"

    @property
    def is_usable(self) -> bool:
        """Whether the draws may be used."""
        return self is Result.converged


@dataclass(frozen=True)
class Run:
    """Draws, estimates and verdicts of one run.

    Attributes
    ----------
    tree : xarray.DataTree
        ArviZ groups.
    result : Result
    log_evidence : Estimate or None
        log p(data), nats; None where not estimated, with the reason in `notes`.
    bits_saved : Estimate or None
        Posterior mean of -log Z(theta_1), nats; its `bits` are the number of bits.
    checks : list of Check
    notes : list of str
    usable : tuple of str
        Which parts may be used, of `draws`, `log_evidence` and `maximum`: an evidence from
        independent runs that agree may be right where draws of many modes are too few.
    model : TwoStageModel or None
        None for a run loaded from a folder without its model.

    Examples
    --------
    A run goes to a folder and comes back as it was, with its verdict:

    >>> import jax, tempfile
    >>> jax.config.update("jax_enable_x64", True)
    >>> from generative import problems
    >>> from inference import RejectionGibbs, infer
    >>> model = problems.get("double_well").model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     backend = RejectionGibbs(evidence_particles=0)
    ...     run = infer(model, backend, progress=False, directory=f"{folder}/run")
    ...     again = Run.load(f"{folder}/run")
    >>> again.usable
    ('draws',)
    >>> again.bits_saved == run.bits_saved
    True
    """

    tree: xr.DataTree
    result: Result
    log_evidence: Estimate | None = None
    bits_saved: Estimate | None = None
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    model: TwoStageModel | None = None
    usable: tuple[str, ...] = ()

    def predict(self, inputs: Any, num_draws: int = 200) -> xr.DataArray:
        """Answers of both heads on new inputs, draw by draw.

        Parameters
        ----------
        inputs : pytree
            As `model.heads` takes them.
        num_draws : int
            At most so many draws of theta_2, evenly spaced; a maximum is one.

        Returns
        -------
        xarray.DataArray
            Dims (sample, head, question, ...).

        Raises
        ------
        InvalidInput
            If the model has no heads, or the run was loaded without a model.
        """
        if self.model is None:
            raise InvalidInput("model", "None", "a run with its model: Run.load(directory, model)")
        require_integer("num_draws", num_draws, least=1)
        group = "posterior" if "posterior" in self.tree.children else "map"
        theta_2 = self.tree.children[group].dataset["theta_2"].values
        flat = theta_2.reshape(-1, theta_2.shape[-1])
        chosen = flat[np.linspace(0, len(flat) - 1, min(num_draws, len(flat))).astype(int)]
        model = self.model
        traced("inputs", lambda theta: model.answers(theta, inputs), model.theta_0)
        at = Partial(_answers_to, model, Parts(inputs))
        answers = np.asarray(over_points(at, chosen))
        dims = ["sample", "head", "question", *[f"answer_{i}" for i in range(answers.ndim - 3)]]
        return xr.DataArray(answers, dims=dims, coords={"head": ["first", "second"]})

    def save(self, directory: str | Path) -> None:
        """Write a run folder; see :mod:`inference.running.folder`."""
        summary = {
            "result": self.result.value,
            "log_evidence": None if self.log_evidence is None else vars(self.log_evidence),
            "bits_saved": None if self.bits_saved is None else vars(self.bits_saved),
            "checks": [vars(check) for check in self.checks],
            "notes": self.notes,
            "usable": self.usable,
        }
        folder.save(self.tree, summary, Path(directory))

    @classmethod
    def load(cls, directory: str | Path, model: TwoStageModel | None = None) -> "Run":
        """Read a run folder, after checking its manifest.

        Raises
        ------
        InvalidInput
            If the folder is missing, incomplete or damaged.
        """
        tree, summary = folder.load(Path(directory))

        def estimate(name: str) -> Estimate | None:
            return None if summary[name] is None else Estimate(**summary[name])

        return cls(
            tree,
            Result(summary["result"]),
            estimate("log_evidence"),
            estimate("bits_saved"),
            [Check(**check) for check in summary["checks"]],
            summary["notes"],
            model,
            tuple(summary.get("usable", ())),
        )


def _answers_to(model: TwoStageModel, inputs: Parts, theta: Array) -> Array:
    return model.answers(theta, inputs.whole)
