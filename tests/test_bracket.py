"""log p(data) between populations that come from the prior and those that come from the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from analyses.benchmarks.calibration import two_wells
from generative import InvalidInput, problems, simulate, simulate_data
from generative.setups import set_up
from inference import bracket_evidence
from inference.evidence.bracket import reverse_runs
from inference.evidence.planned import plan_populations
from inference.evidence.population import Recipe, populate
from inference.evidence.tempered import by_run
from inference.kernels.negative import ClosedFormNegative
from tests.oracles import coordinate_posterior
from tests.statistical import z_limit

NUM_RUNS, NUM_PARTICLES = 400, 8


def exact_posterior(problem, key, num_draws):
    """Independent draws of (theta_1, theta_2, w), each exact, of a linear-Gaussian problem."""
    truth, model = problem.truth, problem.model
    shared = (truth.cov_1 + truth.cov_2 - truth.cov_difference) / 2
    crossed = np.block([[truth.cov_1, shared], [shared.T, truth.cov_2]])
    mean = np.concatenate([truth.mean_1, truth.mean_2])
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    theta_1, theta_2 = np.split(rng.multivariate_normal(mean, crossed, size=num_draws), 2, axis=1)
    return theta_1, theta_2, agreeing(model, key, theta_1)


def agreeing(model, key, theta_1):
    """One draw of q(. | theta_1) at each theta_1, in closed form."""
    sample = jax.vmap(model.agreement.closed_form.sample)
    return sample(jax.random.split(key, len(theta_1)), jnp.asarray(theta_1))


@pytest.mark.parametrize("setup", ["two-stages", "z-omitted"])
def test_reverse_runs_are_unbiased_for_the_inverse(seed, setup):
    """From posterior draws; the control carries them by the powers of another model."""
    problem = problems.get("linear_gaussian", d=2)
    key_plan, key_draw, key_run = jax.random.split(jax.random.key(seed), 3)
    recipe = Recipe(set_up(problem.model, setup), ClosedFormNegative(), 8)
    planned = plan_populations(recipe, np.zeros((1, 2)), key_plan)
    start = exact_posterior(problem, key_draw, NUM_RUNS)
    copies = (np.repeat(np.asarray(x), NUM_PARTICLES, axis=0) for x in start)
    particles = by_run(populate(recipe.model, *copies), NUM_RUNS)
    found = reverse_runs(planned, key_run, particles)
    ratio = np.exp(problem.truth.log_evidence - found)
    z = (ratio.mean() - 1) / (ratio.std(ddof=1) / np.sqrt(NUM_RUNS))
    assert (abs(z) < z_limit()) == (setup == "two-stages"), z
    assert (found.mean() > problem.truth.log_evidence) or setup != "two-stages"


def test_evidence_lies_between(seed):
    model = two_wells()
    key_true, key_data, key_run = jax.random.split(jax.random.key(seed), 3)
    true = simulate(model, key_true, 1)
    data = {name: x[0] for name, x in simulate_data(model, key_data, true.theta_2).items()}
    found = bracket_evidence(model.replace(data=data), true.theta_1[0], true.theta_2[0], key_run)
    truth = sum(
        coordinate_posterior(
            lambda b: 1.5 * (b**2 - 1) ** 2,
            lambda b, y=float(y): stats.norm.logpdf(y, b, 0.5),
            *(1.0, 1.0, 0.2),
            float(y),
        )["log_evidence"]
        for y in data["y"]
    )
    assert found.lower.value < truth + 4 * found.lower.standard_error
    assert found.upper.value > truth - 4 * found.upper.standard_error
    assert 0 < found.gap.value + 4 * found.gap.standard_error < 1


@pytest.mark.usefixtures("wrong_types")
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"theta_1": np.zeros(3)}, r"theta_1: found shape \(3,\)"),
        ({"theta_2": np.full(2, np.nan)}, "theta_2: found no finite numbers"),
        ({"theta_2": "ab"}, "theta_2"),
        ({"key": 0}, "key"),
        ({"num_runs": 1}, "num_runs"),
        ({"num_particles": 2.5}, "num_particles"),
        ({"model": two_wells().replace(observation=None, data=None)}, "model"),
    ],
)
def test_bad_input_is_refused(changes, match):
    arguments = {"model": two_wells(), "theta_1": np.zeros(2), "theta_2": np.zeros(2)}
    with pytest.raises(InvalidInput, match=match):
        bracket_evidence(**(arguments | {"key": jax.random.key(0)} | changes))
