"""log Z(theta_1): values, honest errors, brackets, differences, gradients, and hard cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from generative import GaussianStage, InvalidInput, LaplaceStage, TwoStageModel, problems
from inference import differentiable_log_normalizer, log_normalizer, log_normalizer_difference
from inference.annealing.anneal import anneal, anneal_along
from inference.annealing.bidirectional import (
    acceptance_ratio,
    forward_work,
    missed_region,
    reverse_work,
)
from inference.annealing.path import Path
from inference.gaussians.linearized import Linearized
from inference.gaussians.surrogate import flat
from inference.normalizer import gauss_newton
from inference.normalizer.along import log_normalizer_along
from inference.normalizer.importance import importance
from inference.normalizer.score import score

from .statistical import covers, z_limit

HIDDEN = {"closed_form": False}
C_ALONE = {"closed_form": False, "form": "disagreement"}


def points(problem, seed, number):
    model = problem.model
    return np.asarray(
        model.first_stage.around(model.theta_0).sample(jax.random.key(seed), (number,))
    )


NORMALIZERS = [
    ("importance", "double_well", {}),
    ("importance", "indicator", {"d": 5}),
    ("gauss_newton", "linear_gaussian", {"d": 10} | C_ALONE),
    ("tempered_smc", "linear_gaussian", {"d": 10} | C_ALONE),
    ("tempered_smc", "gaussian_mixture", {"d": 5}),
    ("reverse_annealing", "double_well", {}),
    ("auto", "rotated_wells", {"d": 8}),
    ("closed_form", "linear_gaussian", {"d": 10}),
]


@pytest.mark.parametrize(("method", "name", "options"), NORMALIZERS)
def test_log_normalizer(seed, method, name, options):
    problem = problems.get(name, **options)
    theta_1 = points(problem, seed, 3)
    truth = problem.truth.log_normalizer(theta_1)
    estimate = log_normalizer(problem.model, theta_1, method, seed)
    assert estimate.value.shape == (3,)
    error = np.maximum(estimate.standard_error, 1e-9)
    assert np.all(error < 0.2)
    assert np.abs((estimate.value - truth) / error).max() < z_limit(3)
    assert np.all(estimate.lower <= truth + 1e-9)
    assert np.all(estimate.upper >= truth - 1e-9)
    assert estimate.num_evaluations > 0 or method == "closed_form"


CALIBRATED = [
    ("importance", "double_well", {}, 0.05),
    ("gauss_newton", "double_well", {"form": "residuals"}, 0.1),
    ("tempered_smc", "rotated_wells", {"d": 3}, 0.1),
    ("thermodynamic", "double_well", {}, 0.1),
    pytest.param("importance", "indicator", {"d": 5}, 0.1, marks=pytest.mark.slow),
    pytest.param(
        "tempered_smc", "linear_gaussian", {"d": 20} | C_ALONE, 0.2, marks=pytest.mark.slow
    ),
    pytest.param("tempered_smc", "gaussian_mixture", {"d": 5}, 0.1, marks=pytest.mark.slow),
    pytest.param("tempered_smc", "indicator", {"d": 5}, 0.2, marks=pytest.mark.slow),
    pytest.param(
        "thermodynamic", "linear_gaussian", {"d": 20} | C_ALONE, 0.2, marks=pytest.mark.slow
    ),
    pytest.param("thermodynamic", "gaussian_mixture", {"d": 5}, 0.1, marks=pytest.mark.slow),
    pytest.param("nested", "rotated_wells", {"d": 2}, 0.1, marks=pytest.mark.slow),
    pytest.param("nested", "indicator", {"d": 2}, 0.1, marks=pytest.mark.slow),
    pytest.param("reverse_annealing", "double_well", {}, 0.1, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("method", "name", "options", "target"), CALIBRATED)
def test_standard_errors_are_calibrated_over_200_seeds(seed, method, name, options, target):
    problem = problems.get(name, **options)
    theta_1 = points(problem, 3, 1)
    truth = problem.truth.log_normalizer(theta_1)[0]
    # One point 200 times: each has its own random numbers. The budget is theirs together.
    estimate = log_normalizer(
        problem.model,
        np.repeat(theta_1, 200, axis=0),
        method,
        seed,
        target_standard_error=target,
        max_evaluations=200 * 2_000_000,
    )
    assert covers(estimate.value, estimate.standard_error, truth)
    assert not covers(estimate.value, 0.5 * estimate.standard_error, truth)
    assert np.mean(estimate.lower <= truth) > 0.99
    assert np.mean(estimate.upper >= truth) > 0.99


def test_annealing_along_a_schedule_is_unbiased_and_the_adaptive_run_is_not(seed):
    # The reason for the pilot run.
    problem = problems.get("linear_gaussian", d=20, **HIDDEN)
    model, theta_1 = problem.model, points(problem, 3, 1)[0]
    truth = problem.truth.log_normalizer(theta_1)
    key_pilot, key_runs = jax.random.split(jax.random.key(seed))
    schedule = anneal(key_pilot, model, theta_1, 64).schedule
    keys = jax.random.split(key_runs, 1024)

    def z(run):
        batched = jax.jit(lambda keys: jax.lax.map(run, keys, batch_size=256))
        ratio = np.exp(np.asarray(batched(keys)) - truth)
        return (ratio.mean() - 1) / (ratio.std() / np.sqrt(len(ratio)))

    unbiased = z(lambda key: anneal_along(key, model, theta_1, 64, schedule).log_normalizer)
    assert abs(unbiased) < z_limit()
    assert z(lambda key: anneal(key, model, theta_1, 64, 0.5).log_normalizer) < -z_limit()


def test_a_missed_mode_is_noticed(seed, monkeypatch):
    # The proposal sits in one of two nearly equal wells: alone it would be sure of half of Z. (At
    # 0 itself the residual has no slope, and there would be no proposal.)
    model = problems.get("double_well", form="residuals").model.replace(agreement_strength=200.0)
    grid = np.linspace(-4, 4, 20001)
    log_f = -0.5 * (grid - 0.1) ** 2 - 0.5 * np.log(2 * np.pi) - 200 * (grid**2 - 1) ** 2 / 4
    truth = np.log(np.exp(log_f).sum() * (grid[1] - grid[0]))
    for method in ("gauss_newton", "auto"):
        estimate = log_normalizer(model, np.array([0.1]), method, seed)
        known = np.isfinite(estimate.standard_error)
        assert known or method == "gauss_newton"
        assert not known or abs(estimate.value - truth) < z_limit() * estimate.standard_error
    # Negative control: without the chains' verdict the proposal is sure, and wrong.
    monkeypatch.setattr(gauss_newton, "MAX_UNCOVERED", 1.0)
    monkeypatch.setattr(gauss_newton, "NEARLY_EQUAL", np.inf)
    blind = log_normalizer(model, np.array([0.1]), "gauss_newton", seed)
    assert abs(blind.value - truth) > z_limit() * blind.standard_error


def test_bidirectional_work_is_each_others_reverse(seed):
    # E[exp W] = Z forward, and E[exp -W] = 1 / Z from exact draws: only a true reverse does both.
    problem = problems.get("linear_gaussian", d=3, **HIDDEN)
    exact = problems.get("linear_gaussian", d=3).model.agreement.closed_form
    theta_1 = jnp.asarray(points(problem, 3, 1)[0])
    truth = problem.truth.log_normalizer(theta_1)
    keys = jax.random.split(jax.random.key(seed), 4)
    schedule = anneal(keys[0], problem.model, theta_1, 64).schedule
    path = Path(problem.model, theta_1, flat(problem.model))
    draws = jax.vmap(exact.sample, (0, None))(jax.random.split(keys[1], 4000), theta_1)
    forward = np.asarray(forward_work(keys[2], path, schedule, 4000).log_weights)
    reverse = np.asarray(reverse_work(keys[3], path, schedule, draws).log_weights)
    for ratio in (np.exp(forward - truth), np.exp(truth - reverse)):
        assert abs(ratio.mean() - 1) < z_limit(2) * ratio.std() / np.sqrt(4000)
        assert ratio.std() / np.sqrt(4000) < 0.05
    assert forward.mean() < truth < reverse.mean()
    value, error = acceptance_ratio(forward.reshape(16, -1), reverse.reshape(16, -1))
    assert abs(value - truth) < z_limit() * error < 0.1
    # Negative control: reverse work from draws of the wrong law.
    narrow = draws.mean(axis=0) + 0.7 * (draws - draws.mean(axis=0))
    wrong = reverse_work(keys[3], path, schedule, narrow).log_weights
    ratio = np.exp(truth - np.asarray(wrong))
    assert abs(ratio.mean() - 1) > z_limit(2) * ratio.std() / np.sqrt(4000)


def test_reverse_draws_that_miss_a_plateau_are_found_out(seed):
    # A pilot of 64 particles may meet no agreement at all, and its draws then agree on that.
    rng = np.random.default_rng(seed)
    forward = np.where(rng.uniform(size=(16, 64)) < 0.04, 0.0, -20.0)
    blind = np.full((16, 32), -20.0)
    value, error = acceptance_ratio(forward, blind)
    assert missed_region(forward, value, error)
    seeing = np.zeros((16, 32))  # nearly all of q lives on the plateau
    value, error = acceptance_ratio(forward, seeing)
    assert not missed_region(forward, value, error)
    assert abs(value - np.log(0.04)) < 1.0
    problem = problems.get("indicator", d=5)
    theta_1 = points(problem, 3, 1)[0]
    truth = problem.truth.log_normalizer(theta_1)
    for s in range(8):
        found = log_normalizer(problem.model, theta_1, "reverse_annealing", 8 * seed + s)
        assert abs(found.value - truth) < z_limit() * found.standard_error < 1.0


@pytest.mark.parametrize("zero", [False, True])
def test_matrix_free_linearisation_equals_the_dense_one(seed, zero):
    scale = np.array([1.0, 0.5, 0.0 if zero else 2.0, 1.0])
    model = TwoStageModel(
        jnp.zeros(4),
        GaussianStage(1.0),
        GaussianStage(jnp.asarray(scale)),
        residuals=lambda t: jnp.array([jnp.sin(t[0]) + t[1] * t[2], t[3] ** 2 - t[0], t[2]]),
        agreement_strength=2.0,
    )
    point, x = jax.random.normal(jax.random.key(seed), (2, 4))
    residuals = model.agreement.residuals
    matrix = np.sqrt(2.0) * jax.jacrev(residuals)(point)
    scaled = jax.tree_util.Partial(lambda t: jnp.sqrt(2.0) * residuals(t))
    free = Linearized(scaled, point, jnp.asarray(scale**2))
    from generative import LinearGaussianAgreement

    dense = LinearGaussianAgreement(
        matrix, matrix @ point - np.sqrt(2.0) * residuals(point), scale**2
    )
    for name in ("log_normalizer", "mean", "gain", "covariance", "score", "potential"):
        np.testing.assert_allclose(getattr(free, name)(x), getattr(dense, name)(x), atol=1e-10)
    key = jax.random.key(seed)
    np.testing.assert_allclose(free.sample(key, x), dense.sample(key, x), atol=1e-10)


@pytest.mark.parametrize(
    ("name", "options", "noise_free"),
    [
        ("linear_gaussian", {"d": 20} | HIDDEN, True),
        ("linear_gaussian", {"d": 20} | C_ALONE, True),
        ("rotated_wells", {"d": 5}, False),
    ],
)
def test_differences(seed, name, options, noise_free):
    problem = problems.get(name, **options)
    theta_1 = points(problem, seed, 2)
    truth = np.diff(problem.truth.log_normalizer(theta_1))[0]
    estimate = log_normalizer_difference(problem.model, *theta_1, seed=seed)
    assert estimate.standard_error < (1e-9 if noise_free else 0.1)
    error = max(estimate.standard_error, 1e-9)
    assert abs(estimate.value - truth) < z_limit() * error
    if noise_free:  # at a part of what the values would cost at the same noise
        assert estimate.num_evaluations < 1_000_000


def test_gradient_is_the_score_and_not_that_of_the_particles_paths(seed):
    problem = problems.get("linear_gaussian", d=4, closed_form=False)
    exact = problems.get("linear_gaussian", d=4).model.agreement.closed_form
    theta_1 = jnp.asarray(points(problem, 3, 1)[0])
    function = differentiable_log_normalizer(problem.model, jax.random.key(seed), 4096)
    value, gradient = jax.jit(jax.value_and_grad(function))(theta_1)
    assert abs(value - exact.log_normalizer(theta_1)) < 0.2
    np.testing.assert_allclose(gradient, exact.score(theta_1), atol=0.15)
    assert np.abs(np.asarray(exact.score(theta_1))).max() > 1.0  # else the tolerance says nothing
    _, tangent = jax.jvp(function, (theta_1,), (jnp.ones(4),))
    np.testing.assert_allclose(tangent, gradient.sum(), rtol=1e-9)
    batch = jax.vmap(jax.grad(function))(jnp.stack([theta_1, theta_1]))
    np.testing.assert_allclose(batch[0], gradient, rtol=1e-6)


def test_score_on_fixed_coordinates(seed):
    # theta_2[1] = theta_1[1]: the score there is -lambda E[dC], and fails without that term.
    model = TwoStageModel(
        jnp.zeros(2),
        GaussianStage(1.0),
        GaussianStage(jnp.array([1.0, 0.0])),
        disagreement=lambda t: 0.5 * (t[0] + 2 * t[1]) ** 2,
        agreement_strength=3.0,
    )
    a = jnp.array([0.5, -0.7])

    def exact(a):
        return -0.5 * jnp.log(4.0) - 0.5 * 3.0 * (a[0] + 2 * a[1]) ** 2 / 4

    draws = anneal(jax.random.key(seed), model, a, 20_000).particles
    assert np.all(np.asarray(draws[:, 1]) == -0.7)
    np.testing.assert_allclose(score(model, a, draws), jax.grad(exact)(a), atol=0.05)


def test_estimates_admit_ignorance():
    model = problems.get("linear_gaussian", d=40, **HIDDEN).model
    assert np.isinf(log_normalizer(model, model.theta_0, "importance").standard_error)
    needle = TwoStageModel(
        jnp.zeros(1),
        GaussianStage(1.0),
        GaussianStage(1.0),
        agreement_strength=30.0,
        disagreement=lambda t: jnp.where(t[0] > 4, 0.0, 1.0),
    )
    # With seeds at which a few runs meet the needle late.
    for method, seed in (("auto", 0), ("auto", 6), ("thermodynamic", 0), ("thermodynamic", 8)):
        estimate = log_normalizer(needle, needle.theta_0, method, max_evaluations=20_000, seed=seed)
        assert np.isinf(estimate.standard_error), (method, seed)
    far = np.array([0.0]), np.array([0.1])
    assert np.isinf(log_normalizer_difference(needle, *far).standard_error)
    stopped = log_normalizer(model, model.theta_0, "nested", max_evaluations=1000)
    assert np.isinf(stopped.standard_error)
    assert "max_evaluations" in stopped.note


def test_one_mode_is_not_believed():
    problem = problems.get("rotated_wells", d=4)
    model = problem.model.replace(agreement_strength=400.0)
    assert np.isinf(log_normalizer(model, model.theta_0, "gauss_newton").standard_error)
    assert log_normalizer(model, model.theta_0).method == "tempered_smc"


def model_with(disagreement, d=2, strength=1.0, second_stage=None, dtype=float):
    return TwoStageModel(
        jnp.zeros(d, dtype),
        GaussianStage(1.0),
        second_stage or GaussianStage(1.0),
        disagreement=disagreement,
        agreement_strength=strength,
    )


def laplace_truth():
    one = integrate.quad(lambda x: 0.5 * np.exp(-abs(x) - 0.5 * x**2), -np.inf, np.inf)[0]
    return 2 * np.log(one)


HARD = {
    "constant": (model_with(lambda t: jnp.asarray(0.3)), np.zeros(2), -0.3),
    "lambda 0": (model_with(lambda t: t @ t, strength=0.0), np.ones(2), 0.0),
    "d = 1": (model_with(lambda t: t[0] ** 2 / 2, d=1), np.ones(1), -0.5 * np.log(2) - 0.25),
    "far tail": (problems.get("double_well").model, np.array([50.0]), None),
    "float32": (
        model_with(lambda t: t @ t, d=3, dtype=jnp.float32),
        np.zeros(3, np.float32),
        -1.5 * np.log(3),
    ),
    "infinite C": (
        model_with(lambda t: jnp.where(t[0] >= 0, 0.0, jnp.inf)),
        np.zeros(2),
        -np.log(2),
    ),
    "Laplace": (
        model_with(lambda t: t @ t / 2, second_stage=LaplaceStage(1.0)),
        np.zeros(2),
        laplace_truth(),
    ),
    "fixed block": (
        model_with(lambda t: t @ t / 2, second_stage=GaussianStage(jnp.array([1.0, 0.0]))),
        np.ones(2),
        -0.5 * np.log(2) - 0.25 - 0.5,
    ),
    "stiff": (
        model_with(lambda t: t @ t / 2, strength=1e6),
        np.full(2, 0.5),
        -np.log(1 + 1e6) - 0.25 / (1 + 1e-6),
    ),
}


@pytest.mark.parametrize("case", HARD)
def test_hard_cases(seed, case):
    model, theta_1, truth = HARD[case]
    if truth is None:
        truth = problems.get("double_well").truth.log_normalizer(theta_1)
    estimate = log_normalizer(model, theta_1, seed=seed)
    assert np.asarray(estimate.value).dtype == np.float64
    assert estimate.standard_error < 0.1
    assert abs(estimate.value - truth) < z_limit() * max(estimate.standard_error, 1e-6)
    assert estimate.lower <= truth + 1e-6
    assert truth <= estimate.upper + 1e-6


@pytest.mark.parametrize(
    ("disagreement", "found"),
    [
        (lambda t: jnp.where(t[0] > 0.5, jnp.nan, t @ t), "NaN"),
        (lambda t: jnp.where(t[0] > 0.5, -1.0, t @ t), "negative"),
    ],
)
@pytest.mark.parametrize("method", ["auto", "importance", "tempered_smc", "nested"])
def test_what_cannot_be_a_disagreement_is_refused(disagreement, found, method):
    with pytest.raises(InvalidInput, match=found):
        log_normalizer(model_with(disagreement), np.zeros(2), method)
    with pytest.raises(InvalidInput, match=found):
        log_normalizer_difference(model_with(disagreement), np.zeros(2), np.ones(2))


def test_methods_say_what_they_need():
    laplace = HARD["Laplace"][0]
    with pytest.raises(InvalidInput, match="GaussianStage"):
        log_normalizer(laplace, laplace.theta_0, "gauss_newton")
    infinite = HARD["infinite C"][0]
    with pytest.raises(InvalidInput, match="infinite C"):
        log_normalizer(infinite, infinite.theta_0, "thermodynamic")
    with pytest.raises(InvalidInput, match="empty batch"):
        log_normalizer(laplace, np.zeros((0, 2)))
    with pytest.raises(InvalidInput, match="num_particles"):
        differentiable_log_normalizer(laplace, jax.random.key(0), 1)


def test_importance_stops_early_where_it_cannot_succeed():
    model = problems.get("linear_gaussian", d=40, **HIDDEN).model
    estimate = importance(model, jnp.zeros((1, 40)), jax.random.key(0), 0.1, 10_000_000)
    assert estimate.num_evaluations < 100_000
    assert np.isinf(estimate.standard_error[0])


@pytest.mark.slow
def test_network_two_rungs_and_a_two_sided_bound(seed):
    problem = problems.get("digits", scene=16, human=4, hidden=8, strength_per_question=3.0)
    model = problem.model
    theta_1 = points(problem, 3, 1)[0]
    annealed = log_normalizer(model, theta_1, "tempered_smc", seed)
    both = log_normalizer(model, theta_1, "reverse_annealing", seed)
    assert both.note == ""
    error = np.hypot(annealed.standard_error, both.standard_error)
    assert abs(annealed.value - both.value) < z_limit() * error
    assert both.lower < annealed.value < both.upper


@pytest.mark.parametrize("name", ["linear_gaussian", "rotated_wells"])
def test_log_normalizer_along_a_path(name, seed):
    options = {"d": 3} | (HIDDEN if name == "linear_gaussian" else {})
    problem = problems.get(name, **options)
    ends = points(problem, seed, 2)
    t = np.linspace(0, 1, 40)[:, None]
    path = ends[0] + t * (ends[1] - ends[0]) + 0.1 * np.sin(9 * t)
    truth = np.array([float(problem.truth.log_normalizer(x)) for x in path])
    found = log_normalizer_along(problem.model, path, seed)
    z = (found.value - (truth - truth[0]))[1:] / np.maximum(found.standard_error[1:], 1e-6)
    assert np.abs(z).max() < z_limit(len(z))
    assert found.standard_error.max() < 0.3
    assert np.ptp(truth) > 10 * found.standard_error.max()  # a constant would fail


def test_a_path_of_one_point_is_refused(wrong_types):
    problem = problems.get("rotated_wells", d=3)
    with pytest.raises(InvalidInput, match="path"):
        log_normalizer_along(problem.model, np.zeros(3))
