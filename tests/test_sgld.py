"""SGLD as a backend: null data at a million parameters, digits, mini-batches, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from analyses.benchmarks.sgld import network_model
from generative import GaussianStage, InvalidInput, TwoStageModel, problems
from inference import HMC, SGLD, infer
from inference.annealing.certificate import FRESH
from inference.backends import sgld
from inference.doubling import compare
from inference.estimate import Estimate, Evidence
from inference.evidence.beside_langevin import integrate_powers
from inference.functionals import functionals
from inference.kernels.langevin import chains
from inference.kernels.langevin.steps import Langevin
from inference.results.draws import Draws
from tests.layouts import run_on_two_devices
from tests.statistical import chi_square_z, z_limit

NULL = SGLD(
    num_warmup=160,
    num_draws=400,
    thinning=4,
    num_chains=2,
    num_negatives=1,
    kappa=5.0,
    max_halvings=0,
)


def rows_where_z_acts(model, number):
    """Orthonormal rows spanning residuals' Jacobians, whitened by the first stage."""
    spread = np.sqrt(model.first_stage.variance).astype(np.float32)
    point = model.second_stage.around(
        model.first_stage.around(model.space.origin).sample(jax.random.key(0))
    ).sample(jax.random.key(1))
    rows = np.asarray(jax.jacrev(model.agreement.residuals)(point)) * spread
    return np.linalg.svd(rows, full_matrices=False)[2][:number] / spread


def projected_and_total(model, omit, seed):
    """Squares of theta_1 in all directions, and in those of Z, over their prior means."""
    rows = jnp.asarray(rows_where_z_acts(model, 10))
    plain = chains.collect_answers

    def collect(kernel, state):
        point = jax.vmap(lambda k, c: chains.read(kernel, k, c, state.tuning))(
            state.rng_key, state.chain
        )
        shift = point.theta_1 - model.space.origin
        whitened = shift / jnp.asarray(np.sqrt(model.first_stage.variance), shift.dtype)
        return plain(kernel, state) | {
            "total": jnp.sum(whitened**2, axis=-1, dtype=float),
            "projected": jnp.sum((shift @ rows.T) ** 2, axis=-1, dtype=float),
        }

    with pytest.MonkeyPatch.context() as patch:
        for name in ("collect", "collect_answers"):
            patch.setattr(chains, name, collect)
        patch.setattr(
            sgld, "Langevin", lambda *a, **k: Langevin(*a, **k | {"omit_normalizer": omit})
        )
        values = NULL.draw(model, jax.random.key(seed)).values
    return values["total"], values["projected"], len(rows)


def nearly_linear(model):
    """Stages so narrow around a network in use that one Jacobian serves everywhere."""
    flat, unravel = ravel_pytree(model.theta_0)
    start = model.first_stage.around(model.space.origin).sample(jax.random.key(5))

    def narrow(stage):
        return GaussianStage(unravel(jnp.asarray(0.1 * stage.scale, flat.dtype)))

    return model.replace(
        theta_0=unravel(start),
        first_stage=narrow(model.first_stage),
        second_stage=narrow(model.second_stage),
        # One question moves theta_1 by less where more parameters share the move.
        agreement_strength=100 * (1 + model.dimension / 3e5) * float(model.agreement.strength),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("inputs", "scene"), [(128, 300), (1024, 957)])
def test_null_data_of_a_large_network(inputs, scene, seed):
    """Up to a million parameters; where Z acts, leaving it out must show."""
    model = nearly_linear(network_model(inputs, scene, num_questions=20))
    model = model.replace(observation=None)
    total, projected, rank = projected_and_total(model, False, seed)
    assert abs(chi_square_z(total, model.dimension)) < z_limit(2)
    assert abs(chi_square_z(projected, rank)) < z_limit(2)
    _, without, _ = projected_and_total(model, True, seed)
    assert abs(chi_square_z(without, rank)) > z_limit(2)


@pytest.mark.slow
def test_digits_agrees_with_hmc_and_in_mini_batches(seed):
    problem = problems.get("digits", num_small=20, scene=2, human=1, hidden=2)
    reference = HMC(kernel="exchange", max_doublings=1).draw(problem.model, jax.random.key(seed))
    first = functionals(problem.model, reference.values)
    for batch_size in (None, 11):
        backend = SGLD(num_powers=0, max_halvings=0, batch_size=batch_size)
        draws = backend.draw(problem.model, jax.random.key(seed + 1))
        second = functionals(problem.model, draws.values)
        assert compare(first, second, 1).check.passed


def test_negative_samples_are_checked_where_few_draws_are_kept_whole(monkeypatch):
    model = problems.get("linear_gaussian", d=3, closed_form=False).model
    monkeypatch.setattr(sgld, "_MAX_KEPT", 40 * 4 * 2 * model.dimension)
    backend = SGLD(num_warmup=200, num_draws=100, max_halvings=0, num_powers=0)
    draws = backend.draw(model, jax.random.key(0))
    assert draws.values["negative"].shape == draws.values["theta_2"].shape == (4, 40, 3)
    assert draws.values["lp"].shape == (4, 100)
    assert [check.name for check in draws.checks] == [FRESH]


