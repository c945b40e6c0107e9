"""Chains that all start in one mode of the likelihood are not believed."""

import jax.numpy as jnp
import numpy as np
import pytest

from generative import GaussianStage, TwoStageModel
from inference import HMC, SGLD, RejectionGibbs, TemperedSMC, infer
from inference.evidence.beside_chains import POPULATIONS, nearness


def far_mode(width, height):
    """A broad mode in which chains start, and a narrow one that has the posterior."""

    def log_likelihood(theta):
        broad = -0.5 * ((theta[0] + 0.7) / 0.3) ** 2
        narrow = height - 0.5 * ((theta[0] - 2.4) / width) ** 2
        return jnp.logaddexp(broad, narrow)

    return TwoStageModel(
        jnp.zeros(1),
        GaussianStage(1.0),
        GaussianStage(0.2),
        disagreement=lambda theta: 0.5 * jnp.sum(jnp.sin(theta) ** 2),
        log_likelihood=log_likelihood,
        agreement_strength=1.0,
    )


# Each with a seed at which all chains start in the broad mode.
CASES = {
    "hmc": (HMC(), far_mode(0.1, 10.0), 0),
    "hmc, runs differ": (HMC(), far_mode(0.02, 12.0), 0),
    "sgld": (SGLD(num_powers=0), far_mode(0.1, 10.0), 2),
    "rejection_gibbs": (RejectionGibbs(), far_mode(0.1, 10.0), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_chains_in_a_mode_without_the_posterior_are_not_believed(case):
    backend, model, seed = CASES[case]
    run = infer(model, backend, seed=seed, progress=False)
    assert float(run.tree["posterior"]["theta_2"].max()) < 1  # or nothing is tested
    failed = {check.name for check in run.checks if not check.passed}
    assert failed == {POPULATIONS}  # which is all that sees it
    assert run.usable == ()


def test_populations_find_that_mode():
    run = infer(far_mode(0.1, 10.0), TemperedSMC(), seed=0, progress=False)
    assert run.usable == ("draws", "log_evidence")
    assert abs(float(run.tree["posterior"]["theta_2"].mean()) - 2.373) < 0.05  # by quadrature


@pytest.mark.parametrize(("share", "passed"), [(0.1, True), (0.0, False)])
def test_a_mode_with_a_tenth_of_the_draws_is_near(share, passed):
    rng = np.random.default_rng(0)
    is_far = rng.random((4, 1000)) < share
    chains = {"x": np.where(is_far, 9.0, 0.0) + rng.normal(size=(4, 1000))}
    populations = {"x": np.stack([np.zeros(64), np.full(64, 9.0)])}
    assert nearness(chains, populations, 1).passed == passed
    assert nearness(chains, populations, 0).passed
