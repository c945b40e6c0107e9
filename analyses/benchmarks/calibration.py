"""Simulation-based calibration of every sampler, and of mistakes that it must see."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, PyTree

from analyses import figures
from analyses.calibration import as_tree, p_values, ranks, simulations
from analyses.files import keep, read_kept
from analyses.provenance import heading, publish, release
from analyses.tables import markdown_table
from generative import GaussianStage, LaplaceStage, TwoStageModel, networks
from generative.setups import set_up
from inference import HMC, SGLD, NestedSampling, RejectionGibbs, TemperedSMC
from inference.backends.base import Sampler
from inference.results.draws import Draws
from inference.running.progress import SILENT, Monitor

_KEPT_EVERY = 20
_LEVEL = 5e-4  # 5 % shared by about a hundred tests
SAMPLERS: tuple[Sampler, ...] = (
    HMC(),
    RejectionGibbs(),
    TemperedSMC(),
    SGLD(),
    NestedSampling(),
)
_NUM_QUESTIONS = 6


def two_wells() -> TwoStageModel:
    """C = |(t^2 - 1) / sqrt 2|^2 / 2 in two dimensions, one noisy look at each coordinate."""
    return TwoStageModel(
        theta_0=jnp.full(2, 0.2),
        first_stage=GaussianStage(1.0),
        second_stage=GaussianStage(1.0),
        disagreement=_wells,
        agreement_strength=6.0,
        observation=_look,
        data={"y": np.zeros(2)},
    )


def two_deep_wells() -> TwoStageModel:
    """The same with ten times the agreement: between the wells of a coordinate are 15 nats."""
    return two_wells().replace(agreement_strength=60.0)


def kinks_and_fixed() -> TwoStageModel:
    """Laplace stages; the second one leaves a block where the first one put it."""
    return TwoStageModel(
        theta_0={"heads": jnp.zeros(2), "world": jnp.zeros(1)},
        first_stage=LaplaceStage(0.5),
        second_stage=LaplaceStage({"heads": 0.7, "world": 0.0}),
        disagreement=_difference,
        agreement_strength=5.0,
        observation=_look_at_all,
        data={"y": np.zeros(2)},
    )


def small_network() -> TwoStageModel:
    """A two-headed network of 30 parameters with a yes or a no to each of six questions."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(_NUM_QUESTIONS, 3))
    asked = jax.device_put(rng.normal(size=(4, 3)))
    network = networks.TwoHeadedNetwork.zeros(inputs=3, scene=3, human=2, hidden=2)
    first, second = networks.stage_scales(network, 1.0, 0.7)
    return TwoStageModel(
        theta_0=network,
        first_stage=GaussianStage(first),
        second_stage=GaussianStage(second),
        residuals=jax.tree_util.Partial(_disagree, asked),
        agreement_strength=40.0,
        observation=_answers,
        data={"answers": np.zeros(_NUM_QUESTIONS, int)},
        inputs=inputs,
    )


CASES: dict[str, Callable[[], TwoStageModel]] = {
    "two wells": two_wells,
    "two deep wells": two_deep_wells,
    "Laplace, one block fixed": kinks_and_fixed,
    "network": small_network,
}
# Of a network they take ten times as long.
_NUM_SIMULATIONS = dict.fromkeys(CASES, 200) | {"network": 100}


class Mistaken(Sampler):
    """A sampler that believes a wrong model, as a control.

    Parameters
    ----------
    sampler : Sampler
    mistake : callable
        Model to the wrong model.
    """

    sampler: Sampler
    mistake: Callable[[TwoStageModel], TwoStageModel]

    def draw(self, model: TwoStageModel, key: jax.Array, monitor: Monitor = SILENT) -> Draws:
        """Draw from the wrong posterior."""
        return self.sampler.draw(self.mistake(model), key, monitor)


def _without_z(model: TwoStageModel) -> TwoStageModel:
    return set_up(model, "z-omitted")


def _wide_prior(model: TwoStageModel) -> TwoStageModel:
    return model.replace(first_stage=GaussianStage(1.2))


class Control(NamedTuple):
    """A run that must not be calibrated, with the number of simulations that show it."""

    case: str
    sampler: Sampler
    num_simulations: int


