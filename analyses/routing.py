"""Which part of the network brings agreement about, and does the world get simpler for it?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Array

from analyses.cells import Cell
from analyses.figures import grouped_bars
from analyses.measures import mean_and_error, with_error
from analyses.tables import markdown_table
from analyses.worlds import WorldAnalysis, difference
from generative import TwoStageModel, networks, problems
from inference import Run
from inference.batches import over_points

# What stage 2 draws afresh.
_PARTS = {
    "nothing": None,
    "scene": "world.scene",
    "human part": "world.human",
    "intended head": "intended",
    "instrumental head": "instrumental",
    "everything": "",
}
_SETTINGS: tuple[networks.Setting, ...] = ("uniform", "intended-fixed", "split")
_CONTROL = "uniform, one stage"


class Routing(WorldAnalysis):
    """C with single parts of stage 2 drawn afresh, by what may move in stage 2.

    A part drawn afresh comes from stage 2 around theta_1 without agreement, and without labels: it
    has the size it had, and has lost what it had in common with the rest. C rises by what agreement
    (and in one stage, the control, what the labels) put into that part. `variety` is the standard
    deviation of a head's answers over held-out questions: if agreement came by making the world
    simple, it would be smaller than in one stage.
    """

    name: ClassVar[str] = "routing"
    varied: ClassVar[tuple[str, ...]] = ("setting",)

    def cells(self) -> Sequence[Cell]:
        """Return a run per setting, and one stage beside it."""
        return [self.cell(name, self.setting(name)) for name in _SETTINGS] + [
            self.cell(_CONTROL, self.setting("uniform"), "one-stage")
        ]

    def reduce(self, runs: Mapping[str, Run]) -> xr.DataTree:
        """Return C of both stages, of theta_2 with parts drawn afresh, and variety of answers."""
        tree = super().reduce(runs)
        key = jax.random.key(self.seed)
        parts = [
            routes_of(problems.get(cell.problem, **cell.options).model, runs[cell.name].tree, key)
            for cell in self.cells()
        ]
        routes = xr.concat(parts, xr.DataArray(tree["case"].values, dims="case", name="case"))
        return xr.DataTree(xr.merge([tree.to_dataset(), routes]), name=self.name)

    def draw(self, tree: xr.DataTree, target: Path) -> None:
        """Draw C as it is, and with each part drawn afresh."""
        grouped_bars(tree.to_dataset(), "afresh", "disagreement_afresh", "C", target)

    def conclude(self, tree: xr.DataTree) -> str:
        """Return the tables, and through what agreement comes."""
        data = tree.to_dataset()
        rows = []
        for case in data["case"].values:
            of = data.sel(case=case)
            afresh = [
                with_error(
                    of["disagreement_afresh"].sel(afresh=part),
                    of["disagreement_afresh_se"].sel(afresh=part),
                    4,
                )
                for part in data["afresh"].values
            ]
            variety = [
                with_error(of["variety"].sel(head=h), of["variety_se"].sel(head=h), 3)
                for h in ("first", "second")
            ]
            first = with_error(of["disagreement_theta_1"], of["disagreement_theta_1_se"], 4)
            rows.append([str(case), first, *afresh, *variety])
        header = ["", "C(theta_1)", *(_column(p) for p in data["afresh"].values)]
        header += ["variety, first head", "second head"]
        return "\n\n".join(
            [markdown_table(header, rows), self._words(data), self.tables(data), self.doubts(data)]
        )

    def _words(self, data: xr.Dataset) -> str:
        words = []
        for case in (*_SETTINGS, _CONTROL):
            of = data.sel(case=case, afresh=list(_PARTS)[1:-1])
            rises = of["rise"].where(of["rise"] > 2 * of["rise_se"])
            name = f"In {case}" if case == _CONTROL else f"With {case} scales"
            if not rises.notnull().any():
                words.append(f"{name} no single part drawn afresh raises C.")
                continue
            most = of.sel(afresh=rises.idxmax())
            words.append(
                f"{name} C rises most, by {float(most['rise']):.4f} ± {float(most['rise_se']):.4f},"
                f" with a fresh {most['afresh'].item()}."
            )
        everything = data.sel(afresh="everything", case="uniform")
        words.append(
            f"Without any agreement in stage 2 C would be {float(everything['rise']):.4f} larger "
            "with uniform scales."
        )
        variety = data.sel(head="first").rename({"variety": "value", "variety_se": "value_se"})
        change, error = difference(variety, "value", "uniform", _CONTROL)
        words.append(
            f"Agreement changes the variety of the first head's answers by {change:+.3f} ± "
            f"{error:.3f}."
        )
        return " ".join(words)


def _column(part: str) -> str:
    return "C(theta_2)" if part == "nothing" else f"fresh {part}"


def routes_of(model: TwoStageModel, tree: xr.DataTree, key: jax.Array) -> xr.Dataset:
    """Means over draws, with errors; `rise` is a mean of differences draw by draw."""
    posterior = tree.children["posterior"].dataset
    thetas = [posterior[name].values for name in ("theta_1", "theta_2")]
    shape = thetas[0].shape[:2]
    flat = [jnp.asarray(x.reshape(-1, model.dimension)) for x in thetas]
    masks = np.array(
        [
            [prefix is not None and name.startswith(prefix) for name in model.space.names]
            for prefix in _PARTS.values()
        ]
    )
    question = model.questions["held_out_right"]
    keys = jax.random.split(key, len(flat[0]))
    found = over_points(Partial(_route, model, masks, question), (keys, *flat), 64)
    values = {}
    for name, x in found.items():
        dim = "head" if name == "variety" else "afresh"
        draws = np.asarray(x).reshape(*shape, -1)
        means = [mean_and_error(draws[..., k]) for k in range(draws.shape[-1])]
        for suffix, column in zip(("", "_se"), np.array(means).T, strict=True):
            values[name + suffix] = (dim, column)
    return xr.Dataset(values, coords={"afresh": list(_PARTS), "head": ["first", "second"]})


def _route(
    model: TwoStageModel, masks: Array, question: Array, draw: tuple[jax.Array, Array, Array]
) -> dict[str, Array]:
    key, a, b = draw
    fresh = model.second_stage.around(a).sample(key)
    costs = jnp.stack([model.agreement.disagreement(jnp.where(mask, fresh, b)) for mask in masks])
    variety = model.answers(b, question).std(axis=1)
    return {"disagreement_afresh": costs, "rise": costs - costs[0], "variety": variety}
