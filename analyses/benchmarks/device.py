"""An accelerator beside the processor: every backend, chains at once, Langevin steps by size."""

import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from analyses.benchmarks.hard_cases import scores
from analyses.benchmarks.sgld import SIZES, interleaved, loops, network_model
from analyses.files import keep, read_kept
from analyses.processes import NoResult, bounded
from analyses.provenance import heading, publish
from analyses.tables import markdown_table
from generative import problems
from inference import infer
from inference.backends.exchange_warmup import warm_up
from inference.backends.hmc import collect_exchange
from inference.backends.registry import BACKENDS
from inference.kernels.exchange.transported import TransportedExchange
from inference.kernels.negative import PersistentNegative
from inference.moves.chain_kernel import start, sweeps
from inference.running.loop import Loop

_PLATFORMS = ("accelerator", "cpu")
_LONGEST = 240.0  # seconds of one measurement
_MANY_CORES = 8
_TUNED_CHAINS, _NUM_WARMUP = 4, 200
_CHAINS = (4, 64, 1024, 16384)
_LONGEST_SWEEP = 3.0  # seconds; more chains are not tried where a sweep would take longer
_NUM_QUESTIONS = 1000
# (dtype, precision of products of matrices); a GPU's default rounds factors to 10 bits.
_PRECISIONS = {
    "float32, default products": ("float32", None),
    "float32": ("float32", "float32"),
    "float64": ("float64", "float64"),
}


def main(out: Path | None) -> int:
    """Run the benchmark."""
    kept = None if out is None else out.with_suffix(".rows.json")
    rows = read_kept(kept)

    def measure(platform: str) -> None:
        for name, work in _measurements().items():
            if f"{platform} {name}" in rows:
                continue
            try:
                found = bounded(_on, (platform, work), _LONGEST)
            except NoResult as error:
                found = str(error)
            rows[f"{platform} {name}"] = found
            print(platform, name, json.dumps(found), flush=True)
            keep(kept, dict(rows))  # a copy: the other platform may add to it meanwhile

    names = {platform: bounded(_on, (platform, _name), _LONGEST) for platform in _PLATFORMS}
    if names["accelerator"] == "cpu":
        del names["accelerator"]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(measure, names))
    publish(_page(rows, names), out)
    if kept is not None:
        kept.unlink()
    return 0


def _measurements() -> dict[str, Callable[[], Any]]:
    """What is measured on each platform, by name."""
    steps = {
        f"{precision} {size}": functools.partial(_langevin, precision, size)
        for precision in _PRECISIONS
        for size in SIZES
    }
    backends = {name: functools.partial(_backend, name) for name in BACKENDS}
    return {"chains": _chains} | backends | steps


def _on(platform: str, work: Callable[[], Any]) -> Any:
    """Do some work on one platform, on processor cores of its own where there are many."""
    jax.config.update("jax_platforms", "cpu" if platform == "cpu" else None)
    jax.config.update("jax_enable_x64", True)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= _MANY_CORES:
        few = len(cores) // 4
        os.sched_setaffinity(0, cores[few:] if platform == "cpu" else cores[:few])
    return work()


def _name() -> str:
    return jax.devices()[0].device_kind


def _backend(name: str) -> list[str]:
    """Run a backend twice on the double well, and time the second run, compiled."""
    problem, backend = problems.get("double_well"), BACKENDS[name]()
    infer(problem.model, backend, seed=1, progress=False)
    began = time.perf_counter()
    run = infer(problem.model, backend, seed=0, progress=False)
    seconds = time.perf_counter() - began
    ess = z = "-"
    if name != "map":
        posterior = run.tree["posterior"].dataset
        found = scores(problem, {n: posterior[n].values for n in ("theta_1", "theta_2")})
        ess, z = f"{found.min_ess:.0f}", f"{found.largest_z:.1f}"
    return [run.result.value, ess, z, f"{seconds:.3g}"]