def test_power_integration():
    """L = beta-independent Gaussian: E_beta[L] is known for a conjugate normal mean."""
    rng = np.random.default_rng(0)
    powers = (np.arange(1, 17) / 16) ** 5
    # theta ~ N(0, 1), L = -(theta - 2)^2 / 2: at power b theta ~ N(2 b / (1 + b), 1 / (1 + b)).
    b = powers[:, None, None]
    theta = 2 * b / (1 + b) + rng.normal(size=(16, 2, 2000)) / np.sqrt(1 + b)
    found = integrate_powers(powers, -0.5 * (theta - 2) ** 2)
    truth = -0.5 * np.log(2) - 1
    assert abs(found.value - truth) < z_limit() * found.standard_error < 0.2
    assert found.lower < truth < found.upper


@pytest.mark.parametrize("information", [4.0, 100.0])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 8, 12, 13])
def test_power_integration_knows_its_quadrature(number, information):
    """L = -information theta^2 / 2 under N(0, 1): steep where powers are few."""
    rng = np.random.default_rng(number)
    powers = (np.arange(1, number + 1) / number) ** 5
    spread = (1 + information * powers) ** -0.5
    theta = spread[:, None, None] * rng.normal(size=(number, 2, 1000))
    found = integrate_powers(powers, -0.5 * information * theta**2)
    assert abs(found.value + 0.5 * np.log1p(information)) < z_limit() * found.standard_error
    assert np.isfinite(found.standard_error) == (number >= 4)


@pytest.mark.slow
def test_log_evidence(seed):
    problem = problems.get("linear_gaussian", d=3, closed_form=False, agreement_strength=4.0)
    run = infer(problem.model, SGLD(num_warmup=800, max_halvings=0), seed=seed, progress=False)
    found = run.log_evidence
    assert abs(found.value - problem.truth.log_evidence) < z_limit() * found.standard_error < 0.6


@pytest.mark.parametrize(("off", "is_given"), [(0.1, True), (5.0, False)])
def test_an_evidence_that_populations_contradict_is_not_given(monkeypatch, off, is_given):
    beside = Evidence(Estimate(-3.0, 0.1), "log evidence: by populations")
    monkeypatch.setattr(sgld, "evidence_beside_any", lambda *_: beside)
    model = problems.get("linear_gaussian", d=2, closed_form=False).model
    draws = Draws({}, log_evidence=Estimate(-3.0 + off, 0.1))
    found = SGLD().log_evidence(model, draws, jax.random.key(0))
    assert (found.estimate == draws.log_evidence) == is_given
    assert is_given or found.estimate is None and "not given" in found.how


def test_runaway_chains_are_named():
    model = problems.get("linear_gaussian", d=2).model
    values = {f"squared_distance_{i}": np.ones((3, 2, 1)) for i in (1, 2)}
    assert chains.runaway(model, values) is None
    for bad in (np.nan, np.inf, 1e9):
        values["squared_distance_2"][1, 1, 0] = bad
        assert chains.runaway(model, values) == (1, 1, "theta")


@pytest.mark.slow
def test_stop_gradient_is_another_target(seed):
    model = problems.get("digits", num_small=4, scene=2, human=1, hidden=1).model
    backend = SGLD(num_warmup=80, num_draws=20, max_halvings=0, num_powers=0)
    held = backend.model_copy(update={"stop_gradient": "intended"})
    run = infer(model, held, seed=seed, progress=False)
    assert any("not the posterior" in note for note in run.notes)
    plain = infer(model, backend, seed=seed, progress=False)
    assert not np.array_equal(run.tree["posterior"]["theta_2"], plain.tree["posterior"]["theta_2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 5}, "batch_size"),
        ({"stop_gradient": "nobody"}, "stop_gradient"),
        ({"step_size": -1.0}, "step_size"),
        ({"num_chains": 0}, "num_chains"),
        ({"schedule": {"power": 3}}, "schedule"),
    ],
)
def test_bad_input(options, message, tmp_path):
    model = TwoStageModel(
        jnp.zeros(2),
        GaussianStage(1.0),
        GaussianStage(1.0),
        disagreement=lambda t: jnp.sum(t**2),
        log_likelihood=lambda t: -jnp.sum(t**2),
    )
    with pytest.raises(InvalidInput, match=message):
        infer(model, SGLD(**options), progress=False, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_inputs_must_match_the_answers():
    problem = problems.get("digits", num_small=4, scene=2, human=1, hidden=1)
    inputs = problem.model.observation.inputs
    with pytest.raises(InvalidInput, match="inputs|answers"):
        problem.model.replace(inputs=jax.tree.map(lambda x: x[:2], inputs))
    with pytest.raises(InvalidInput, match="batch_size"):
        infer(problem.model, SGLD(batch_size=500), progress=False)


_SHARDED = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from generative import problems
from inference import SGLD
assert jax.device_count() == 2
tiny = dict(num_warmup=80, num_draws=10, max_halvings=0, num_powers=0, step_size=0.02, num_inner=2)
def draw(model, **layout):
    backend = SGLD(**tiny, metric="flat", **layout)
    return backend.draw(model, jax.random.key(3)).values["theta_1"]
model = problems.get("double_well").model
for shard in ("chains", "negatives"):
    sharded = draw(model, chain_method="sharded", shard=shard)
    np.testing.assert_allclose(draw(model), sharded, atol=1e-8)
np.testing.assert_allclose(draw(model), draw(model, chain_method="sequential"), atol=1e-8)
digits = problems.get("digits", num_small=20, scene=2, human=1, hidden=1).model
sharded = draw(digits, chain_method="sharded", shard="data")
np.testing.assert_allclose(draw(digits), sharded, atol=1e-8)
"""


@pytest.mark.slow
def test_layouts_agree():
    run_on_two_devices(_SHARDED)
