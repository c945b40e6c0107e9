"""What a Langevin step costs beside the gradients that it needs, and how that grows with d."""

import functools
import time
from collections.abc import Callable
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from analyses.provenance import heading, publish
from analyses.tables import markdown_table
from generative import GaussianStage, TwoStageModel, networks
from inference.kernels.langevin.dynamics import LangevinState, LangevinTuning
from inference.kernels.langevin.steps import Langevin
from inference.kernels.langevin.tuning import diagonal_metric
from inference.moves.density import log_joint

# Inputs of the network and units of its scene; the rest is small.
SIZES = {
    10_000: (64, 136),
    100_000: (256, 372),
    1_000_000: (1024, 957),
    10_000_000: (4096, 2429),
}
# Few and many: noise and updates cost the same, gradients do not.
_NUM_QUESTIONS, NUM_NEGATIVES = (100, 1000), 4
# A first iteration pays for fresh memory, which no long run does again.
_ROUNDS, _SECONDS_PER_ROUND, _FEWEST_ITERATIONS = 3, 1.0, 4
_LARGEST_SHARE_OF_MEMORY = 0.5


def main(out: Path | None) -> int:
    """Run the benchmark."""
    header = ["questions", "d", "gradients, s", "step / gradients"]
    header += ["BlackJAX sgld", "optax noisy_sgd"]
    rows, slopes = [], []
    for number in _NUM_QUESTIONS:
        steps = []
        for size in filter(_fits, SIZES):
            with jax.enable_x64(False):  # else BlackJAX's noise is in double precision
                model = network_model(*SIZES[size], number)
                all_loops = list(loops(model).values())
                gradients, ours, two_gradients, *theirs = interleaved(all_loops)
            dimension = model.dimension
            steps.append((dimension, ours))
            ratios = [ours / gradients, *(x / two_gradients for x in theirs)]
            shown = [f"{x:.2f}" for x in ratios]
            rows.append([str(number), str(dimension), f"{gradients:.3g}", *shown])
            print(" ".join(rows[-1]), flush=True)
        sizes, seconds = np.log(np.array(steps)).T
        slopes.append(f"{np.polyfit(sizes, seconds, 1)[0]:.2f}")
    page = heading("Steps of Langevin dynamics", "concord benchmark sgld", "float32")
    page += (
        "\nA two-headed network in single precision, as many questions in C as answers in L; one "
        f"chain, {NUM_NEGATIVES} negative samples, diagonal metric, control variate. *Gradients* "
        "are what one step needs and nothing else: those of C at theta_2 and at the negative "
        "samples, and that of L, in a loop of their own. *Step / gradients* is the time of a whole "
        "step over theirs. For the peers it is the time of their step, on theta_2 alone, over that "
        "of the two gradients that it needs. Medians of interleaved rounds after compilation. What "
        "a step adds, normal numbers and passes over memory, does not depend on the number of "
        "questions.\n\nExponent of the time of a step in d: "
        + ", ".join(f"{x} ({n} questions)" for x, n in zip(slopes, _NUM_QUESTIONS, strict=True))
        + ".\n\n"
    )
    publish(page + markdown_table(header, rows), out)
    return 0


def _fits(dimension: int) -> bool:
    with open("/proc/meminfo") as file:
        total = next(int(line.split()[1]) for line in file if "MemTotal" in line) * 1024
    vectors = 12 * (3 + NUM_NEGATIVES)
    return dimension * 4 * vectors < _LARGEST_SHARE_OF_MEMORY * total


def network_model(
    inputs: int, scene: int, num_questions: int, dtype: DTypeLike = jnp.float32
) -> TwoStageModel:
    """Return a network with as many random questions in C and in L.

    Parameters
    ----------
    inputs, scene : int
        Sizes of the input and of the scene; the other layers are small.
    num_questions : int
    dtype : dtype
    """
    rng = np.random.default_rng(0)
    network = networks.TwoHeadedNetwork.zeros(inputs, scene, 4, 4)
    network = jax.tree.map(lambda x: x.astype(dtype), network)
    scales = networks.stage_scales(network, 0.5, 1.0)
    small, large = rng.normal(size=(2, num_questions, inputs)).astype(dtype)

    def observation(theta: PyTree, inputs: Array) -> None:
        logits = networks.logits(theta, inputs)[0]
        numpyro.sample("answers", dist.Bernoulli(logits=logits))

    return TwoStageModel(
        theta_0=network,
        first_stage=GaussianStage(scales[0]),
        second_stage=GaussianStage(scales[1]),
        residuals=lambda theta: networks.hellinger_residuals(theta, jnp.asarray(small)),
        agreement_strength=10.0 * num_questions,
        observation=observation,
        data={"answers": rng.integers(0, 2, num_questions)},
        inputs=large,
    )


