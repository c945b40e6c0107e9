"""The protocol, of every backend in the registry: a new one is tested as soon as it is named there."""

import inspect
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import inference
from generative import GaussianStage, InvalidInput, TwoStageModel, problems
from inference import Backend, Result, Run, Sampler, infer
from inference.backends.population import PopulationBackend
from inference.backends.registry import BACKENDS
from inference.checks import Check

# A backend that is not named here runs with its defaults.
SMALL = {
    "hmc": {
        "num_warmup": 60,
        "num_draws": 60,
        "num_chains": 2,
        "max_doublings": 1,
        "evidence_particles": 0,
    },
    "sgld": {
        "num_warmup": 80,
        "num_draws": 40,
        "num_chains": 2,
        "max_halvings": 0,
        "num_powers": 4,
        "num_fresh": 16,
        "evidence_particles": 0,
    },
    "nested": {
        "num_runs": 2,
        "num_live": 20,
        "max_live": 20,
        "num_sweeps": 2,
        "max_doublings": 0,
    },
    "smc": {
        "num_runs": 2,
        "num_particles": 16,
        "max_particles": 16,
        "num_draws": 20,
        "max_doublings": 0,
    },
    "map": {
        "num_warmup": 80,
        "num_steps": 50,
        "num_starts": 2,
        "num_ledger_points": 2,
        "num_fresh": 16,
    },
    "rejection-gibbs": {
        "num_warmup": 60,
        "num_draws": 60,
        "num_chains": 2,
        "evidence_particles": 0,
    },
}
# HMC on a model whose log Z has a closed form is another method.
CASES = [*BACKENDS, "nuts"]
X = np.linspace(-1, 1, 6).reshape(3, 2)
GROUPS = {
    Sampler: {
        *("posterior", "sample_stats", "posterior_predictive", "prior", "prior_predictive"),
        *("log_likelihood", "observed_data", "constant_data"),
    },
    Backend: {"map", "map_starts", "constant_data", "observed_data"},
}
STATISTICS = (
    *("lp", "acceptance_rate", "diverging", "step_size"),
    *("disagreement", "disagreement_theta_1", "log_likelihood"),
)
ATTRIBUTES = {
    *("bits_saved", "bits_saved_se", "log_evidence", "log_evidence_se", "checks_passed"),
    *("checks_failed", "notes", "seed", "dtype", "configuration", "compilations", "jax_version"),
}

by_name = pytest.mark.parametrize("name", BACKENDS)
by_case = pytest.mark.parametrize("case", CASES)


def heads(theta, x):
    return jax.nn.sigmoid(jnp.stack([x @ theta, x[:, 0] * theta[0]]))


def observation(theta):
    numpyro.sample("y", dist.Bernoulli(logits=jnp.asarray(X) @ theta))


@cache
def model_of(case):
    if case == "nuts":
        return problems.get("linear_gaussian", d=2, m=1).model
    return TwoStageModel(
        jnp.zeros(2),
        GaussianStage(1.0),
        GaussianStage(0.5),
        # Not linear: there the maximum has no noise, and all seeds end in the same bits.
        residuals=lambda theta: jnp.sin(theta[1]) * jnp.asarray(X)[:, 1],
        agreement_strength=0.5,
        observation=observation,
        data={"y": np.array([0, 1, 1])},
        heads=heads,
        questions={"small": X},
        labels={"small": [0, 1, 0]},
    )


def backend_of(case):
    name = "hmc" if case == "nuts" else case
    return BACKENDS[name](**SMALL.get(name, {}))


@cache
def run_of(case):
    return infer(model_of(case), backend_of(case), seed=1, progress=False)


def kind(case):
    return Sampler if isinstance(backend_of(case), Sampler) else Backend


