"""Derivatives by lambda and the scales, from negative samples, against differences of the truth."""

from typing import NamedTuple

import jax
import numpy as np
import pytest
import xarray as xr

from generative import problems
from generative.problems.linear_gaussian import _truth
from inference import HMC
from inference.results import sensitivity
from inference.results.sensitivity import prior_scores, sensitivities
from tests.statistical import z_limit

D, STRENGTH = 3, 4.0
STEP = 1e-3


class Population(NamedTuple):
    particles: jax.Array


def truth(factor, name):
    """Exact answers with one hyperparameter changed and the data kept."""
    # The problem's own draws, in its order.
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(D, D)) / np.sqrt(D), rng.normal(size=D) * 0.5
    b = rng.normal(size=(2, D)) / np.sqrt(D)
    y = b @ rng.normal(size=D) + 0.5 * rng.normal(size=2)
    values = {"strength": STRENGTH, "first_scale": 1.0, "second_scale": 0.5}
    values[name] *= factor
    root, ones = np.sqrt(values["strength"]), np.ones(D)
    first, second = (values[f"{n}_scale"] ** 2 * ones for n in ("first", "second"))
    return _truth(first, second, root * a, root * c, b, y, 0.25)


def exact(name):
    """Derivatives of log evidence and of the mean of theta_2[0], per factor e."""
    up, down = truth(np.exp(STEP), name), truth(np.exp(-STEP), name)
    evidence = (up.log_evidence - down.log_evidence) / (2 * STEP)
    return evidence, (up.mean_2 - down.mean_2)[0] / (2 * STEP)


def test_the_truth_is_that_of_the_problem():
    known = problems.get("linear_gaussian", d=D, agreement_strength=STRENGTH).truth
    np.testing.assert_allclose(truth(1.0, "strength").log_evidence, known.log_evidence, rtol=1e-12)


def thinned(model, backend, seed, every):
    values = backend.draw(model, jax.random.key(seed)).values
    return [values[name][:, ::every] for name in ("theta_1", "theta_2")]


def derivatives(model, thetas, functional, seed):
    scores = prior_scores(model, *thetas, jax.random.key(seed + 1))
    dims = ("chain", "draw")
    data = xr.Dataset({n: (dims, x) for n, x in scores.items()})
    return sensitivities(xr.Dataset({"x": (dims, functional)}), data)


@pytest.mark.parametrize("wrong", [False, True])
def test_derivatives_without_z(seed, wrong, monkeypatch):
    """Leaving out what negative samples stand for must show in some derivative."""
    model = problems.get(
        "linear_gaussian", d=D, agreement_strength=STRENGTH, closed_form=False
    ).model
    backend = HMC(num_draws=2500, max_doublings=1, evidence_particles=0)
    thetas = thinned(model, backend, seed, 5)
    if wrong:
        unconditioned = lambda key, model, a, n: Population(  # noqa: E731
            model.second_stage.around(a).sample(key, (n,))
        )
        jax.clear_caches()  # what is compiled already anneals
        monkeypatch.setattr(sensitivity, "anneal", unconditioned)
    functional = thetas[1][..., 0]
    found = derivatives(model, thetas, functional, seed)
    if wrong:
        jax.clear_caches()
    worst = 0.0
    for name in found["hyperparameter"].values:
        evidence, mean = exact(str(name))
        of = found.sel(hyperparameter=name)
        error = float(of["log_evidence_se"]) / np.log(2)
        z = [(float(of["log_evidence"]) / np.log(2) - evidence) / error]
        scale = functional.std() / np.log(2)
        difference = float(of["sensitivity"].item()) * scale - mean
        z.append(difference / (float(of["standard_error"].item()) * scale))
        worst = max(worst, *np.abs(z))
    assert (worst < z_limit(6)) == (not wrong), worst


def test_score_of_lambda_in_a_double_well(seed):
    """Where exchange moves accept by w, E_q[C] must still be that of quadrature."""
    model = problems.get("double_well").model
    backend = HMC(kernel="exchange", negative="rejection", num_draws=1500, evidence_particles=0)
    theta_1, theta_2 = thinned(model, backend, seed, 5)
    found = prior_scores(model, theta_1, theta_2, jax.random.key(seed + 1))["strength"]
    t = np.linspace(-8, 8, 4001)
    cost = (t**2 - 1) ** 2 / 4
    weight = np.exp(-0.5 * (t - theta_1) ** 2 - 3 * cost)
    own = (theta_2[..., 0] ** 2 - 1) ** 2 / 4
    exact_score = 3 * ((weight * cost).sum(-1) / weight.sum(-1) - own)
    error = found - exact_score
    assert abs(error.mean()) < z_limit() * error.std() / np.sqrt(error.size) < 0.03
