"""Runs that are killed go on bitwise identically; foreign and damaged checkpoints are refused."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr

from generative import InvalidInput, problems
from inference import HMC, infer
from inference.running.checkpoint import FOLDER, Checkpoints, DamagedCheckpoint, Section
from tests.conftest import CACHE
from tests.kill_target import BACKENDS, model_for

NUM_KILLS = 20


class Stop(Exception):
    pass


def assert_identical(first, second):
    """Everything but when it was made, and how many programs had to be compiled."""
    assert set(first.groups) == set(second.groups)
    for group in first.groups:
        one, other = (tree[group].to_dataset(inherit=False) for tree in (first, second))
        for dataset in (one, other):
            for name in ("created_at", "compilations"):
                dataset.attrs.pop(name, None)
        xr.testing.assert_identical(one, other)


def interrupt_after(monkeypatch, number):
    """Make the run stop right after some save."""
    save, left = Section.save, [number]

    def counted(self, state, count):
        save(self, state, count)
        left[0] -= 1
        if left[0] == 0:
            raise Stop

    monkeypatch.setattr(Section, "save", counted)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in ("hmc", "smc", "nested"))) for n in BACKENDS],
)
def test_interrupted_runs_are_identical(name, seed, tmp_path, monkeypatch):
    model, backend = model_for(name), BACKENDS[name]
    whole = infer(model, backend, progress=False, directory=tmp_path / "whole").tree
    again = {"directory": tmp_path / "again", "progress": False, "checkpoint_seconds": 0.0}
    for number in np.random.default_rng(seed).integers(1, 3, size=2):  # the second when resumed
        with monkeypatch.context() as patch:
            interrupt_after(patch, int(number))
            with pytest.raises(Stop):
                infer(model, backend, resume=True, **again)
    with pytest.raises(InvalidInput, match="unfinished"):
        infer(model, backend, **again)
    with pytest.raises(InvalidInput, match="seed"):
        infer(model, backend, seed=1, resume=True, **again)
    assert_identical(whole, infer(model, backend, resume=True, **again).tree)
    assert not (tmp_path / "again" / FOLDER).exists()
    assert (tmp_path / "again" / "manifest.json").exists()


def test_a_failure_after_the_draws_loses_none(tmp_path, monkeypatch):
    model, backend = model_for("nuts"), HMC(num_warmup=20, num_draws=20, num_chains=2)
    labels, save = [], Section.save
    monkeypatch.setattr(Section, "save", lambda s, *x: (labels.append(s.label), save(s, *x)))
    whole = infer(model, backend, progress=False).tree
    again = {"directory": tmp_path / "run", "progress": False, "resume": True}

    def fail(*arguments, **options):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("inference.results.sampled.build_tree", fail)
        with pytest.raises(Stop):
            infer(model, backend, **again)
    assert {"warm-up", "draws"} <= set(labels)
    labels.clear()
    assert_identical(whole, infer(model, backend, **again).tree)
    assert not {"warm-up", "draws"} & set(labels)  # which were read, not made again


def test_other_models_are_refused(tmp_path, monkeypatch):
    first, second = (problems.get("linear_gaussian", d=2, seed=s).model for s in (0, 1))
    settings = {"directory": tmp_path / "run", "progress": False, "checkpoint_seconds": 0.0}
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(Stop):
            infer(first, HMC(num_warmup=20, num_draws=20), **settings)
    with pytest.raises(InvalidInput, match="model"):
        infer(second, HMC(num_warmup=20, num_draws=20), resume=True, **settings)
    # A finished run too is of one model, whose parameters' names are not enough to know it by.
    infer(first, HMC(num_warmup=20, num_draws=20), resume=True, **settings)
    with pytest.raises(InvalidInput, match="model"):
        infer(second, HMC(num_warmup=20, num_draws=20), resume=True, **settings)


def test_older_generation_replaces_a_damaged_one(tmp_path):
    def section():
        return Checkpoints(tmp_path, {"seed": 0}, 0.0).section("draws")

    for count in (1, 2):
        section().save({"x": np.arange(3.0) + count, "done": True}, count)
    template = {"x": np.zeros(0), "done": False}
    assert section().count == 2
    newest = tmp_path / FOLDER / "0001.0"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    with pytest.warns(DamagedCheckpoint, match="damaged"):
        damaged = section()
    assert damaged.count == 1
    restored = damaged.restore(template)
    np.testing.assert_array_equal(restored["x"], np.arange(3.0) + 1)
    assert restored["done"] is True
    newest.write_bytes(content[:10])
    (tmp_path / FOLDER / "0001.1").write_bytes(b"")
    with pytest.warns(DamagedCheckpoint):
        assert section().count == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_killed_runs_are_identical(name, seed, tmp_path):
    def start(directory):
        arguments = [sys.executable, "-W", "ignore", "-m", "tests.kill_target", name]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        return subprocess.Popen([*arguments, str(directory), str(CACHE)], env=environment)

    def tree(directory):
        return xr.open_datatree(directory / "posterior.nc", engine="h5netcdf")

    assert start(tmp_path / "warm").wait() == 0  # compiles
    started = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    seconds = time.monotonic() - started
    rng = np.random.default_rng(seed)
    for index in range(NUM_KILLS):
        process = start(tmp_path / str(index))
        time.sleep(rng.uniform(0.1, 1) * seconds)
        process.kill()
        process.wait()
        assert start(tmp_path / str(index)).wait() == 0
        assert_identical(tree(tmp_path / "whole"), tree(tmp_path / str(index)))
