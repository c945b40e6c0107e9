"""What not knowing Z costs: minimum ESS per second against NUTS with the exact Z."""

from pathlib import Path
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.scipy.special import logsumexp
from numpyro.infer import MCMC, NUTS

from analyses.benchmarks import price_wells
from analyses.provenance import heading, publish
from analyses.tables import markdown_table
from generative import TwoStageModel, problems
from generative.problems import Truth
from inference import HMC
from inference.backends.base import Sampler

_DIMENSIONS = (20, 100)
_REPEATS = 3
_NAIVE_SAMPLES = 1000
_CONTENDERS: dict[str, tuple[dict[str, Any], Sampler]] = {
    "NUTS, exact Z": ({"closed_form": True}, HMC(kernel="nuts")),
    "exchange, residuals": (
        {"closed_form": False},
        HMC(kernel="exchange", negative="persistent", max_doublings=0),
    ),
    "exchange, C alone": (
        {"closed_form": False, "form": "disagreement"},
        HMC(kernel="exchange", negative="persistent", max_doublings=0),
    ),
    "joint HMC, residuals": (
        {"closed_form": False},
        HMC(kernel="joint", negative="persistent", max_doublings=0),
    ),
    "joint HMC, C alone": (
        {"closed_form": False, "form": "disagreement"},
        HMC(kernel="joint", negative="persistent", max_doublings=0),
    ),
}


def main(out: Path | None) -> int:
    """Run the benchmark."""
    header = ["d = m", "sampler", "min ESS / s", "ratio to NUTS", "worst mean, posterior sd"]
    rows = []
    for d in _DIMENSIONS:
        rows += _one_dimension(d)
    rows.append(_naive(20))
    page = heading("The price of an unknown Z", "concord benchmark price")
    page += (
        "\n## Linear and Gaussian\n\nA best case: the posterior of the linear-Gaussian problem, "
        "where surrogates are exact. Time is that of 4 x 1000 draws, warm-up and "
        f"compilation not counted; medians over {_REPEATS} interleaved runs with different seeds. "
        "The last column is the largest error of a posterior mean. The naive peer replaces log Z "
        f"by the log of a mean over {_NAIVE_SAMPLES} fixed draws of the second stage.\n\n"
    )
    page += markdown_table(header, rows)
    publish(page, out)  # what follows takes longer
    publish(f"{page}\n\n{price_wells.section()}", out)
    return 0


def _one_dimension(d: int) -> list[list[str]]:
    speeds: dict[str, list[float]] = {name: [] for name in _CONTENDERS}
    errors: dict[str, float] = {}
    for repeat in range(_REPEATS):
        for name, (options, backend) in _CONTENDERS.items():
            problem = problems.get("linear_gaussian", d=d, **options)
            draws = backend.draw(problem.model, jax.random.key(repeat))
            theta = np.concatenate([draws.values["theta_1"], draws.values["theta_2"]], axis=-1)
            ess = min(float(np.asarray(az.ess(theta[..., j]))) for j in range(2 * d))
            speeds[name].append(ess / draws.seconds)
            errors[name] = max(errors.get(name, 0.0), _worst_mean(theta, problem.truth))
    base = np.array(speeds["NUTS, exact Z"])
    return [
        [
            str(d),
            name,
            f"{np.median(values):.0f}",
            f"{np.median(np.array(values) / base):.2f}",
            f"{errors[name]:.3f}",
        ]
        for name, values in speeds.items()
    ]


def _worst_mean(theta: np.ndarray, truth: Truth) -> float:
    assert truth.mean_1 is not None
    assert truth.cov_1 is not None
    assert truth.mean_2 is not None
    assert truth.cov_2 is not None
    mean = np.concatenate([truth.mean_1, truth.mean_2])
    spread = np.sqrt(np.concatenate([np.diag(truth.cov_1), np.diag(truth.cov_2)]))
    return float(np.max(np.abs(theta.mean(axis=(0, 1)) - mean) / spread))


def _naive(d: int) -> list[str]:
    problem = problems.get("linear_gaussian", d=d, closed_form=False)
    mcmc = MCMC(
        NUTS(_naive_program),
        num_warmup=800,
        num_samples=1000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), problem.model)
    draws = mcmc.get_samples(group_by_chain=True)
    theta = np.concatenate([draws["theta_1"], draws["theta_2"]], axis=-1)
    error = _worst_mean(theta, problem.truth)
    return [str(d), "NUTS, naive estimate of Z", "-", "-", f"{error:.1f}"]


def _naive_program(model: TwoStageModel) -> None:
    """What one would write first: log Z from a fixed sample, inside the density."""
    theta_1 = numpyro.sample("theta_1", model.first_stage.around(model.theta_0))
    theta_2 = numpyro.sample("theta_2", model.second_stage.around(theta_1))
    strength, disagreement = model.agreement.strength, model.agreement.disagreement
    fixed = jax.random.normal(jax.random.key(0), (_NAIVE_SAMPLES, model.dimension))
    others = theta_1 + jnp.asarray(model.second_stage.scale) * fixed
    log_z = logsumexp(-strength * jax.vmap(disagreement)(others)) - jnp.log(_NAIVE_SAMPLES)
    numpyro.factor("agreement", -strength * disagreement(theta_2) - log_z)
    model.observe(theta_2)
