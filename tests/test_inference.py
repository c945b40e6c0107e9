"""The entry, its results, layouts, checks, normalisers, folders and the command line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analyses.__main__ import main
from generative import GaussianStage, InvalidInput, TwoStageModel, problems
from inference import (
    HMC,
    NonFiniteState,
    RejectionGibbs,
    Result,
    Run,
    infer,
    log_normalizer,
)
from inference.checks import check_chains
from inference.doubling import compare
from tests.layouts import run_on_two_devices
from tests.statistical import z_limit

TINY = HMC(num_warmup=60, num_draws=60, num_chains=2, max_doublings=1, evidence_particles=0)


def test_bits_saved_where_known(seed):
    problem = problems.get("linear_gaussian", d=3)
    backend = HMC(num_draws=500, evidence_particles=0)
    run = infer(problem.model, backend, seed=seed, progress=False)
    assert run.result is Result.converged
    error = run.bits_saved.bits_error
    assert abs(run.bits_saved.bits - problem.truth.bits_saved) < z_limit() * error


def test_sequential_and_vectorised_agree():
    model = problems.get("double_well").model
    options = {"num_warmup": 0, "num_draws": 12, "num_chains": 2, "max_doublings": 0}
    runs = [
        HMC(chain_method=method, **options).draw(model, jax.random.key(3)).values["theta_1"]
        for method in ("vectorized", "sequential")
    ]
    np.testing.assert_allclose(runs[0][:, :10], runs[1][:, :10], atol=1e-8)


_SHARDED = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from generative import problems
from inference import HMC
model = problems.get("double_well").model
assert jax.device_count() == 2
runs = [HMC(chain_method=m, num_warmup=0, num_draws=600, num_chains=4, max_doublings=0).draw(
    model, jax.random.key(3)).values["theta_1"] for m in ("vectorized", "sharded")]
np.testing.assert_allclose(runs[0][:, :10], runs[1][:, :10], atol=1e-8)
import arviz as az
error = np.hypot(*(float(np.asarray(az.mcse(r[..., 0]))) for r in runs))
assert abs(runs[0].mean() - runs[1].mean()) < 5 * error + 1e-12
"""


def test_sharded_over_two_devices():
    run_on_two_devices(_SHARDED)


def test_checks_catch_what_diagnostics_miss():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(4, 1000))
    assert all(check.passed for check in check_chains({"x": good}))
    nan, stuck, drift = good.copy(), good.copy(), good + np.arange(4)[:, None]
    nan[0, 0] = np.nan
    stuck[1] = 0.5
    for name, bad in (("finite", nan), ("variance", stuck), ("rhat", drift)):
        failed = {c.name for c in check_chains({"theta": bad, "y": good}) if not c.passed}
        assert name in failed
    assert all(c.passed for c in check_chains({"C": np.zeros((4, 1000)), "x": good}))


def test_doubling_check_sees_a_shift():
    rng = np.random.default_rng(0)
    x = {"C": rng.normal(size=(4, 500))}
    same, moved = {"C": rng.normal(size=(4, 500))}, {"C": 0.5 + rng.normal(size=(4, 500))}
    assert compare(x, same, 4).check.passed
    assert not compare(x, moved, 4).check.passed


def test_capped_rejection_is_a_failure():
    model = problems.get("double_well").model.replace(agreement_strength=60.0)
    run = infer(model, RejectionGibbs(num_warmup=50, num_draws=50, cap=16), progress=False)
    assert run.result is Result.budget_exhausted


