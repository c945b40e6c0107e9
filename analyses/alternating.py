"""Does the literal alternating rule follow the gradient that -log Z asks for?

The rule moves theta_1 so as to reduce C(new theta_2) - C(old theta_2). It is read in two ways: with
old theta_2 fixed when theta_1 moves (`unrolled`), and with both carried along (`carried`). Each is
compared, at points of an ascent, with the exact force, minus the gradient of log Z(theta_1); and
the rule's fixed point with the joint maximum, with and without Z.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from analyses.figures import curves
from analyses.tables import text_table
from generative import InvalidInput, TwoStageModel, problems
from generative.setups import set_up
from inference import MaximumAPosteriori, log_normalizer
from inference.kernels.density import share
from inference.normalizer.annealing import anneal
from inference.progress import SILENT

BACKEND = MaximumAPosteriori(num_warmup=800, num_steps=1000, num_starts=2)
PROBLEMS = {"linear_gaussian": {"d": 20}, "double_well": {}, "digits": {"num_small": 20}}
_NUM_POINTS, _NUM_PARTICLES, _STEP = 24, 256, 0.1


def main(out: Path, seed: int) -> int:
    """Run the analysis, print its table, and write a tree and a figure."""
    figure = out.with_suffix(".png")
    if figure.exists() or out.exists():
        raise InvalidInput("out", f"{out} exists", "a new name")
    tree = run(seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    tree.to_netcdf(out, engine="h5netcdf")
    curves({name: node.to_dataset() for name, node in tree.children.items()}, figure)
    print(table(tree))
    print(f"tree: {out}\nfigure: {figure}")
    return 0


def run(seed: int, chosen: dict[str, dict] | None = None) -> xr.DataTree:
    """Return one group per problem, dims (step): cosines with the exact force."""
    groups = {}
    for name, options in (PROBLEMS if chosen is None else chosen).items():
        groups[name] = _one(problems.get(name, **options).model, seed)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {"seed": seed, "particles": _NUM_PARTICLES}
    return tree


def table(tree: xr.DataTree) -> str:
    """Return mean cosines and where the fixed points are."""
    header = ["", *tree.children]
    rows = [
        [label, *(f"{float(node[key].mean()):+.2f}" for node in tree.children.values())]
        for label, key in (
            ("cosine, unrolled", "unrolled"),
            ("cosine, carried", "carried"),
            ("largest that noise allows", "ceiling"),
        )
    ]
    for label, key in (
        ("bits saved at the maximum", "bits_maximum"),
        ("bits saved where the rule ends", "bits_rule"),
        ("bits saved without Z", "bits_omitted"),
    ):
        rows.append([label, *(f"{node.attrs[key]:.2f}" for node in tree.children.values())])
    return text_table(header, rows)


def _one(model: TwoStageModel, seed: int) -> xr.Dataset:
    literal = BACKEND.model_copy(update={"rule": "alternating"})
    climbs = {
        "maximum": (BACKEND, model),
        "rule": (literal, model),
        "omitted": (BACKEND, set_up(model, "z-omitted")),
    }
    key = jax.random.key(seed)
    found = {name: backend.climb(m, key, SILENT) for name, (backend, m) in climbs.items()}
    bits = {f"bits_{name}": _bits(model, end.theta_1[0], seed) for name, end in found.items()}
    path, steps = found["maximum"].path, found["maximum"].steps
    chosen = np.unique(np.geomspace(1, len(steps), _NUM_POINTS).astype(int) - 1)
    points = (jnp.asarray(path[name][0, chosen]) for name in ("theta_1", "theta_2"))
    keys = jax.random.split(key, len(chosen))
    cosines = jax.jit(lambda *x: jax.lax.map(lambda y: _cosines(model, *y), x))(keys, *points)
    values = {name: ("step", np.asarray(x)) for name, x in cosines.items()}
    return xr.Dataset(values, coords={"step": steps[chosen]}, attrs=bits)


def _bits(model: TwoStageModel, theta_1: np.ndarray, seed: int) -> float:
    return float(-log_normalizer(model, theta_1, seed=seed).bits)


def _cosines(model: TwoStageModel, key: jax.Array, a: Array, b: Array) -> dict[str, Array]:
    """Cosines of both readings' force on theta_1 with minus the gradient of log Z.

    For location stages that is lambda E_q[grad C(w)]. Its own noise bounds what cosines can show:
    `ceiling` is the root of the cosine of two independent estimates.
    """
    variance = jnp.asarray(model.second_stage.variance)
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
    scale = jnp.asarray(np.sqrt(model.first_stage.variance))  # what a step of theta_1 can use
    found = {name: _cosine(scale * x, scale * exact) for name, x in forces.items()}
    reliability = jnp.maximum(_cosine(scale * first, scale * second), 0)
    # Spearman and Brown's formula, for the mean of two.
    return found | {"ceiling": jnp.sqrt(2 * reliability / (1 + reliability))}


def _cosine(x: Array, y: Array) -> Array:
    return x @ y / jnp.sqrt(jnp.maximum((x @ x) * (y @ y), 1e-300))
