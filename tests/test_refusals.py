"""What only draws or a run's options show: refused by `infer`, or where it shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from generative import LinearResiduals, simulate
from generative.points import check_points
from inference import HMC, SGLD, NestedSampling, RejectionGibbs, Result, Run, TemperedSMC, infer
from inference.backends.base import Backend
from inference.feasible import check_backend, check_draws
from inference.running.folder import require_writable
from tests.test_bad_input import X, answered, classes, model, refused

pytestmark = pytest.mark.usefixtures("wrong_types")


def test_answers_in_several_numbers_without_labels():
    many = answered(heads=classes, labels=None, agreement_strength=1.0)
    backend = RejectionGibbs(num_warmup=10, num_draws=20, num_chains=2, evidence_particles=0)
    run = infer(many, backend, progress=False)
    assert run.tree["posterior_predictive"]["small"].shape == (2, 20, 2, 3, 3)
    assert run.predict(X[:2], 5).shape == (5, 2, 2, 3)
    refused(lambda: run.predict("text"), "inputs")
    refused(lambda: run.predict(X, 0), "num_draws")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"disagreement": lambda t: t[0] + 1e-3}, "disagreement"),
        ({"disagreement": lambda t: jnp.sqrt(t[0] + 1e-3)}, "disagreement"),
        ({"disagreement": lambda t: jnp.where(t[0] > 0.5, -1e-6, 0.0)}, "disagreement"),
        ({"log_likelihood": lambda t: jnp.log(t[0] + 1e-3)}, "log_likelihood"),
        ({"log_likelihood": lambda t: jnp.where(t[0] > 1, jnp.inf, 0.0)}, "log_likelihood"),
    ],
)
def test_c_and_l_away_from_theta_0(changes, field):
    message = refused(lambda: infer(model(**changes), HMC(), progress=False), field)
    assert "at theta = (" in message


def test_heads_of_labelled_sets_give_probabilities():
    logits = answered(heads=lambda t, x: jnp.stack([x @ t, x @ t]))
    refused(lambda: check_points(logits), "heads")
    check_points(logits.replace(labels=None))


@pytest.mark.parametrize("group", ["sample_stats", "weighted_sample_stats", "map_starts"])
@pytest.mark.parametrize("name", ["disagreement", "disagreement_theta_1", "disagreement_negative"])
def test_negative_c_at_a_draw(group, name):
    values = np.ones((2, 5))
    tree = xr.DataTree.from_dict({group: xr.Dataset({name: (("chain", "draw"), values)})})
    check_draws(model(), tree)
    values[1, 3] = -0.01
    message = refused(lambda: check_draws(model(), tree), name)
    assert "chain 1, draw 3" in message
    values[1, 3] = -1e-12  # rounding
    check_draws(model(), tree)


class Fixed(Backend):
    """Returns a tree with a negative disagreement."""

    def run(self, model, seed, monitor, configuration):
        stats = xr.Dataset({"disagreement": (("chain", "draw"), np.full((2, 4), -1.0))})
        return Run(xr.DataTree.from_dict({"sample_stats": stats}), Result.converged)


def test_negative_c_at_a_draw_is_no_result(tmp_path):
    refused(lambda: infer(model(), Fixed(), directory=tmp_path / "run"), "disagreement")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((None, jax.random.key(0), 1), "model"),
        (("model", 0, 1), "key"),
        (("model", jax.random.split(jax.random.key(0)), 1), "key"),
        (("model", np.zeros(2), 1), "key"),
        (("model", jax.random.key(0), -1), "num_draws"),
        (("model", jax.random.key(0), 0), "num_draws"),
        (("model", jax.random.key(0), 2.0), "num_draws"),
        (("model", jax.random.key(0), "2"), "num_draws"),
        (("model", jax.random.key(0), True), "num_draws"),
        (("model", jax.random.key(0), 1, 0), "cap"),
        (("model", jax.random.key(0), 1, 2.5), "cap"),
    ],
)
def test_simulate(arguments, field):
    chosen = [model() if isinstance(a, str) and a == "model" else a for a in arguments]
    refused(lambda: simulate(*chosen), field)


def test_old_and_new_keys():
    closed = model(disagreement=None, residuals=LinearResiduals(np.eye(2), np.zeros(2)))
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        assert simulate(closed, key, 2).theta_1.shape == (2, 2)


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (HMC(num_chains=1), "num_chains"),
        (SGLD(num_chains=1), "num_chains"),
        (RejectionGibbs(num_chains=1), "num_chains"),
        (HMC(num_chains=10**9), "memory"),
        (HMC(num_draws=10**12), "memory"),
        (HMC(num_warmup=10**12), "memory"),
        (SGLD(num_draws=10**12), "memory"),
        (TemperedSMC(num_particles=10**12), "memory"),
        (NestedSampling(num_live=10**12), "memory"),
        (HMC(num_draws=10**40), "memory"),
        (HMC(thinning=10**20), "thinning"),
        (HMC(num_moves=10**12), "num_moves"),
    ],
)
def test_backends_that_cannot_be_run(backend, words):
    message = refused(lambda: infer(model(), backend), type(backend).__name__)
    assert words in message


def test_large_models_that_thin_themselves_are_no_memory():
    large = model(theta_0=jnp.zeros(2_000_000))
    check_backend(large, SGLD())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 1.0}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": "0"}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"checkpoint_seconds": "60"}, "checkpoint_seconds"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds"),
        ({"checkpoint_seconds": np.nan}, "checkpoint_seconds"),
        ({"checkpoint_seconds": None}, "checkpoint_seconds"),
        ({"directory": 3}, "directory"),
        ({"directory": "a\0b"}, "directory"),
        ({"directory": "x" * 5000}, "directory"),
        ({"directory": __file__}, "directory"),
        ({"directory": f"{__file__}/below"}, "directory"),
        ({"provenance": "digits"}, "provenance"),
        ({"provenance": {"problem": object()}}, "provenance"),
    ],
)
def test_arguments_of_infer(changes, field):
    refused(lambda: infer(model(), HMC(), **changes), field)


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
