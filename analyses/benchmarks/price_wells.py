"""What not knowing Z costs where agreement is not quadratic, against NUTS with the exact Z."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float
from numpyro.infer import NUTS
from scipy.interpolate import CubicSpline

from analyses.benchmarks.hard_cases import scores
from analyses.tables import markdown_table
from generative import TwoStageModel, problems
from generative.problems import Problem
from generative.problems.wells import random_rotation
from inference import HMC

_CASES = ((20, "residuals"), (20, "disagreement"), (50, "residuals"))
_REPEATS = 3
_NUM_WARMUP, _NUM_DRAWS, _NUM_CHAINS = 800, 1000, 4
_GRID = np.linspace(-9.0, 9.0, 2001)
# Doubling and the comparison with fresh samples draw as often again, and sample no better.
_HMC = HMC(max_doublings=0, num_fresh=0)
_HEADER = ["d", "inference is given", "sampler", "min ESS", "min ESS / s", "ratio to NUTS"]
_HEADER += ["largest z of a mean"]


def section() -> str:
    """Run all cases and return their section of the page."""
    rows = [row for d, form in _CASES for row in _case(d, form)]
    return (
        "## Rotated wells\n\nA hard case: C is quartic, log Z is not quadratic, and the exchange "
        "ratio is bridged. NUTS is given log Z, as a cubic spline of its quadrature along each "
        "well, which nobody has in practice: it is the limit. "
        f"{_NUM_CHAINS} x {_NUM_DRAWS} draws by default settings; time is that of the draws, "
        f"compilation and warm-up not counted; medians over {_REPEATS} interleaved runs with "
        "different seeds. Of some hundred standard normals the largest is about 3.\n\n"
    ) + markdown_table(_HEADER, rows)


def _case(d: int, form: str) -> list[list[str]]:
    problem = problems.get("rotated_wells", d=d, form=form)
    nuts = _nuts(problem)
    found: dict[str, list[tuple[float, float, float]]] = {"NUTS, exact Z": [], "HMC": []}
    for seed in range(_REPEATS):
        key = jax.random.key(seed)
        found["NUTS, exact Z"].append(_measured(problem, *nuts(key)))
        draws = _HMC.draw(problem.model, key)
        found["HMC"].append(_measured(problem, draws.values, draws.seconds))
    base = np.array(found["NUTS, exact Z"])[:, 1]
    rows = []
    for name, measured in found.items():
        ess, speed, z = np.array(measured).T
        ratio = np.median(speed / base)
        shown = [f"{np.median(ess):.0f}", f"{np.median(speed):.0f}", f"{ratio:.3f}"]
        rows.append([str(d), form, name, *shown, f"{z.max():.1f}"])
    return rows


def _nuts(problem: Problem) -> Callable[[jax.Array], tuple[dict[str, np.ndarray], float]]:
    """Return a function of a key: NUTS's draws, and seconds that they took once compiled."""
    kernel, arguments = NUTS(_program), (problem.model, _spline(problem))

    @jax.jit
    def start(key: jax.Array) -> Any:
        keys = jax.random.split(key, _NUM_CHAINS)
        return jax.vmap(lambda key: kernel.init(key, _NUM_WARMUP, None, arguments, {}))(keys)

    @partial(jax.jit, static_argnums=1)
    def sweeps(state: Any, number: int) -> tuple[Any, dict[str, Array]]:
        def sweep(state: Any, _: None) -> tuple[Any, dict[str, Array]]:
            state = jax.vmap(lambda one: kernel.sample(one, arguments, {}))(state)
            return state, state.z

        return jax.lax.scan(sweep, state, None, number)

    def draw(key: jax.Array) -> tuple[dict[str, np.ndarray], float]:
        state, _ = sweeps(start(key), _NUM_WARMUP)
        jax.block_until_ready(sweeps(state, _NUM_DRAWS))  # compiled
        begun = time.perf_counter()
        _, draws = jax.block_until_ready(sweeps(state, _NUM_DRAWS))
        seconds = time.perf_counter() - begun
        return {name: np.swapaxes(np.asarray(x), 0, 1) for name, x in draws.items()}, seconds

    return draw


def _measured(
    problem: Problem, values: dict[str, np.ndarray], seconds: float
) -> tuple[float, float, float]:
    """Smallest bulk effective size, the same per second, and the largest z of a mean."""
    pair = np.concatenate([values["theta_1"], values["theta_2"]], axis=-1)
    ess = min(float(np.asarray(az.ess(x))) for x in np.moveaxis(pair, -1, 0))
    return ess, ess / seconds, scores(problem, values).largest_z


def _spline(problem: Problem) -> dict[str, Array]:
    """Log Z as a cubic spline of each well's own coordinate."""
    known = problem.truth.log_normalizer
    assert known is not None
    turn = random_rotation(np.random.default_rng(0), problem.model.dimension)  # as the problem's
    everywhere = np.broadcast_to(_GRID[:, None], (len(_GRID), len(turn)))
    along = known(everywhere @ turn) / len(turn)
    return {"turn": jnp.asarray(turn), "c": jnp.asarray(CubicSpline(_GRID, along).c)}


def _log_z(spline: dict[str, Array], theta: Float[Array, " d"]) -> Float[Array, ""]:
    x = spline["turn"] @ theta
    step = _GRID[1] - _GRID[0]
    cell = jnp.clip(jnp.floor((x - _GRID[0]) / step).astype(int), 0, len(_GRID) - 2)
    left = x - (_GRID[0] + step * cell)
    c = spline["c"][:, cell]
    return jnp.sum(((c[0] * left + c[1]) * left + c[2]) * left + c[3])


def _program(model: TwoStageModel, spline: dict[str, Array]) -> None:
    theta_1 = numpyro.sample("theta_1", model.first_stage.around(model.theta_0))
    theta_2 = numpyro.sample("theta_2", model.second_stage.around(theta_1))
    penalty = model.agreement.strength * model.agreement.disagreement(theta_2)
    numpyro.factor("agreement", -penalty - _log_z(spline, theta_1))
    model.observe(theta_2)