def loops(model: TwoStageModel) -> dict[str, tuple[Callable, PyTree]]:
    """Loops to be timed beside one another: a body, and what it starts from.

    *gradients* is what a step of one chain needs and nothing else, *step* is all of it; then
    *two gradients*, of C and of L at theta_2 alone, and what the peers make of these.
    """
    d, dtype = model.dimension, model.space.origin.dtype
    kernel = Langevin(model)
    step, negative = (jnp.asarray(x, dtype) for x in (1e-3, 1e-2))
    tuning = LangevinTuning(diagonal_metric(model), step, negative, jnp.asarray(1))
    draws = 0.01 * jax.random.normal(jax.random.key(0), (2 + NUM_NEGATIVES, d), dtype)
    state = kernel.init(draws[0], draws[1], draws[2:])

    def of_both(theta: Array) -> Array:
        return log_joint(model, model.space.origin, theta)

    sgld = blackjax.sgld.build_kernel()
    noise = optax.noisy_sgd(1e-6, key=jax.random.key(0))

    def gradients(i: Array, state: LangevinState) -> LangevinState:
        points = jnp.concatenate([state.theta_2[None], state.negative])
        pushes = jax.vmap(kernel.push)(points)
        pull = jax.grad(model.log_likelihood)(state.theta_2)
        second = state.theta_2 + 1e-9 * (pushes[0] + pull)
        return LangevinState(state.theta_1, second, state.negative + 1e-9 * pushes[1:])

    def ours(i: Array, state: LangevinState) -> LangevinState:
        return kernel.step(jax.random.fold_in(jax.random.key(1), i), state, tuning)[0]

    def two_gradients(i: Array, theta: Array) -> Array:
        return theta + 1e-9 * (kernel.push(theta) + jax.grad(model.log_likelihood)(theta))

    def blackjax_step(i: Array, theta: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(1), i)
        return sgld(key, theta, lambda x, _: jax.grad(of_both)(x), None, 1e-6)

    def optax_step(i: Array, carry: tuple[Array, PyTree]) -> tuple[Array, PyTree]:
        theta, moments = carry
        updates, moments = noise.update(-jax.grad(of_both)(theta), moments)
        return optax.apply_updates(theta, updates), moments

    return {
        "gradients": (gradients, state),
        "step": (ours, state),
        "two gradients": (two_gradients, draws[1]),
        "BlackJAX": (blackjax_step, draws[1]),
        "optax": (optax_step, (draws[1], noise.init(draws[1]))),
    }


def interleaved(loops: list[tuple[Callable, PyTree]]) -> list[float]:
    """Median seconds per iteration of each loop, a round of all after the other.

    Parameters
    ----------
    loops : list of pairs
        (index, state) -> state, and the state that it starts from.
    """
    compiled = [_loop(body) for body, _ in loops]
    numbers = []
    for run, (_, start) in zip(compiled, loops, strict=True):
        jax.block_until_ready(run(start, 1))
        numbers.append(max(_FEWEST_ITERATIONS, int(_SECONDS_PER_ROUND / _timed(run, start, 2))))
    rounds = [
        [_timed(run, x[1], n) for run, x, n in zip(compiled, loops, numbers, strict=True)]
        for _ in range(_ROUNDS)
    ]
    return list(np.median(rounds, axis=0))


def _loop(body: Callable) -> Callable:
    return jax.jit(functools.partial(_repeat, body))


def _repeat(body: Callable, start: PyTree, number: Array) -> PyTree:
    return jax.lax.fori_loop(0, number, body, start)


def _timed(run: Callable, start: PyTree, number: int) -> float:
    began = time.perf_counter()
    jax.block_until_ready(run(start, number))
    return (time.perf_counter() - began) / number