def test_non_finite_stops_the_run():
    def log_likelihood(theta):  # drives the chains to where the prior alone hardly reaches
        return jnp.where(theta[0] > 8, jnp.inf, 30 * theta[0])

    model = problems.get("double_well").model.replace(log_likelihood=log_likelihood)
    model = model.replace(agreement_strength=0.0)
    with pytest.raises(NonFiniteState, match="chain"):
        infer(model, TINY, progress=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HMC(num_chains=0),
        lambda: HMC(colour=1),
        lambda: HMC(num_draws="many"),
        lambda: infer(problems.get("double_well").model, "hmc"),
        lambda: infer(problems.get("double_well").model, HMC(), seed=-1),
        lambda: log_normalizer(problems.get("double_well").model, np.zeros(3)),
        lambda: log_normalizer(problems.get("double_well").model, np.zeros(1), "guess"),
        lambda: log_normalizer(problems.get("double_well").model, np.full(1, np.nan)),
    ],
)
@pytest.mark.usefixtures("wrong_types")
def test_bad_input_is_one_sentence(make):
    with pytest.raises(InvalidInput) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_float32_parameters_stay_float32():
    model = TwoStageModel(
        {"a": jnp.zeros(2, jnp.float32), "b": jnp.zeros((), jnp.float32)},
        GaussianStage({"a": 1.0, "b": 0.5}),
        GaussianStage(1.0),
        agreement_strength=2.0,
        disagreement=lambda t: jnp.sum(t["a"] ** 2) + t["b"] ** 2,
        log_likelihood=lambda t: -((t["b"] - 1.0) ** 2),
    )
    run = infer(model, TINY, progress=False)
    assert run.tree["posterior"]["theta_2"].dtype == np.float32
    estimate = log_normalizer(model, model.theta_0, "importance")
    assert np.asarray(estimate.value).dtype == np.float64 and estimate.standard_error < 0.2


ARGUMENTS = [
    "--hmc.num-warmup",
    "40",
    "--hmc.num-draws",
    "40",
    "--hmc.num-chains",
    "2",
    "--hmc.max-doublings",
    "0",
    "--hmc.evidence-particles",
    "8",
]


def code_of(folder):
    """Return what the command that made a run must exit with."""
    return 0 if Run.load(folder).result.is_usable else 1


def test_command_line_runs_compares_and_resumes(tmp_path, capsys):
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    for index, folder in enumerate(folders):
        command = [
            "run",
            "rotated_wells",
            "--problem.d",
            "2",
            "--seed",
            str(index),
            "--out",
            folder,
        ]
        assert main([*command, *ARGUMENTS]) == code_of(folder)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["problem_options"]["d"] == 2 and config["options"]["num_draws"] == 40
    assert "bits saved" in capsys.readouterr().out
    figure = tmp_path / "figure.png"
    assert main(["compare", *folders, "--figure", str(figure)]) == 0
    table = capsys.readouterr().out
    assert (
        "C(theta_2)" in table
        and "log evidence less the first's, bits" in table
        and figure.stat().st_size > 1000
    )
    command = ["run", "rotated_wells", "--problem.d", "2", "--out", folders[0], *ARGUMENTS]
    assert main(command) == 2  # holds another run
    assert main([*command, "--resume"]) == code_of(folders[0])
    assert main([*command, "--resume", "--seed", "7"]) == 2
    assert main([*command, "--resume", "--setup", "z-omitted"]) == 2


def test_command_line_reads_toml_and_lists_problems(tmp_path, capsys):
    file = tmp_path / "run.toml"
    file.write_text(
        'backend = "rejection-gibbs"\n[rejection_gibbs]\nnum_warmup = 50\nnum_draws = 60\n'
        "evidence_particles = 0\n"
    )
    folder = tmp_path / "run"
    command = ["run", "double_well", "--config", str(file), "--out", str(folder)]
    assert main(command) == code_of(folder)
    assert "proposals per sweep" in capsys.readouterr().out
    options = json.loads((folder / "config.json").read_text())["options"]
    assert (options["num_warmup"], options["num_draws"]) == (50, 60)
    assert main(["problems"]) == 0
    assert "linear_gaussian" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "run nothing",
        "run double_well --backend guess",
        "run double_well --hmc.num-chains 0",
        "run double_well --hmc.colour 1",
        "run linear_gaussian --problem.d 0",
        "run no.module:f",
        "run double_well --config missing.toml",
        "compare missing other",
    ],
)
def test_command_line_refuses_in_one_line(command, capsys):
    assert main(command.split()) == 2
    error = capsys.readouterr().err.strip()
    assert error.splitlines()[-1].startswith("concord: ") and "Traceback" not in error
