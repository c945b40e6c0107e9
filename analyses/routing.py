"""Which part of the network brings agreement about, and does the world get simpler for it?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from analyses.cells import Cell
from analyses.figures import grouped_bars
from analyses.measures import with_error
from analyses.tables import markdown_table
from analyses.worlds import WorldAnalysis
from generative import TwoStageModel, networks, problems
from inference import Run

# What is put back to where stage 1 left it.
_PARTS = {
    "scene": "world.scene",
    "human part": "world.human",
    "intended head": "intended",
    "instrumental head": "instrumental",
}
_SETTINGS: tuple[networks.Setting, ...] = ("uniform", "intended-fixed", "split")


class Routing(WorldAnalysis):
    """C with single parts of theta_2 put back to theta_1, by what may move in stage 2.

    A part brought agreement about as far as C rises again without what stage 2 made of it.
    `variety` is the standard deviation of a head's answers over held-out questions: if agreement
    came by making the world simple, it would be smaller than in one stage.
    """

    name: ClassVar[str] = "routing"

    def cells(self) -> Sequence[Cell]:
        """Return a run per setting, and one stage beside it."""
        return [self.cell(name, self.setting(name)) for name in _SETTINGS] + [
            self.cell("uniform, one stage", self.setting("uniform"), "one-stage")
        ]

    def reduce(self, runs: Mapping[str, Run]) -> xr.DataTree:
        """Return C of both stages, of theta_2 with parts put back, and the variety of answers."""
        tree = super().reduce(runs)
        parts = [
            _routes(problems.get(cell.problem, **cell.options).model, runs[cell.name].tree)
            for cell in self.cells()
        ]
        routes = xr.concat(parts, xr.DataArray(tree["case"].values, dims="case", name="case"))
        return xr.DataTree(xr.merge([tree.to_dataset(), routes]), name=self.name)

    def draw(self, tree: xr.DataTree, target: Path) -> None:
        """Draw C as it is, and with each part put back."""
        grouped_bars(tree.to_dataset(), "put_back", "disagreement_put_back", "C", target)

    def conclude(self, tree: xr.DataTree) -> str:
        """Return the tables, and through what agreement comes."""
        data = tree.to_dataset()
        rows = []
        for case in data["case"].values:
            of = data.sel(case=case)
            back = [
                with_error(
                    of["disagreement_put_back"].sel(put_back=part),
                    of["disagreement_put_back_se"].sel(put_back=part),
                    4,
                )
                for part in data["put_back"].values
            ]
            variety = [
                with_error(of["variety"].sel(head=h), of["variety_se"].sel(head=h), 3)
                for h in ("first", "second")
            ]
            first = with_error(of["disagreement_theta_1"], of["disagreement_theta_1_se"], 4)
            rows.append([str(case), first, *back, *variety])
        header = ["", "C(theta_1)", *(_column(p) for p in data["put_back"].values)]
        header += ["variety, first head", "second head"]
        return "\n\n".join(
            [markdown_table(header, rows), self._words(data), self.tables(data), self.doubts(data)]
        )

    def _words(self, data: xr.Dataset) -> str:
        words = []
        for case in _SETTINGS:
            of = data.sel(case=case)
            whole, error = (float(of[n]) for n in ("disagreement", "disagreement_se"))
            back = of["disagreement_put_back"].drop_sel(put_back="nothing")
            errors = of["disagreement_put_back_se"].drop_sel(put_back="nothing")
            rises = back - whole > 2 * np.hypot(errors, error)
            most = int(back.argmax())
            words.append(
                f"With {case} scales C is {whole:.4f}, and rises most, to {float(back[most]):.4f}, "
                f"without the {str(back['put_back'].values[most])} of stage 2."
                if bool(rises[most])
                else f"With {case} scales C rises without no single part of stage 2."
            )
        fixed = data.sel(case="intended-fixed")
        through = fixed["disagreement_put_back"]
        words.append(
            "With the intended head fixed agreement must come through the rest: C is "
            f"{float(fixed['disagreement']):.4f} there, {float(through.sel(put_back='scene')):.4f} "
            "with the scene put back and "
            f"{float(through.sel(put_back='instrumental head')):.4f} with the instrumental head."
        )
        spread = data["variety"].sel(head="first")
        error = np.hypot(
            float(data["variety_se"].sel(head="first", case="uniform")),
            float(data["variety_se"].sel(head="first", case="uniform, one stage")),
        )
        change = float(spread.sel(case="uniform") - spread.sel(case="uniform, one stage"))
        words.append(
            f"Agreement changes the variety of the first head's answers by {change:+.3f} ± "
            f"{error:.3f}."
        )
        return " ".join(words)


def _column(part: str) -> str:
    return "C(theta_2)" if part == "nothing" else f"{part} put back"


def _routes(model: TwoStageModel, tree: xr.DataTree) -> xr.Dataset:
    """Means over draws, with errors."""
    thetas = [tree["posterior"][name].values for name in ("theta_1", "theta_2")]
    shape = thetas[0].shape[:2]
    flat = [jnp.asarray(x.reshape(-1, model.dimension)) for x in thetas]
    masks = {"nothing": np.zeros(model.dimension, bool)}
    for name, prefix in _PARTS.items():
        masks[name] = np.array([p.startswith(prefix) for p in model.space.names])
    question = model.questions["held_out_right"]

    def one(pair: tuple[Array, Array]) -> dict[str, Array]:
        a, b = pair
        back = jnp.stack(
            [model.agreement.disagreement(jnp.where(mask, a, b)) for mask in masks.values()]
        )
        return {"disagreement_put_back": back, "variety": model.answers(b, question).std(axis=1)}

    found = jax.jit(lambda x: jax.lax.map(one, x, batch_size=64))(tuple(flat))
    values = {}
    dims = {"disagreement_put_back": "put_back", "variety": "head"}
    for name, x in found.items():
        draws = np.asarray(x).reshape(*shape, -1)
        values[name] = (dims[name], draws.mean((0, 1)))
        errors = [float(np.asarray(az.mcse(draws[..., i]))) for i in range(draws.shape[-1])]
        values[f"{name}_se"] = (dims[name], np.array(errors))
    coords = {"put_back": list(masks), "head": ["first", "second"]}
    return xr.Dataset(values, coords=coords)
