"""Posteriors against exact answers: z-scores, and the same with Z omitted."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from analyses.benchmarks import hard_cases
from analyses.provenance import heading, publish
from analyses.tables import markdown_table
from generative import problems
from generative.problems import Problem
from inference import HMC, RejectionGibbs
from inference.backends.base import Sampler
from inference.gaussians.first_given_second import FirstGivenSecond
from inference.gaussians.surrogate import agreement_potential, fit
from inference.kernels.exchange.transported import TransportedExchange
from inference.moves.density import log_agreeing, log_joint
from inference.moves.reference_hmc import kinetic_energy

_EXCHANGE = HMC(kernel="exchange", negative="persistent", num_draws=2000, max_doublings=1)
_CASES: list[tuple[str, dict, str, Sampler]] = [
    *(
        ("linear_gaussian", {"d": d, "closed_form": False}, "exchange", _EXCHANGE)
        for d in (2, 20, 100)
    ),
    *(
        (
            "linear_gaussian",
            {"d": d, "closed_form": False},
            "joint HMC",
            HMC(kernel="joint", negative="persistent", num_draws=2000, max_doublings=1),
        )
        for d in (2, 20, 100)
    ),
    (
        "double_well",
        {},
        "exchange, exact negatives",
        HMC(kernel="exchange", negative="rejection", num_draws=4000),
    ),
    ("double_well", {}, "rejection Gibbs", RejectionGibbs(num_draws=4000)),
]


def main(out: Path | None) -> int:
    """Run the benchmark."""
    header = [
        "problem",
        "d",
        "sampler",
        "min ESS",
        "largest z of a mean",
        "largest z of a variance",
    ]
    rows = []
    for name, options, label, backend in _CASES:
        problem = problems.get(name, **options)
        values = backend.draw(problem.model, jax.random.key(0)).values
        rows.append([name, str(problem.model.dimension), label, *_cells(problem, values)])
    for name, options in (("linear_gaussian", {"d": 2, "closed_form": False}), ("double_well", {})):
        problem = problems.get(name, **options)
        scores = _cells(problem, _without_z(problem))
        rows.append([name, str(problem.model.dimension), "Z omitted (control, must fail)", *scores])
    page = heading("Posteriors against exact answers", "concord benchmark posteriors")
    page += (
        "\nZ is unknown to every sampler. z-scores are over all coordinates of theta_1, theta_2 "
        "and theta_2 - theta_1, in Monte Carlo standard errors; of 600 standard normals the "
        "largest is about 3."
        "\n\n"
    )
    page += markdown_table(header, rows)
    page += (
        "\n\n## Acceptance of exact moves of theta_1\n\nDraws of theta_1 from its conditional "
        "given theta_2, linear-Gaussian, d / 2 constraints; mean acceptance over 400 moves.\n\n"
    )
    moves = [
        [str(d), f"{acceptance(d, True):.3f}", f"{acceptance(d, False):.3f}"] for d in (10, 50, 200)
    ]
    page += markdown_table(["d", "transported exchange", "plain exchange"], moves)
    publish(page, out)  # what follows takes much longer
    kept = None if out is None else out.with_suffix(".rows.json")
    publish(page + "\n\n" + hard_cases.section(kept), out)
    if kept is not None:
        kept.unlink()
    return 0


def _cells(problem: Problem, values: dict[str, np.ndarray]) -> list[str]:
    found = hard_cases.scores(problem, values)
    of_variances = max(abs(error) / mcse for error, mcse in found.variances.values())
    return [f"{found.min_ess:.0f}", f"{found.largest_z:.2f}", f"{of_variances:.2f}"]


def acceptance(d: int, transport: bool, seed: int = 0) -> float:
    """Mean acceptance of 400 moves of theta_1 from its exact conditional, d / 2 constraints.

    Parameters
    ----------
    d : int
    transport : bool
        Whether negative samples are transported; False is the plain exchange.
    seed : int
    """
    options = {"d": d, "m": d // 2}
    model = problems.get("linear_gaussian", closed_form=False, **options).model
    exact = problems.get("linear_gaussian", **options).model.agreement.closed_form
    assert exact is not None
    start = jax.random.normal(jax.random.key(1), (4, d))
    surrogate = fit(jax.random.key(2), model, agreement_potential(model), start, 2)
    reference = FirstGivenSecond(model, surrogate)

    def accept(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 4)
        theta_1 = model.first_stage.around(model.theta_0).sample(keys[0])
        theta_2 = exact.sample(keys[1], theta_1)
        mean = reference.mean(theta_2)
        forward, reverse = reference.fluctuation(keys[2]), mean - theta_1
        proposed = mean + forward
        fresh = exact.sample(keys[3], proposed)
        carried = fresh + surrogate.gain(theta_1 - proposed) if transport else fresh
        log_accept = (
            log_joint(model, proposed, theta_2)
            - log_joint(model, theta_1, theta_2)
            + kinetic_energy(reference, forward)
            - kinetic_energy(reference, reverse)
            + log_agreeing(model, theta_1, carried)
            - log_agreeing(model, proposed, fresh)
        )
        return jnp.exp(jnp.minimum(log_accept, 0.0))

    return float(jax.jit(jax.vmap(accept))(jax.random.split(jax.random.key(seed), 400)).mean())


def _without_z(problem: Problem) -> dict[str, np.ndarray]:
    kernel = TransportedExchange(problem.model, omit_normalizer=True)
    state = kernel.init(jax.random.split(jax.random.key(0), 4), 800)

    def step(state: Any, _: None) -> tuple[Any, dict[str, jax.Array]]:
        state = kernel.sample(state)
        return state, state.z

    _, draws = jax.jit(lambda s: jax.lax.scan(step, s, None, 2800))(state)
    return {name: np.swapaxes(np.asarray(x[800:]), 0, 1) for name, x in draws.items()}
