"""Does the literal alternating rule follow the gradient that -log Z asks for?

The rule moves theta_1 so as to reduce C(new theta_2) - C(old theta_2). It is read in two ways: with
old theta_2 fixed when theta_1 moves (`unrolled`), and with both carried along (`carried`). Each is
compared, at points of an ascent, with the exact force, minus the gradient of log Z(theta_1); and
the rule's fixed point with the joint maximum, with and without Z.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Array

from analyses.analysis import Analysis
from analyses.figures import curves
from analyses.tables import markdown_table
from generative import TwoStageModel, problems
from generative.setups import set_up
from inference import MaximumAPosteriori, Run, log_normalizer
from inference.annealing.anneal import anneal
from inference.batches import over_points
from inference.moves.density import share
from inference.running.progress import SILENT

_Name = Literal["linear_gaussian", "double_well", "digits"]
_OPTIONS: dict[_Name, dict[str, int]] = {
    "linear_gaussian": {"d": 20},
    "double_well": {},
    "digits": {"num_small": 20},
}
_NUM_POINTS, _NUM_PARTICLES, _STEP = 24, 256, 0.1


class Alternating(Analysis):
    """Cosines of the rule's force with the exact one, and where the rule ends.

    Parameters
    ----------
    problems : list of {"linear_gaussian", "double_well", "digits"}
    backend : MaximumAPosteriori
        Climbs to the joint maximum, with Z, without, and by the rule.
    """

    name: ClassVar[str] = "alternating"
    problems: list[_Name] = list(_OPTIONS)
    backend: MaximumAPosteriori = MaximumAPosteriori(num_warmup=800, num_steps=1000, num_starts=2)

    def reduce(self, runs: Mapping[str, Run]) -> xr.DataTree:
        """Return one group per problem, dims (step): cosines with the exact force."""
        found: dict[str, xr.Dataset] = {}
        for name in self.problems:
            model = problems.get(name, **_OPTIONS[name]).model
            found[name] = _one(model, self.backend, self.seed)
        tree = xr.DataTree.from_dict(found, name=self.name)
        tree.attrs = {"particles": _NUM_PARTICLES}
        return tree

    def draw(self, tree: xr.DataTree, target: Path) -> None:
        """Draw the cosines against the step of the ascent."""
        curves({str(name): node.to_dataset() for name, node in tree.children.items()}, target)

    def conclude(self, tree: xr.DataTree) -> str:
        """Return mean cosines, and where the fixed points are."""
        rows = [
            [label, *(f"{float(node[key].mean()):+.2f}" for node in tree.children.values())]
            for label, key in (
                ("cosine, unrolled", "unrolled"),
                ("cosine, carried", "carried"),
                ("largest that noise allows", "ceiling"),
            )
        ]
        for label, key in (
            ("bits saved where the first start ends", "bits_maximum"),
            ("bits saved where the rule ends", "bits_rule"),
            ("bits saved without Z", "bits_omitted"),
        ):
            rows.append([label, *(f"{node.attrs[key]:.2f}" for node in tree.children.values())])
        words = (
            "A cosine of 1 means that the rule moves theta_1 as minus the gradient of log Z asks. "
            "Where the bits where it ends are those without Z, the rule does not see what "
            "agreement saves."
        )
        return "\n\n".join([markdown_table(["", *map(str, tree.children)], rows), words])


def _one(model: TwoStageModel, backend: MaximumAPosteriori, seed: int) -> xr.Dataset:
    literal = backend.model_copy(update={"rule": "alternating"})
    climbs = {
        "maximum": (backend, model),
        "rule": (literal, model),
        "omitted": (backend, set_up(model, "z-omitted")),
    }
    key = jax.random.key(seed)
    found = {name: by.climb(m, key, SILENT) for name, (by, m) in climbs.items()}
    bits = {f"bits_{name}": _bits(model, end.theta_1[0], seed) for name, end in found.items()}
    path, steps = found["maximum"].path, found["maximum"].steps
    chosen = np.unique(np.geomspace(1, len(steps), _NUM_POINTS).astype(int) - 1)
    points = (jnp.asarray(path[name][0, chosen]) for name in ("theta_1", "theta_2"))
    keys = jax.random.split(key, len(chosen))
    cosines = over_points(Partial(_cosines, model), (keys, *points))
    values = {name: ("step", np.asarray(x)) for name, x in cosines.items()}
    return xr.Dataset(values, coords={"step": steps[chosen]}, attrs=bits)


def _bits(model: TwoStageModel, theta_1: np.ndarray, seed: int) -> float:
    return float(-log_normalizer(model, theta_1, seed=seed).bits)


def _cosines(model: TwoStageModel, point: tuple[jax.Array, Array, Array]) -> dict[str, Array]:
    """Cosines of both readings' force on theta_1 with minus the gradient of log Z.

    For location stages that is lambda E_q[grad C(w)]. Its own noise bounds what cosines can show:
    `ceiling` is the root of the cosine of two independent estimates.
    """
    key, a, b = point
    variance = model.second_stage.reference_variance
    strength = model.agreement.strength
    gradient = jax.grad(model.agreement.disagreement)

    def estimate(key: jax.Array) -> Array:
        draws = anneal(key, model, a, _NUM_PARTICLES).particles
        return jax.vmap(gradient)(draws).mean(axis=0)

    first, second = (estimate(k) for k in jax.random.split(key))
    exact = 0.5 * (first + second)

    def joint(b: Array) -> Array:
        return model.log_likelihood(b) - strength * model.agreement.disagreement(b)

    drive = variance * jax.grad(joint)(b)
    new = share(model, a, b + _STEP * (drive - (b - a)))
    forces = {"unrolled": -gradient(new), "carried": -(gradient(new) - gradient(b))}
    scale = jnp.sqrt(model.first_stage.reference_variance)  # what a step of theta_1 can use
    found = {name: _cosine(scale * x, scale * exact) for name, x in forces.items()}
    reliability = jnp.maximum(_cosine(scale * first, scale * second), 0)
    # Spearman and Brown's formula, for the mean of two.
    return found | {"ceiling": jnp.sqrt(2 * reliability / (1 + reliability))}


def _cosine(x: Array, y: Array) -> Array:
    return x @ y / jnp.sqrt(jnp.maximum((x @ x) * (y @ y), 1e-300))