@by_case
def test_a_run_and_its_verdict(case):
    run = run_of(case)
    assert isinstance(run, Run) and isinstance(run.result, Result)
    assert run.checks and all(isinstance(check, Check) for check in run.checks)
    failed = [check.name for check in run.checks if not check.passed]
    assert run.result.is_usable <= (not failed)
    assert set(run.usable) <= {"draws", "log_evidence", "maximum"}
    attributes = run.tree.attrs
    assert set(attributes) >= ATTRIBUTES
    assert attributes["seed"] == 1 and attributes["dtype"] == "float64"
    assert failed == [name for name in attributes["checks_failed"].split(", ") if name]
    assert any("log evidence" in note for note in run.notes)
    for estimate, name in ((run.log_evidence, "log_evidence"), (run.bits_saved, "bits_saved")):
        assert (estimate is None) == np.isnan(attributes[name])


@by_case
def test_groups_of_the_tree(case):
    tree = run_of(case).tree
    expected = GROUPS[kind(case)]
    if case == "nuts":  # no heads, and no single answers
        expected = {"posterior", "sample_stats", "prior"}
    assert expected <= set(tree.children)
    assert ("posterior" in tree.children) != ("map" in tree.children)
    weighted = isinstance(backend_of(case), PopulationBackend)
    assert ("weighted_posterior" in tree.children) == weighted
    axes = ("chain", "draw") if kind(case) is Sampler else ()
    group = tree["posterior" if axes else "map"]
    for theta in ("theta_1", "theta_2"):
        assert group[theta].dims == (*axes, "parameter")
        assert group[theta].sizes["parameter"] == 2 and np.isfinite(group[theta]).all()
    for statistic in STATISTICS if axes else ():
        assert tree["sample_stats"][statistic].dims == axes
    page = (Path(__file__).parent.parent / "docs" / "results.md").read_text()
    assert [name for name in tree.children if f"`{name}`" not in page] == []


@by_case
def test_the_seed_and_nothing_else_decides(case):
    again, other = (
        infer(model_of(case), backend_of(case), seed=seed, progress=False) for seed in (1, 2)
    )
    group = "posterior" if kind(case) is Sampler else "map_starts"
    for theta in ("theta_1", "theta_2"):
        first = run_of(case).tree[group][theta].values
        np.testing.assert_array_equal(first, again.tree[group][theta].values)
        assert not np.array_equal(first, other.tree[group][theta].values)


@by_case
def test_run_folders(case, tmp_path):
    run, folder = run_of(case), tmp_path / "run"
    run.save(folder)
    loaded = Run.load(folder)
    group = "posterior" if kind(case) is Sampler else "map"
    np.testing.assert_array_equal(loaded.tree[group]["theta_1"], run.tree[group]["theta_1"])
    assert loaded.result is run.result and loaded.usable == run.usable
    assert loaded.bits_saved == run.bits_saved
    with pytest.raises(InvalidInput, match="another run"):
        infer(model_of(case), backend_of(case), progress=False, directory=folder)
    path = folder / "posterior.nc"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(InvalidInput, match=r"posterior\.nc"):
        Run.load(folder)


@by_name
def test_bad_options_are_one_sentence(name):
    backend = BACKENDS[name]
    for field in ("colour", *backend.model_fields):
        with pytest.raises(InvalidInput) as caught:
            backend(**{field: object()})
        assert str(caught.value).startswith(f"{backend.__name__}.{field}")
        assert "\n" not in str(caught.value)


@by_name
@pytest.mark.usefixtures("wrong_types")
def test_bad_arguments_of_infer_are_refused(name, tmp_path):
    backend = backend_of(name)
    (tmp_path / "other").write_text("")
    for changes, field in (
        ({"model": None}, "model"),
        ({"seed": -1}, "seed"),
        ({"directory": tmp_path}, "directory"),
    ):
        given = {"model": model_of(name), "backend": backend, "progress": False} | changes
        with pytest.raises(InvalidInput, match=f"^{field}"):
            infer(**given)


@by_name
def test_options_have_defaults_and_are_explained(name):
    backend = BACKENDS[name]
    backend()
    explained = " ".join(
        inspect.getdoc(base) for base in backend.__mro__ if "inference" in base.__module__
    )
    assert [field for field in backend.model_fields if field not in explained] == []
    assert getattr(inference, backend.__name__) is backend
    assert backend.__name__ in inference.__all__
