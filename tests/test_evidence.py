"""Log evidence without Z: exact answers, plateaus, transitions, calibration, and controls."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy import stats

from generative import GaussianStage, InvalidInput, TwoStageModel, problems
from generative.setups import set_up
from inference import HMC, NestedSampling, Result, Run, TemperedSMC, infer
from inference.averages import log_of_mean, mean_of_runs
from inference.backends.nested import _exchange
from inference.checks import Check
from inference.evidence import nested, pilot, tempered
from inference.evidence.beside_chains import evidence_beside
from inference.evidence.population import Recipe
from inference.evidence.prior import Effort, prior_sampler
from inference.evidence.tempered_runs import TemperedRuns
from inference.evidence.weights import insertion_check, phase_transition, volumes
from inference.kernels.negative import (
    PersistentNegative,
    ReferenceNegative,
    RejectionNegative,
)
from inference.results.draws import Draws
from inference.results.export import to_anesthetic
from inference.running.progress import SILENT
from tests.layouts import run_on_two_devices
from tests.oracles import double_well_evidences
from tests.statistical import FALSE_ALARM_RATE, covers

SMALL = {"max_doublings": 0, "num_runs": 4}
SIGMAS = 5.0  # of an error from 8 runs: a false alarm in 2000


EFFORT = Effort(num_moves=4, num_annealed=16, num_sweeps=1)


def sampler_of(model, negative=None):
    """A prior sampler with persistent negative samples, or given ones."""
    recipe = Recipe(model, negative or PersistentNegative(), 32)
    return prior_sampler(recipe, jax.random.key(0))


def tempered_runs(model, seed, *size, negative=None, **options):
    """Independent tempered populations along one plan."""
    prior = sampler_of(model, negative)
    stages = pilot.plan(prior, jax.random.key(seed), EFFORT)
    key = jax.random.key(seed + 1000)
    return tempered.run(prior, key, stages, *size, EFFORT, **options)


def nested_runs(model, seed, num_runs, num_live=50, num_sweeps=8, negative=None):
    """Independent runs of nested sampling."""
    prior = sampler_of(model, negative)
    return nested.run(
        prior, jax.random.key(seed), num_runs, num_live, num_sweeps, EFFORT, max_nats=200.0
    )


def test_omitting_z_gives_another_evidence(seed):
    """-1.0521 with Z, -1.7482 without."""
    model = problems.get("double_well").model
    ours, omitted, _ = double_well_evidences()
    found = tempered_runs(model, seed, 8, 128).estimate
    mistake = tempered_runs(set_up(model, "z-omitted"), seed, 8, 128).estimate
    for estimate, truth, other in ((found, ours, omitted), (mistake, omitted, ours)):
        assert estimate.standard_error < 0.1
        assert abs(estimate.value - truth) < 4 * estimate.standard_error
        assert abs(estimate.value - other) > 6 * estimate.standard_error
        assert estimate.lower < truth < estimate.upper


def test_populations_that_approach_their_law_show(seed):
    """The control raises L by as much at every power as a lag of so many nats would."""
    found = tempered_runs(problems.get("linear_gaussian", d=20).model, seed, 8, 128)
    assert found.lag.passed, found.lag.message
    approaching = found._replace(means=found.means + 0.6)
    assert not approaching.lag.passed, approaching.lag.message
    assert found._replace(means=found.means + 10).lags_beyond_doubt
    # A quarter of the way, by moves that leave three quarters of it.
    slow = found._replace(means=found.means + 0.25, memory=np.full_like(found.memory, 0.75))
    assert not slow.lag.passed, slow.lag.message
    assert slow._replace(memory=found.memory).lag.passed
    assert not found.lags_beyond_doubt
    # Runs that differ too much for an average are few, and must be allowed to grow.
    differing = found._replace(log_evidence=found.log_evidence + 2 * np.arange(8))
    assert np.isinf(differing.estimate.standard_error)
    assert differing.lag.passed, differing.lag.message
    lost = found._replace(log_evidence=np.append(found.log_evidence[1:], -np.inf))
    assert lost.lag.passed and not np.isfinite(lost.estimate.standard_error)
    # A constant L, up to how its mean is rounded.
    level = {"means": np.full_like(found.means, 3), "before": np.full_like(found.means, 3 + 4e-16)}
    assert found._replace(**level, log_evidence=np.full(8, 3.0)).lag.passed


def test_populations_that_lag_beyond_doubt_are_given_up(seed, monkeypatch):
    model = problems.get("linear_gaussian", d=20).model
    whole, sound = (tempered_runs(model, seed, 4, 32, gives_up=x) for x in (False, True))
    np.testing.assert_array_equal(whole.log_evidence, sound.log_evidence)
    monkeypatch.setattr(TemperedRuns, "lags_beyond_doubt", True)
    given_up = tempered_runs(model, seed, 4, 32, gives_up=True)
    assert given_up.powers[-1] < 1 == whole.powers[-1]
    np.testing.assert_array_equal(given_up.powers, whole.powers[: len(given_up.powers)])
    assert np.isinf(given_up.estimate.standard_error)


def test_populations_that_lag_are_not_repeated(seed, monkeypatch):
    late = Check("lag", False, "late", "both")
    monkeypatch.setattr(TemperedRuns, "lag", property(lambda self: late))
    backend = TemperedSMC(num_draws=16, num_particles=16, num_runs=2, negative="persistent")
    draws = backend.draw(problems.get("double_well").model, jax.random.key(seed))
    assert "doubling" not in [check.name for check in draws.checks]
    assert draws.unverified == ("doubling (populations lag)",)


@pytest.mark.slow
def test_three_evidences_are_told_apart(seed):
    """Ours from Z omitted and from the globally conditioned one: -1.0521, -1.7482, -1.0705."""
    model = problems.get("double_well").model
    ours, *others = double_well_evidences()
    found = tempered_runs(model, seed, 32, 2048).estimate
    assert found.standard_error < 0.0045
    assert abs(found.value - ours) < SIGMAS * found.standard_error
    for other in others:
        assert abs(found.value - ours) < abs(found.value - other) / 2


@pytest.mark.parametrize(
    "form", ["residuals", pytest.param("disagreement", marks=pytest.mark.slow)]
)
def test_linear_gaussian_by_smc(seed, form):
    problem = problems.get("linear_gaussian", d=10, closed_form=False, form=form)
    found = tempered_runs(problem.model, seed, 8, 128)
    estimate, truth = found.estimate, problem.truth
    assert estimate.standard_error <= 0.1
    assert abs(estimate.value - truth.log_evidence) < SIGMAS * estimate.standard_error
    assert estimate.lower < truth.log_evidence < estimate.upper
    means = np.asarray(found.particles.theta_2).mean(axis=1)
    z = (means.mean(axis=0) - truth.mean_2) / (means.std(axis=0, ddof=1) / np.sqrt(8))
    assert np.abs(z).max() < stats.t.isf(FALSE_ALARM_RATE / 20, 7)


def test_linear_gaussian_by_nested_sampling(seed):
    problem = problems.get("linear_gaussian", d=10, closed_form=False)
    found = nested_runs(problem.model, seed, 8)
    estimate = found.estimate
    assert estimate.standard_error <= 0.3
    assert abs(estimate.value - problem.truth.log_evidence) < SIGMAS * estimate.standard_error
    assert insertion_check(found.log_likelihood, found.birth).passed


def test_a_stand_in_is_believed_only_where_agreement_is_quadratic():
    """A kink two standard deviations out, or wells, must not pass for a quadratic."""
    hidden = problems.get("linear_gaussian", d=3, closed_form=False).model
    assert isinstance(sampler_of(hidden).recipe.negative, ReferenceNegative)
    kinked = hidden.replace(residuals=lambda theta: jnp.where(theta > 0.4, 2 * theta - 0.4, theta))
    for model in (kinked, problems.get("rotated_wells", d=3).model):
        assert isinstance(sampler_of(model).recipe.negative, PersistentNegative)


@pytest.mark.parametrize(
    ("backend", "constant"),
    [
        (TemperedSMC(max_doublings=0), None),
        (NestedSampling(max_doublings=0), -3.0),
        pytest.param(TemperedSMC(max_doublings=0), -3.0, marks=pytest.mark.slow),
        pytest.param(NestedSampling(max_doublings=0), None, marks=pytest.mark.slow),
    ],
)
def test_null_data_and_constant_likelihood(backend, constant, seed):
    data = {} if constant is None else {"log_likelihood": lambda theta: jnp.asarray(constant)}
    model = TwoStageModel(
        jnp.zeros(2),
        GaussianStage(1.0),
        GaussianStage(0.5),
        disagreement=lambda theta: 0.5 * jnp.sum(theta**2),
        **data,
    )
    run = infer(model, backend, seed=seed, progress=False)
    assert run.log_evidence.value == pytest.approx(constant or 0.0, abs=1e-5)
    assert run.log_evidence.standard_error < 1e-5
    assert run.result is Result.converged, [c for c in run.checks if not c.passed]


@pytest.mark.slow
def test_phase_transition_is_crossed_and_reported(seed):
    """Nested sampling finds the spike; tempering does not, and disagrees by many errors."""
    problem = problems.get("spike_and_slab", d=8, closed_form=True)
    truth = problem.truth.log_evidence
    found = infer(problem.model, NestedSampling(**SMALL), seed=seed, progress=False)
    assert abs(found.log_evidence.value - truth) < SIGMAS * found.log_evidence.standard_error
    assert any("phase transition" in note for note in found.notes)
    plain = tempered_runs(problem.model, seed, 4, 128).estimate
    assert abs(plain.value - truth) > 10 * plain.standard_error


def test_transition_of_a_known_shape():
    """A concave L has none; a step of height h at depth s has one, at power near s / h."""
    depth = np.linspace(0.01, 40, 4000)
    assert phase_transition(-np.exp(-depth / 5), -depth) is None
    found = phase_transition(np.where(depth < 30, 0.0, 60.0) + 1e-3 * depth, -depth)
    assert found is not None and found.power == pytest.approx(0.5, rel=0.05)
    assert found.barrier == pytest.approx(30, rel=0.1)


def test_volumes_of_a_constant_likelihood_sum_to_one():
    rng = np.random.default_rng(0)
    values = np.sort(rng.uniform(size=200)) * 1e-9
    found = volumes(values, np.full(200, -np.inf))
    assert np.logaddexp.reduce(found.log_weight) == pytest.approx(0, abs=1e-6)


def test_new_points_that_keep_their_theta_1_are_not_believed():
    steady = np.full(20, 0.9)
    assert _exchange(steady).passed
    assert _exchange(np.where(np.arange(20) == 7, 0.01, steady)).passed  # while a step adapts
    stuck = _exchange(np.where(np.arange(20) < 5, 0.01, steady))
    assert not stuck.passed and stuck.about == "both"


def books_of_nested_sampling(rng, reach):
    """Nested sampling of a uniform L in [0, 1]; new points reach a share of what is left."""
    live, birth = rng.uniform(size=50), np.full(50, -np.inf)
    values, births = [], []
    for _ in range(1000):
        lowest = int(np.argmin(live))
        floor = live[lowest]
        values.append(floor)
        births.append(birth[lowest])
        live[lowest], birth[lowest] = floor + (1 - floor) * reach * rng.uniform(), floor
    return np.append(values, live)[None], np.append(births, birth)[None]


def test_insertion_ranks_catch_points_that_do_not_fill_the_volume(seed):
    rng = np.random.default_rng(seed)
    assert insertion_check(*books_of_nested_sampling(rng, 1.0)).passed
    assert not insertion_check(*books_of_nested_sampling(rng, 0.9)).passed


def test_likelihood_without_support_on_most_of_the_prior(seed):
    """L = 0 on a tenth of the prior and -infinity elsewhere: the evidence is log(1 / 10)."""
    beyond = stats.norm.isf(0.1) * np.sqrt(1.25)
    model = TwoStageModel(
        jnp.zeros(1),
        GaussianStage(1.0),
        GaussianStage(0.5),
        disagreement=lambda theta: 0.0 * theta[0],
        log_likelihood=lambda theta: jnp.where(theta[0] > beyond, 0.0, -jnp.inf),
    )
    for found in (nested_runs(model, seed, 8), tempered_runs(model, seed, 8, 512)):
        estimate = found.estimate
        assert estimate.standard_error < 0.2
        assert abs(estimate.value - np.log(0.1)) < SIGMAS * estimate.standard_error


@pytest.mark.parametrize("impossible", [-1e12, -1e30])
def test_a_large_number_for_impossible_is_a_plateau_too(seed, impossible):
    """Half of the prior: ties there must not be lost to rounding."""
    model = TwoStageModel(
        jnp.zeros(1),
        GaussianStage(1.0),
        GaussianStage(0.5),
        disagreement=lambda theta: 0.0 * theta[0],
        log_likelihood=lambda theta: jnp.where(theta[0] > 0, 0.0, impossible),
    )
    estimate = nested_runs(model, seed, 16).estimate
    assert estimate.standard_error < 0.03
    assert abs(estimate.value - np.log(0.5)) < SIGMAS * estimate.standard_error


def test_bad_likelihoods_are_refused_before_anything_runs():
    def model(log_likelihood):
        return TwoStageModel(
            jnp.zeros(1),
            GaussianStage(1.0),
            GaussianStage(0.5),
            disagreement=lambda theta: 0.5 * jnp.sum(theta**2),
            log_likelihood=log_likelihood,
        )

    def nan_above(theta):
        return jnp.where(theta[0] > 0.1, jnp.nan, 0.0)

    def nowhere(theta):
        return jnp.where(theta[0] == 0, 0.0, -jnp.inf)

    for backend in (TemperedSMC(**SMALL), NestedSampling(**SMALL)):
        for bad, found in ((nan_above, "NaN"), (nowhere, "-inf")):
            with pytest.raises(InvalidInput, match=found):
                infer(model(bad), backend, progress=False)


def test_hmc_brings_an_evidence_that_agrees(seed):
    problem = problems.get("double_well")
    run = infer(problem.model, HMC(num_draws=400), seed=seed, progress=False)
    estimate = run.log_evidence
    assert abs(estimate.value - problem.truth.log_evidence) < SIGMAS * estimate.standard_error
    assert estimate.standard_error < 0.1
    assert [check.passed for check in run.checks if check.name == "populations"] == [True]
    skipped = HMC(num_draws=400, evidence_particles=0)
    assert skipped.log_evidence(problem.model, Draws({}), jax.random.key(seed))[0] is None


def test_weighted_draws_give_the_evidence(seed):
    problem = problems.get("double_well")
    for backend in (TemperedSMC(**SMALL), NestedSampling(**SMALL)):
        run = infer(problem.model, backend, seed=seed, progress=False)
        log_weight = run.tree["weighted_sample_stats"]["log_weight"].values
        mean = np.logaddexp.reduce(log_weight) - np.log(len(log_weight))
        assert abs(mean - run.log_evidence.value) < 2 * run.log_evidence.standard_error
        theta = run.tree["weighted_posterior"]["theta_2"].values[:, 0]
        weights = np.exp(log_weight - log_weight.max())
        assert np.average(theta, weights=weights) == pytest.approx(
            float(problem.truth.mean_2[0]), abs=0.1
        )


def test_export_needs_points_with_births_and_anesthetic():
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset()})
    with pytest.raises(InvalidInput, match="nested backend"):
        to_anesthetic(Run(tree, Result.converged))
    one = {"birth": ("sample", np.full(3, -np.inf)), "log_likelihood": ("sample", np.arange(3.0))}
    theta = {name: (("sample", "parameter"), np.zeros((3, 1))) for name in ("theta_1", "theta_2")}
    tree["weighted_sample_stats"] = xr.DataTree(xr.Dataset(one))
    tree["weighted_posterior"] = xr.DataTree(xr.Dataset(theta, coords={"parameter": ["t"]}))
    run = Run(tree, Result.converged)
    if importlib.util.find_spec("anesthetic") is None:
        with pytest.raises(InvalidInput, match="not installed"):
            to_anesthetic(run)
    else:
        assert len(to_anesthetic(run)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 10])
def test_tempered_error_is_calibrated(seed, d):
    """100 estimates of 8 runs each; half their errors must not pass."""
    problem = problems.get("linear_gaussian", d=d, closed_form=False)
    runs = tempered_runs(problem.model, seed, 800, 64).log_evidence.reshape(100, 8)
    value, error = log_of_mean(runs)
    assert covers(value, error, problem.truth.log_evidence)
    assert not covers(value, error / 2, problem.truth.log_evidence)


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 10])
def test_nested_error_is_calibrated(seed, d):
    """100 estimates of 8 runs each; half their errors must not pass."""
    problem = problems.get("linear_gaussian", d=d, closed_form=False)
    runs = nested_runs(problem.model, seed, 800).log_evidence.reshape(100, 8)
    value, error = mean_of_runs(runs)
    assert covers(value, error, problem.truth.log_evidence)
    assert not covers(value, error / 2, problem.truth.log_evidence)


_SHARDED = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from generative import problems
from inference import NestedSampling, TemperedSMC
model = problems.get("double_well").model
assert jax.device_count() == 2
for make in (
    lambda m: TemperedSMC(num_runs=4, max_doublings=0, chain_method=m),
    lambda m: NestedSampling(num_runs=4, num_live=50, max_live=50, max_doublings=0, chain_method=m),
):
    first, second = (make(m).draw(model, jax.random.key(3)) for m in ("vectorized", "sharded"))
    np.testing.assert_allclose(
        first.weighted["theta_1"][:10], second.weighted["theta_1"][:10], atol=1e-8
    )
    a, b = first.log_evidence, second.log_evidence
    assert abs(a.value - b.value) < 5 * np.hypot(a.standard_error, b.standard_error) + 1e-12
"""


@pytest.mark.slow
def test_sharded_over_two_devices():
    run_on_two_devices(_SHARDED)


@pytest.mark.slow
def test_rejection_and_persistent_negatives_agree(seed):
    model = problems.get("rotated_wells", d=3).model
    exact = tempered_runs(model, seed, 16, 512, negative=RejectionNegative()).estimate
    lagging = tempered_runs(model, seed + 1, 16, 512, negative=PersistentNegative()).estimate
    error = np.hypot(exact.standard_error, lagging.standard_error)
    assert abs(exact.value - lagging.value) < 4 * error and error < 0.05


def test_evidence_beside_chains_goes_on_where_rejection_hits_its_cap(seed):
    model = problems.get("double_well").model
    chains = HMC(num_warmup=100, num_draws=100, negative="rejection")
    draws = chains.draw(model, jax.random.key(seed))
    recipe = Recipe(model, RejectionNegative(1), 8)
    _, how, _ = evidence_beside(recipe, draws.values, jax.random.key(seed), 8, 2, SILENT)
    assert "rejection hit its cap there" in how or "differ" in how, how