def _chains() -> list[float]:
    """Sweeps of all chains per second, for each number of chains."""
    model = problems.get("rotated_wells", d=20).model
    kernel = TransportedExchange(model, PersistentNegative(), num_moves=4)
    state = start(kernel, jax.random.split(jax.random.key(0), _TUNED_CHAINS), 0)

    def loop_of(kernel: Any) -> Loop:
        return Loop(sweeps(kernel), jax.tree_util.Partial(collect_exchange, model))

    kernel, _, state = warm_up(kernel, loop_of, state, jax.random.key(1), _NUM_WARMUP, True)

    def sweep(_: jax.Array, state: Any) -> Any:
        return kernel.sample(state)

    rates: list[float] = []
    for number in _CHAINS:
        if rates and number / rates[-1] > _LONGEST_SWEEP:
            break
        many = jax.tree.map(lambda x, n=number: jnp.repeat(x, n // _TUNED_CHAINS, axis=0), state)
        many = many._replace(rng_key=jax.random.split(jax.random.key(2), number))
        rates.append(number / interleaved([(sweep, many)])[0])
    return rates


def _langevin(precision: str, size: int) -> list[float]:
    """Seconds of a step's gradients, and of the step."""
    dtype, products = _PRECISIONS[precision]
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision(products):
        measured = loops(network_model(*SIZES[size], _NUM_QUESTIONS, dtype))
        return interleaved([measured["gradients"], measured["step"]])


def _page(rows: dict[str, Any], names: dict[str, str]) -> str:
    """Assemble the tables; without an accelerator its columns are left out."""
    page = heading("Devices", "concord benchmark device", "float64 unless said")
    page += "\nDevices measured: " + ", ".join(names.values()) + ". "
    if "accelerator" not in names:
        page += "There was no accelerator: what one does has not been measured. "
    page += (
        "Each measurement has a process of its own, which is stopped after "
        f"{_LONGEST / 60:.0f} minutes. Two devices are measured at the same time, on processor "
        "cores of their own, the accelerator with a quarter of them. *Ratio*: how many times "
        "faster the accelerator is. Medians of three rounds after compilation.\n\n"
        "## Langevin steps\n\nThe network, the step and what its gradients are, as in "
        f"`concord benchmark sgld`, with {_NUM_QUESTIONS} questions in C and in L. A GPU's "
        "default precision rounds the factors of float32 products of matrices.\n\n"
    )
    columns = ["gradients, s", "step / gradients"]
    steps = [
        ([precision, str(size)], f"{precision} {size}", _langevin_cells)
        for precision in _PRECISIONS
        for size in SIZES
    ]
    page += _table(rows, names, ["precision", "d, about"], columns, steps)
    page += (
        "\n\n## Chains at once\n\nRotated wells, d = 20, Z unknown: sweeps of the exchange kernel "
        f"per second, all chains together, as warm-up leaves it; {_TUNED_CHAINS} tuned "
        f"chains, copied. -: a sweep of all would take more than {_LONGEST_SWEEP:.0f} s.\n\n"
    )
    chains = [
        ([str(number)], "chains", functools.partial(_chain_cells, i))
        for i, number in enumerate(_CHAINS)
    ]
    page += _table(rows, names, ["chains"], ["sweeps / s"], chains)
    page += (
        "\n\n## Every backend\n\nThe `double_well` by default settings, with one parameter: the "
        "worst case for an accelerator, which pays for every small program that it starts and has "
        "nothing to divide among its threads. *z*: the largest of a mean against quadrature. "
        "Seconds of a second run in the process, with another seed, so that nothing is compiled."
        "\n\n"
    )
    columns = ["verdict", "min ESS", "z", "s"]
    backends = [([name], name, _backend_cells) for name in BACKENDS]
    return page + _table(rows, names, ["backend"], columns, backends)


def _langevin_cells(found: list[float]) -> tuple[list[str], float]:
    gradients, step = found
    return [f"{gradients:.3g}", f"{step / gradients:.2f}"], 1 / step


def _chain_cells(index: int, found: list[float]) -> tuple[list[str], float]:
    if index >= len(found):
        return ["-"], np.nan
    return [f"{found[index]:.3g}"], found[index]


def _backend_cells(found: list[str]) -> tuple[list[str], float]:
    return found, 1 / float(found[-1])


def _table(
    rows: dict[str, Any],
    names: dict[str, str],
    left: list[str],
    columns: list[str],
    lines: Sequence[tuple[list[str], str, Callable[[Any], tuple[list[str], float]]]],
) -> str:
    """One line per measurement: its columns once for each platform, and the ratio of speeds."""
    header = left + [f"{column} ({name})" for name in names.values() for column in columns]
    table = []
    for titles, name, cells_of in lines:
        cells, speeds = list(titles), []
        for platform in names:
            found = rows[f"{platform} {name}"]
            stopped = [found, *["-"] * (len(columns) - 1)], np.nan
            shown, speed = stopped if isinstance(found, str) else cells_of(found)
            cells += shown
            speeds.append(speed)
        ratio = speeds[0] / speeds[-1]
        table.append([*cells, f"{ratio:.2g}" if np.isfinite(ratio) else "-"])
    return markdown_table([*header, "ratio"], table)
