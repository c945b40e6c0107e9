"""Whether theta_2 is where the data want it: conditional SMC given theta_1 and data, as a check."""

import jax
import numpy as np
import pytest

from generative import problems
from inference import HMC, NestedSampling, TemperedSMC, infer
from inference.annealing.certificate import check_renewed
from inference.annealing.conditional_smc import annealed_populations
from inference.annealing.given_data import given_data
from tests.statistical import z_limit

GRID = np.linspace(-2.0, 2.0, 4001)
# The data hold theta_2 in the right-hand well, which a move from the left-hand one never reaches.
FAR = {"first_scale": 0.1, "second_scale": 0.4, "width": 0.18}


def wells(d=1, **options):
    """Return separate wells, with data that hold theta_2 on the right more or less firmly."""
    return problems.get("separate_wells", d=d, **options).model


def exact_draws(key, theta_1, second_scale, **options):
    """Draw theta_2 given theta_1 and the data, coordinate by coordinate, on a grid."""
    one = wells(second_scale=second_scale, **options)
    penalty = one.agreement.strength * jax.vmap(one.agreement.disagreement)(GRID[:, None])
    gain = jax.vmap(one.log_likelihood)(GRID[:, None]) - penalty
    logits = gain - 0.5 * ((GRID - np.asarray(theta_1)[..., None]) / second_scale) ** 2
    return GRID[np.asarray(jax.random.categorical(key, logits))]


@pytest.mark.parametrize("from_draws", [True, False])
def test_draws_made_of_draws_have_their_law_whatever_the_pilot_finds(seed, from_draws):
    options = {"second_scale": 0.5, "width": 0.53}
    theta_1 = np.full((4096, 1), -0.85)
    key_exact, key_made = jax.random.split(jax.random.key(seed))
    exact = exact_draws(key_exact, theta_1, **options)
    share = (exact > 0).mean()
    assert 0.2 < share < 0.8  # or nothing is tested
    start = exact if from_draws else None
    settings = (given_data(wells(**options)), theta_1, 4, 1, start)
    made = annealed_populations(key_made, *settings)[0][:, 0]
    z = ((made > 0).mean() - share) / np.sqrt(2 * share * (1 - share) / len(theta_1))
    assert (abs(z) < z_limit()) == from_draws, z
    assert np.mean(made != exact) > 0.5


@pytest.mark.parametrize("stuck", [False, True])
def test_renewing_shows_a_well_that_theta_2_never_visits(seed, stuck):
    model = wells(d=2, **FAR)
    key_1, key_2, key_check = jax.random.split(jax.random.key(seed), 3)
    theta_1 = np.asarray(-1.0 + 0.1 * jax.random.normal(key_1, (4, 16, 2)))
    options = {"second_scale": FAR["second_scale"], "width": FAR["width"]}
    theta_2 = exact_draws(key_2, theta_1, **options)
    theta_2 = -np.abs(theta_2) if stuck else theta_2
    check = check_renewed(model, key_check, theta_1, theta_2, 64)
    assert check.passed != stuck, check.message
    assert check.about == "both"


# With seeds at which the runs agree.
@pytest.mark.parametrize(("backend", "seed"), [(TemperedSMC(), 1), (NestedSampling(), 0)])
def test_runs_that_agree_where_no_draw_of_the_prior_is_are_not_believed(backend, seed):
    """Agreement of runs, and of moves with reweighting, said 44 nats too little with confidence."""
    problem = problems.get("separate_wells", d=1, **FAR)
    run = infer(problem.model, backend, seed=seed, progress=False)
    assert (
        run.log_evidence.value < problem.truth.log_evidence - 10 * run.log_evidence.standard_error
    )
    failed = {check.name for check in run.checks if not check.passed}
    assert "renewed_theta_2" in failed, run.checks
    assert run.usable == ()


def test_a_run_that_skips_renewal_is_unverified():
    problem = problems.get("linear_gaussian", d=2)
    run = infer(problem.model, HMC(num_renewed=0, evidence_particles=0), seed=0, progress=False)
    assert run.result.value == "unverified"
    assert any("num_renewed = 0" in note for note in run.notes)
