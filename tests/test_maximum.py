"""The joint maximum: closed forms, both stages' families, where it is when Z is left out."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from generative import GaussianStage, InvalidInput, LaplaceStage, TwoStageModel, problems
from inference import (
    Estimate,
    MaximumAPosteriori,
    Result,
    Run,
    bit_ledger,
    infer,
    log_normalizer,
)
from inference.evidence.laplace import laplace_evidence
from inference.kernels.langevin.ascent import Ascent
from inference.kernels.langevin.steps import Langevin
from inference.moves import density
from inference.results import maximized
from inference.running.progress import SILENT
from tests.statistical import z_limit

QUICK = MaximumAPosteriori(num_warmup=240, num_steps=400, num_starts=4, num_ledger_points=0)


def in_deviations(tree, truth):
    """Distances of the maximum from the exact one, in posterior standard deviations."""
    pairs = (("theta_1", truth.mean_1, truth.cov_1), ("theta_2", truth.mean_2, truth.cov_2))
    return np.concatenate(
        [(tree["map"][n].values - mean) / np.sqrt(np.diag(cov)) for n, mean, cov in pairs]
    )


@pytest.mark.parametrize(
    ("d", "closed_form"),
    [
        (2, True),
        (2, False),
        pytest.param(20, False, marks=pytest.mark.slow),
        pytest.param(200, True, marks=pytest.mark.slow),
        pytest.param(200, False, marks=pytest.mark.slow),
    ],
)
def test_linear_gaussian(d, closed_form, seed):
    problem = problems.get("linear_gaussian", d=d, closed_form=closed_form)
    run = infer(problem.model, QUICK, seed=seed, progress=False)
    assert run.result is Result.converged
    assert np.abs(in_deviations(run.tree, problem.truth)).max() < 1e-3
    error = abs(run.log_evidence.value - problem.truth.log_evidence)
    assert error <= 1e-6 + z_limit() * run.log_evidence.standard_error < 0.5


def climb_without_normalizer(model, seed, monkeypatch):
    from inference.backends import maximum

    def omitting(*arguments, **options):
        return Langevin(*arguments, **options | {"omit_normalizer": True})

    monkeypatch.setattr(maximum, "Langevin", omitting)
    return QUICK.climb(model, jax.random.key(seed), SILENT)


def test_without_the_normalizer_it_lands_where_predicted(seed, monkeypatch):
    problem = problems.get("linear_gaussian", d=3, closed_form=False)
    model, d = problem.model, 3
    found = climb_without_normalizer(model, seed, monkeypatch)
    # Quadratic: the maximum of log p1 + log p2 - lambda C + L solves one linear system.
    precision_1, precision_2 = (1 / s.variance for s in (model.first_stage, model.second_stage))

    def potential(theta):
        return model.agreement.strength * model.agreement.disagreement(
            theta
        ) - model.log_likelihood(theta)

    hessian = np.asarray(jax.hessian(potential)(jnp.zeros(d)))
    slope = np.asarray(jax.grad(potential)(jnp.zeros(d)))
    matrix = np.block(
        [
            [np.diag(precision_1 + precision_2), -np.diag(precision_2)],
            [-np.diag(precision_2), np.diag(precision_2) + hessian],
        ]
    )
    expected = np.linalg.solve(
        matrix, np.append(precision_1 * np.asarray(model.space.origin), -slope)
    )
    np.testing.assert_allclose(found.theta_1[0], expected[:d], atol=1e-6)
    np.testing.assert_allclose(found.theta_2[0], expected[d:], atol=1e-6)
    right = np.append(problem.truth.mean_1, problem.truth.mean_2)
    assert np.abs(expected - right).max() > 0.01


def test_half_way_without_agreement(seed):
    """Lambda 0 and equal scales: theta_1 is the mean of theta_0 and theta_2."""
    model = TwoStageModel(
        theta_0=jnp.asarray([0.3, -1.0]),
        first_stage=GaussianStage(0.7),
        second_stage=GaussianStage(0.7),
        disagreement=lambda theta: jnp.sum(theta**2),
        agreement_strength=0.0,
        log_likelihood=lambda theta: -jnp.sum((theta - 2.0) ** 4),
    )
    tree = infer(model, QUICK, seed=seed, progress=False).tree["map"]
    middle = (np.asarray(model.theta_0) + tree["theta_2"].values) / 2
    np.testing.assert_allclose(tree["theta_1"].values, middle, atol=1e-9)
    assert np.all(np.abs(tree["theta_2"].values - 0.3) > 0.1)


def test_both_modes_of_a_double_well_are_found(seed):
    model = problems.get("double_well").model.replace(
        log_likelihood=lambda theta: -0.05 * jnp.sum((theta - 0.8) ** 2)
    )
    backend = QUICK.model_copy(update={"num_starts": 12, "num_steps": 4000})
    run = infer(model, backend, seed=seed, progress=False)
    ends = run.tree["map_starts"]["theta_2"].values.ravel()
    assert ends.min() < -0.5
    assert ends.max() > 0.5
    assert run.tree["map"]["theta_2"].item() > 0.5  # the data's side is the better one
    # Where the kernel says that it stopped, the objective's own differences vanish as well.
    a, b = (run.tree["map"][n].values for n in ("theta_1", "theta_2"))

    def log_z(shift):
        grid = np.linspace(-8, 8, 20001)
        log_f = -0.5 * (grid - a - shift) ** 2 - 0.75 * (grid**2 - 1) ** 2
        return np.log(np.trapezoid(np.exp(log_f), grid))

    slope = (log_z(1e-4) - log_z(-1e-4)) / 2e-4
    # Finite steps of the negative samples leave 0.016 of it on average, and noise half as much.
    assert abs(-(a - 0.2) + (b - a) - slope).max() < 0.04


def laplace_model():
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)))
    return TwoStageModel(
        theta_0=jnp.zeros(3),
        first_stage=LaplaceStage(0.5),
        second_stage=LaplaceStage(0.25),
        disagreement=lambda theta: 0.5 * jnp.sum((rows @ theta) ** 2),
        agreement_strength=0.0,
        log_likelihood=lambda theta: -2.0 * jnp.sum((theta - jnp.asarray([1.5, 0.2, -0.9])) ** 2),
    )


def test_laplace_stages_stop_on_kinks(seed):
    """The cheaper stage, the first, takes all of the shift, soft-thresholded."""
    tree = infer(laplace_model(), QUICK, seed=seed, progress=False).tree["map"]
    target = np.array([1.5, 0.2, -0.9])
    expected = np.sign(target) * np.maximum(np.abs(target) - 2.0 / 4.0, 0)
    np.testing.assert_allclose(tree["theta_2"].values, expected, atol=1e-3)
    np.testing.assert_allclose(tree["theta_1"].values, expected, atol=1e-3)
    assert tree["theta_2"].values[1] == 0


def test_kinks_elsewhere_than_at_0_count_as_kinks(seed):
    model = laplace_model().replace(theta_0=jnp.asarray([0.3, 0.1, -0.7]))
    run = infer(model, QUICK, seed=seed, progress=False)
    assert run.result is Result.converged, run.checks
    np.testing.assert_array_equal(run.tree["map"]["theta_2"], run.tree["map"]["theta_1"])


def test_displaced_points_fail_the_check(seed):
    problem = problems.get("linear_gaussian", d=3)
    found = QUICK.climb(problem.model, jax.random.key(seed), SILENT)
    assert maximized.shortfalls(found)[0].max() < 1e-9
    kernel = Ascent(Langevin(problem.model))
    shift = np.sqrt(np.diag(problem.truth.cov_1))
    slope = jax.grad(problem.model.agreement.log_normalizer)
    moved = [
        kernel.residual(jnp.asarray(a + shift), jnp.asarray(b), slope(jnp.asarray(a + shift)))
        for a, b in zip(found.theta_1, found.theta_2, strict=True)
    ]
    repeated = np.repeat(np.asarray(moved)[:, None], found.residuals.shape[1], axis=1)
    shortfall, _ = maximized.shortfalls(replace(found, residuals=repeated))
    # The log joint is quadratic, so that the shortfall is what it says.
    full = np.linalg.inv(posterior_covariance(problem))
    step = np.append(shift, np.zeros(3))
    np.testing.assert_allclose(shortfall, 0.5 * step @ full @ step, rtol=1e-6)
    assert shortfall.min() > 0.5


def posterior_covariance(problem):
    model = problem.model

    def log_joint(both):
        a, b = jnp.split(both, 2)
        return density.log_joint(model, a, b) - model.agreement.log_normalizer(a)

    return np.linalg.inv(-np.asarray(jax.hessian(log_joint)(jnp.zeros(2 * model.dimension))))


def test_laplace_evidence_sees_both_signs_of_curvature(seed):
    """L = 0.2 theta^2 is convex: E exp(L) under N(0, 2) is (1 - 0.8)^-1/2."""

    def model(curvature):
        return TwoStageModel(
            jnp.zeros(1),
            GaussianStage(1.0),
            GaussianStage(1.0),
            disagreement=lambda t: jnp.sum(t**2),
            agreement_strength=0.0,
            log_likelihood=lambda t: curvature * jnp.sum(t**2),
        )

    run = infer(model(0.2), QUICK, seed=seed, progress=False)
    np.testing.assert_allclose(run.log_evidence.value, -0.5 * np.log(0.2), rtol=1e-6)
    zero, one = jnp.zeros(1), Estimate(0.0, 0.0)
    found = laplace_evidence(jax.random.key(0), model(0.3), zero, zero[None], one)
    assert found.value == -np.inf


@pytest.mark.slow
def test_laplace_stages_with_agreement(seed):
    model = laplace_model().replace(agreement_strength=4.0)
    run = infer(model, QUICK.model_copy(update={"num_steps": 4000}), seed=seed, progress=False)
    tree = run.tree["map"]

    def objective(both):
        u, v = np.split(both, 2)
        b = u + v
        smooth = float(model.log_likelihood(b) - 4.0 * model.agreement.disagreement(b))
        grid_z = log_normalizer(model, u, seed=1, target_standard_error=0.02).value
        return -(smooth - np.abs(u).sum() / 0.5 - np.abs(v).sum() / 0.25 - float(grid_z))

    start = np.append(tree["theta_1"].values, tree["theta_2"].values - tree["theta_1"].values)
    here = objective(start)
    better = scipy.optimize.minimize(
        objective, start, method="Nelder-Mead", options={"maxfev": 150}
    )
    assert here - better.fun < 0.15  # what noise of log Z lets a search seem to gain


@pytest.mark.parametrize("rule", ["stochastic_approximation", "alternating"])
def test_fixed_coordinates_stay(rule, seed):
    theta_0 = {"a": jnp.zeros(2), "b": jnp.ones(1)}
    model = TwoStageModel(
        theta_0,
        GaussianStage({"a": 1.0, "b": 0.0}),
        GaussianStage({"a": jnp.asarray([0.5, 0.0]), "b": 0.5}),
        disagreement=lambda t: 0.5 * jnp.sum(t["a"] ** 2) + 0.5 * jnp.sum(t["b"] ** 2),
        agreement_strength=2.0,
        log_likelihood=lambda t: -jnp.sum((t["a"] - 1) ** 2) - jnp.sum((t["b"] - 1) ** 2),
    )
    backend = QUICK.model_copy(update={"rule": rule})
    tree = infer(model, backend, seed=seed, progress=False).tree["map"]
    assert tree["theta_1"].values[2] == 1.0
    assert tree["theta_1"].values[1] == tree["theta_2"].values[1]
    if rule == "alternating":
        return
    # Coordinate 1 is shared: (a - 0)^2 / 2 + lambda a^2 / 2 + (a - 1)^2, less log Z = -lambda a^2 / 2.
    assert abs(tree["theta_1"].values[1] - 2 / 3) < 1e-3


def test_ledger_knows_the_closed_form(seed):
    problem = problems.get("linear_gaussian", d=3, closed_form=False)
    run = infer(problem.model, QUICK.model_copy(update={"num_ledger_points": 10}), progress=False)
    ledger = run.tree["ledger"]
    exact = -problem.truth.log_normalizer(run.tree["map"]["theta_1"].values) / np.log(2)
    found, error = ledger["bits_saved"].values[-1], ledger["bits_saved_se"].values[-1]
    assert abs(found - exact) < 1e-6 + z_limit() * error < 0.5
    assert np.all(np.diff(ledger["step"].values) > 0)
    with pytest.raises(InvalidInput, match="steps"):
        bit_ledger(problem.model, np.zeros((3, 3)), np.arange(2))


def test_resumed_and_loaded(tmp_path, seed):
    problem = problems.get("linear_gaussian", d=2)
    settings = {"seed": seed, "progress": False, "directory": tmp_path / "map"}
    run = infer(problem.model, QUICK, **settings)
    again = infer(problem.model, QUICK, resume=True, **settings)
    assert again.result is run.result
    loaded = Run.load(tmp_path / "map")
    assert "posterior" not in loaded.tree.children
    np.testing.assert_array_equal(loaded.tree["map"]["theta_1"], run.tree["map"]["theta_1"])
    with pytest.raises(InvalidInput, match="another"):
        infer(problem.model, QUICK, resume=True, **settings | {"seed": seed + 1})


def test_alternating_force_is_the_change_of_disagreement():
    model = problems.get("double_well").model
    kernel = Ascent(Langevin(model), "alternating")
    state = kernel.init(jnp.asarray([0.4]), jnp.asarray([0.7]), jnp.zeros((1, 1)))
    size = jnp.asarray(0.1)
    slope = kernel.change_of_disagreement(state, size)

    def new(theta_1):
        drive = kernel.langevin.drive(state.theta_2)
        return state.theta_2 + size * (drive - (state.theta_2 - theta_1))

    def change(theta_1):
        return (model.agreement.disagreement(new(theta_1)) * model.agreement.strength) / size

    step = 1e-5
    expected = (change(state.theta_1 + step) - change(state.theta_1 - step)) / (2 * step)
    np.testing.assert_allclose(slope, expected, rtol=1e-4)