_ONE_MOVE = HMC(negative="persistent", num_moves=1, max_doublings=0)
CONTROLS = {
    "HMC, Z omitted": Control("two wells", Mistaken(sampler=HMC(), mistake=_without_z), 200),
    # A small error needs many simulations.
    "HMC, prior scale x 1.2": Control(
        "two wells", Mistaken(sampler=HMC(), mistake=_wide_prior), 400
    ),
    # Of wells that are not deep a sample forgets enough in one move.
    "HMC, one move per negative sample": Control("two deep wells", _ONE_MOVE, 200),
}
_NOTE = (
    "Parameters and data are drawn from the model, and the true value of each quantity is ranked "
    "among 99 draws of a default run. *p* is the smallest of the quantities' p-values of uniform "
    "ranks, by ArviZ's pointwise order-based test, with the quantity that has it; a cell is "
    "*calibrated* if p is at least 5e-4, which is 5 % shared by about a hundred tests. "
    "Every simulation counts, also those whose run says that it has not converged: leaving them "
    "out would condition on the data. The controls must not be calibrated. The "
    "page grows cell by cell: what is not in it has not been run.\n\n"
    "Quantities: C(theta_1) and C(theta_2), L, the log joint density, theta_1 along the direction "
    "in which C changes most, and along it (w - theta_1) / s2^2 where draws come with negative "
    "samples.\n\n"
)


_CAPTION = (
    "Distribution functions of ranks less those of uniform ones, two wells; points are those that "
    "the test holds against them."
)


def main(out: Path | None) -> int:
    """Run the benchmark; what is done beside `out` is not done again, and shown as it comes."""
    kept = None if out is None else out.with_suffix(".rows.json")
    done = read_kept(kept)
    trees: dict[tuple[str, str], xr.DataTree] = {}
    for case, name, sampler, number in _cells():
        rows = done.setdefault(f"{case}: {name}", [])
        for row in simulations(CASES[case](), sampler, range(len(rows), number)):
            rows.append(row)
            if len(rows) % _KEPT_EVERY == 0 or len(rows) == number:
                print(f"{case}: {name}: {len(rows)} of {number}", flush=True)
                keep(kept, done)
        trees[case, name] = as_tree(rows)
        publish(_page(trees), out)
        release()
    if out is not None and kept is not None:
        picture = out.with_suffix(".png")
        shown = {name: ranks(trees["two wells", name]) for name in ("HMC", "HMC, Z omitted")}
        figures.calibration(shown, picture)
        publish(f"{_page(trees)}\n\n{_CAPTION}\n\n![Ranks]({picture.name})", out)
        kept.unlink(missing_ok=True)
    return 0


def _cells() -> list[tuple[str, str, Sampler, int]]:
    controls = [(c.case, name, c.sampler, c.num_simulations) for name, c in CONTROLS.items()]
    return controls + [
        (case, type(sampler).__name__, sampler, _NUM_SIMULATIONS[case])
        for sampler in SAMPLERS
        for case in CASES
    ]


def _page(trees: dict[tuple[str, str], xr.DataTree]) -> str:
    rows = [_row(case, name, tree) for (case, name), tree in trees.items()]
    header = ["case", "sampler", "simulations", "without draws", "share converged", "p"]
    header += ["quantity", "found"]
    page = heading("Simulation-based calibration", "concord benchmark calibration")
    return page + "\n" + _NOTE + markdown_table(header, rows)


def _row(case: str, name: str, tree: xr.DataTree) -> list[str]:
    p = p_values(tree)
    worst = min(p, key=p.__getitem__)
    group = tree["prior_sbc"]
    return [
        case,
        f"{name} (control, must fail)" if name in CONTROLS else name,
        str(group.sizes["simulation"]),
        str(int(np.isnan(group[worst]).sum())),
        f"{float(group['converged'].mean()):.2f}",
        f"{p[worst]:.2g}",
        worst,
        "calibrated" if p[worst] >= _LEVEL else "NOT calibrated",
    ]


def _wells(theta: Array) -> Array:
    return jnp.sum((theta**2 - 1) ** 2) / 4


def _look(theta: Array) -> None:
    numpyro.sample("y", dist.Normal(theta, 0.5).to_event(1))


def _difference(theta: dict[str, Array]) -> Array:
    return jnp.sum((theta["heads"] - jnp.tanh(2 * theta["world"])) ** 2) / 2


def _look_at_all(theta: dict[str, Array]) -> None:
    seen = jnp.stack([theta["heads"].sum(), theta["world"].sum()])
    numpyro.sample("y", dist.Normal(seen, 0.5).to_event(1))


def _disagree(asked: Array, network: PyTree) -> Array:
    return networks.hellinger_residuals(network, asked)


def _answers(network: PyTree, inputs: Array) -> None:
    numpyro.sample("answers", dist.Bernoulli(logits=networks.logits(network, inputs)[0]))
