"""Problems whose agreement is not quadratic: their truths by other routes, and their options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from generative import GaussianStage, InvalidInput, problems, simulate
from generative.networks import roots_of_probabilities
from generative.problems import separable
from generative.problems.wells import _Wells
from tests.oracles import coordinate_posterior, linear_posterior, singular_log_normalizer
from tests.statistical import z_limit

SEPARATE = {
    "penalty": lambda t: 200 * (t**2 - 1) ** 2 / 4,
    "log_likelihood": lambda t: -((1 - t) ** 2) / 0.01,
    "s1": 0.4,
    "s2": 0.5,
    "theta_0": -1.1,
    "observed": 1.0,
}
TILTED = {
    "penalty": lambda t: 60 * ((t**2 - 1) ** 2 / 4 + (1 - np.tanh(4 * t)) / 60),
    "log_likelihood": lambda t: -((t + 1) ** 2) / 4,
    "s1": 1.0,
    "s2": 1.0,
    "theta_0": 0.0,
    "observed": -1.0,
}


@pytest.mark.parametrize(
    ("name", "oracle"), [("separate_wells", SEPARATE), ("tilted_wells", TILTED)]
)
def test_one_coordinate_by_adaptive_quadrature(name, oracle):
    truth = problems.get(name, d=1).truth
    for quantity, expected in coordinate_posterior(**oracle).items():
        found = np.squeeze(getattr(truth, quantity))
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9, err_msg=quantity)


def test_quoted_numbers_of_separate_wells():
    truth = problems.get("separate_wells").truth
    np.testing.assert_allclose(truth.mean_1, np.full(8, -0.198), atol=5e-4)
    np.testing.assert_allclose(np.sqrt(np.diag(truth.cov_1)), np.full(8, 0.272), atol=5e-4)
    np.testing.assert_allclose(truth.bits_saved, 37.24, atol=5e-3)


def test_quoted_evidence_of_tilted_wells():
    truth = problems.get("tilted_wells", d=4).truth
    np.testing.assert_allclose(truth.log_evidence, -2.662, atol=5e-4)


def test_wells_are_unequal(seed):
    model = problems.get("tilted_wells", d=1).model.replace(first_stage=GaussianStage(0.0))
    draws = simulate(model, jax.random.key(seed), 4000).theta_2[:, 0]
    share, expected = np.mean(draws < 0), 1 / (1 + np.exp(2))
    assert abs(share - expected) < 0.01 + z_limit() * np.sqrt(expected * (1 - expected) / 4000)


@pytest.mark.parametrize(
    ("wells", "observed"),
    [
        (_Wells(), 0.8),
        (_Wells(200.0, 0.4, 0.5, -1.1, 0.005**0.5, False), 1.0),
        (_Wells(60.0, 1.0, 1.0, 0.0, 2**0.5, False, 1 / 60), -1.0),
        (_Wells(20.0, 0.5, 0.15, 0.0, 0.3, False), 1.0),  # Z has zeros close to the real line
    ],
)
def test_doubling_the_resolution_changes_nothing(wells, observed):
    coordinate = wells.coordinate(observed)
    once, twice = (separable.moments(coordinate, n) for n in (1, 2))
    np.testing.assert_allclose(once, twice, rtol=0, atol=1e-9)
    theta_1 = np.linspace(-4, 4, 33)
    once, twice = (separable.log_normalizer(coordinate, theta_1, n) for n in (1, 2))
    np.testing.assert_allclose(once, twice, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["separate_wells", "tilted_wells"])
def test_a_rotation_turns_the_truth_and_the_model(name):
    plain, turned = (problems.get(name, d=3, rotated=r) for r in (False, True))
    assert turned.truth.log_evidence == pytest.approx(plain.truth.log_evidence, abs=1e-12)
    origin = np.asarray(plain.model.theta_0)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    np.testing.assert_allclose(turned.model.theta_0, rotation.T @ origin, atol=1e-12)
    np.testing.assert_allclose(turned.truth.mean_2, rotation.T @ plain.truth.mean_2, atol=1e-12)
    theta = np.array([[0.3, -1.0, 0.5], [0.1, 0.9, -0.2]])
    np.testing.assert_allclose(
        turned.truth.log_normalizer(theta @ rotation), plain.truth.log_normalizer(theta)
    )
    for function in ("disagreement", "log_likelihood"):
        values = [
            getattr(problem.model, function)(jnp.asarray(theta[0] @ turn))
            for problem, turn in ((plain, np.eye(3)), (turned, rotation))
        ]
        np.testing.assert_allclose(*values, rtol=1e-12)


def test_both_forms_of_separate_wells_are_one_model():
    theta = jnp.array([0.3, -1.2])
    values = [
        problems.get("separate_wells", d=2, form=form).model.disagreement(theta)
        for form in ("residuals", "disagreement")
    ]
    np.testing.assert_allclose(*values, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("separate_wells", "d", 0),
        ("separate_wells", "width", 0.0),
        ("separate_wells", "form", "guess"),
        ("tilted_wells", "tilt", -1.0),
        ("tilted_wells", "second_scale", np.nan),
        ("tilted_wells", "agreement_strength", -3.0),
    ],
)
def test_bad_options_are_named(name, option, value):
    with pytest.raises(InvalidInput, match=option):
        problems.get(name, **{option: value})


@pytest.mark.parametrize(
    "theta_1", [[0.0, 0.0, 0.0, 0.0], [1.3, -0.4, 0.8, 2.1], [-2.0, -1.5, 3.0, -1.0]]
)
def test_singular_product_against_two_dimensional_quadrature(theta_1):
    truth = problems.get("singular_product").truth
    expected = singular_log_normalizer(np.array(theta_1))
    np.testing.assert_allclose(truth.log_normalizer(np.array(theta_1)), expected, atol=1e-7)
    batch = np.tile(theta_1, (2, 3, 1))
    np.testing.assert_allclose(truth.log_normalizer(batch), np.full((2, 3), expected), atol=1e-7)


def test_singular_product_has_no_data(seed):
    problem = problems.get("singular_product")
    truth = problem.truth
    assert problem.model.is_null
    assert truth.log_evidence == 0
    np.testing.assert_array_equal(truth.mean_1, np.zeros(4))
    np.testing.assert_array_equal(truth.cov_1, np.eye(4))
    # theta_1 keeps its prior, so that the bits saved are a mean over the prior.
    theta_1 = np.random.default_rng(seed).normal(size=(4000, 4))
    bits = -truth.log_normalizer(theta_1) / np.log(2)
    assert abs(bits.mean() - truth.bits_saved) < z_limit() * stats.sem(bits)
    draws = simulate(problem.model, jax.random.key(seed), 4000).theta_2
    score = np.mean(draws, axis=0) / stats.sem(draws)
    assert np.abs(score - truth.mean_2).max() < z_limit(4)


def test_covariance_of_the_difference_in_closed_form():
    options = {"d": 1, "m": 1, "num_observations": 1, "second_scale": 1.0, "seed": 17}
    problem = problems.get(
        "linear_gaussian", agreement_strength=0.1, closed_form=False, form="disagreement", **options
    )
    rng = np.random.default_rng(17)
    a, c, b = rng.normal(size=(1, 1)), rng.normal(size=1) * 0.5, rng.normal(size=(1, 1))
    y = b @ rng.normal(size=1) + 0.5 * rng.normal(size=1)
    root = np.sqrt(0.1)
    mean, covariance, _ = linear_posterior(np.ones(1), np.ones(1), root * a, root * c, b, y, 0.25)
    np.testing.assert_allclose(problem.truth.mean_1, mean[:1], atol=1e-10)
    contrast = np.array([-1.0, 1.0])
    expected = contrast @ covariance @ contrast
    np.testing.assert_allclose(problem.truth.cov_difference, [[expected]], atol=1e-10)


@pytest.mark.parametrize("logit", [-1000.0, -30.0, -1.3, 0.0, 0.7, 30.0, 1000.0])
def test_roots_of_probabilities_and_their_derivatives(logit):
    yes, no = special.expit([logit, -logit])
    slope = np.array([0.5 * no * yes**0.5, -0.5 * yes * no**0.5])
    bend = np.array([no * (no - 2 * yes) * yes**0.5, yes * (yes - 2 * no) * no**0.5]) / 4
    first = jax.jacfwd(roots_of_probabilities)
    found = (fn(jnp.asarray(logit)) for fn in (roots_of_probabilities, first, jax.jacfwd(first)))
    expected = (np.sqrt([yes, no]), slope, bend)
    for values, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(values, exact, rtol=1e-12, atol=1e-200)
