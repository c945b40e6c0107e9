"""log p(data) between populations that come from the prior and those that come from the truth."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from analyses.benchmarks.calibration import two_wells
from generative import InvalidInput, problems, simulate, simulate_data
from inference import bracket_evidence
from inference.evidence import bracket, pilot, planned
from inference.evidence.bracket import reverse_runs
from inference.evidence.planned import plan_populations
from inference.evidence.population import Recipe, populate
from inference.evidence.prior import annealed_prior
from inference.evidence.tempered import by_run
from inference.kernels.negative import ClosedFormNegative, PersistentNegative, RejectionNegative
from tests.oracles import coordinate_posterior
from tests.statistical import covariance_z, z_limit

NUM_RUNS, NUM_PARTICLES = 400, 8


def exact_posterior(problem, key, num_draws):
    """Independent draws of (theta_1, theta_2, w), each exact, of one linear-Gaussian parameter."""
    truth = problem.truth
    shared = (truth.cov_1 + truth.cov_2 - truth.cov_difference) / 2
    joint = np.block([[truth.cov_1, shared], [shared, truth.cov_2]])
    mean = np.concatenate([truth.mean_1, truth.mean_2])
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    theta_1, theta_2 = np.split(rng.multivariate_normal(mean, joint, size=num_draws), 2, axis=1)
    sample = jax.vmap(problem.model.agreement.closed_form.sample)
    return theta_1, theta_2, sample(jax.random.split(key, num_draws), jnp.asarray(theta_1))


@pytest.mark.parametrize("negative", [ClosedFormNegative(), PersistentNegative(8)])
@pytest.mark.parametrize("is_whole", [True, False])
def test_reverse_runs_are_unbiased_for_the_inverse(seed, monkeypatch, negative, is_whole):
    """From posterior draws; the control goes back to the first power only, and not to the prior."""
    if not negative.is_exact:  # nor are they to become so
        monkeypatch.setattr(planned, "prior_sampler", lambda recipe, key: annealed_prior(recipe))
    problem = problems.get("linear_gaussian", d=1)
    key_plan, key_draw, key_run = jax.random.split(jax.random.key(seed), 3)
    recipe = Recipe(problem.model, negative, 8)
    whole = plan_populations(recipe, np.zeros((1, 1)), key_plan)
    assert type(whole.prior.recipe.negative) is type(negative)
    start = exact_posterior(problem, key_draw, NUM_RUNS)
    copies = (np.repeat(np.asarray(x), NUM_PARTICLES, axis=0) for x in start)
    particles = by_run(populate(problem.model, *copies), NUM_RUNS)
    stages = whole.stages[0 if is_whole else 1 :]
    found = reverse_runs(whole._replace(stages=stages), key_run, particles)
    ratio = np.exp(problem.truth.log_evidence - found)
    z = (ratio.mean() - 1) / (ratio.std(ddof=1) / np.sqrt(NUM_RUNS))
    assert (abs(z) < z_limit()) == is_whole, z
    assert found.mean() > problem.truth.log_evidence or not is_whole


def test_populations_begin_at_the_truth_and_go_back_by_every_power(seed, monkeypatch):
    problem = problems.get("linear_gaussian", d=2)
    model, theta_1, theta_2 = problem.model, jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
    start = bracket.at_truth(jax.random.key(seed), model, theta_1, theta_2, 2000, 2)
    for values, expected in ((start.theta_1, theta_1), (start.theta_2, theta_2)):
        np.testing.assert_array_equal(values, np.broadcast_to(expected, (2000, 2, 2)))
    negative = np.asarray(start.negative)
    np.testing.assert_array_equal(negative[:, 0], negative[:, 1])
    of_q = model.agreement.closed_form
    covariance = np.asarray(jax.vmap(of_q.covariance)(jnp.eye(2)))
    errors = covariance_z(negative[:, 0] - of_q.mean(theta_1), covariance)
    assert np.abs(errors).max() < z_limit(4)

    path, carry = [], bracket.carry

    def recorded(prior, key, particles, old, new, effort):
        path.append((old.power, new.power))
        return carry(prior, key, particles, old, new, effort)

    monkeypatch.setattr(bracket, "carry", recorded)
    whole = plan_populations(Recipe(model, ClosedFormNegative(), 8), negative, jax.random.key(1))
    bracket.reverse_runs(whole, jax.random.key(seed), jax.tree.map(lambda x: x[:4], start))
    powers = [stage.power for stage in whole.stages[::-1]]
    assert path == list(itertools.pairwise([1.0, *powers[:-1]]))
    assert powers[-1] == 0 and len(powers) > 2


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
    assert found.gap.value == pytest.approx(found.upper.value - found.lower.value)
    assert found.gap.value + 4 * found.gap.standard_error < 1
    np.testing.assert_allclose(found.lower.value, found.forward.mean())
    assert "moves per negative sample" in found.lower.note


def test_a_path_that_ends_short_is_refused(monkeypatch):
    monkeypatch.setattr(pilot, "MAX_POWERS", 2)
    with pytest.raises(InvalidInput, match="2 powers"):
        bracket_evidence(two_wells(), np.zeros(2), np.full(2, 5.0), jax.random.key(0))


def test_rejection_that_hits_its_cap_is_replaced(seed, monkeypatch):
    rare = RejectionNegative(1)
    monkeypatch.setattr(bracket, "default_recipe", lambda model: Recipe(model, rare, 32))
    found = bracket_evidence(two_wells(), np.ones(2), np.ones(2), jax.random.key(seed))
    assert "persistent" in found.note or "anneal" in found.note


@pytest.mark.usefixtures("wrong_types")
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"theta_1": np.zeros(3)}, r"theta_1: found shape \(3,\)"),
        ({"theta_2": np.full(2, np.nan)}, "theta_2: found numbers that are not finite"),
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
