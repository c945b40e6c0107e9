"""Programs for many points: results that no number of cores changes, and what threads inherit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from generative import problems
from inference import batches
from inference.batches import in_threads, over_points
from inference.compilations import Compilations
from inference.evidence.population import Recipe
from inference.evidence.prior import Effort, annealed_prior
from inference.evidence.tempered import advance
from inference.kernels.exchange.warmup import untuned
from inference.kernels.negative import PersistentNegative


@jax.jit
def iterated(x: jax.Array) -> dict[str, jax.Array]:
    return {"x": jax.lax.fori_loop(0, 1000, lambda _, x: jnp.tanh(x) + 0.1, x)}


@pytest.mark.parametrize("num_cores", [1, 2, 8])
def test_results_do_not_depend_on_the_number_of_cores(monkeypatch, num_cores):
    monkeypatch.setattr(batches, "_num_cores", lambda: num_cores)
    points = [(np.full(7, float(i)),) for i in range(5)]
    found = in_threads(iterated, points, lambda result: result["x"])
    assert all(isinstance(x, np.ndarray) for x in found)
    np.testing.assert_array_equal(found, [iterated(*point)["x"] for point in points])


def test_threads_compile_nothing_and_keep_the_precision_of_their_caller(monkeypatch):
    monkeypatch.setattr(batches, "_num_cores", lambda: 3)
    with jax.enable_x64(False):
        points = [(np.full(9, i, np.float32),) for i in range(4)]
        compilations = Compilations()
        found = in_threads(iterated, points)
        assert compilations.compiled == 1
    assert {x["x"].dtype for x in found} == {np.dtype(np.float32)}


def test_an_error_in_a_thread_reaches_its_caller(monkeypatch):
    monkeypatch.setattr(batches, "_num_cores", lambda: 2)

    def refuse(x: np.ndarray) -> jax.Array:
        if x.sum() > 1:
            raise ValueError("too large")
        return jnp.asarray(x)

    with pytest.raises(ValueError, match="too large"):
        in_threads(refuse, [(np.zeros(1),), (np.ones(2),)])


def drawn(seed, num_annealed):
    """Annealed particles of a double well, by fours where that divides."""
    model = problems.get("double_well").model
    prior = annealed_prior(Recipe(model, PersistentNegative(8), 8))
    return prior, prior.draw(jax.random.key(seed), 64, Effort(4, num_annealed, 1), 4)


@pytest.mark.parametrize(("num_annealed", "num_each"), [(16, 4), (6, 2), (3, 1)])
def test_particles_share_a_theta_1_within_their_run_only(seed, num_annealed, num_each):
    first = np.asarray(drawn(seed, num_annealed)[1].theta_1)[:, 0]
    assert len(np.unique(first)) == 64 // num_each
    assert (first.reshape(-1, num_each) == first[::num_each, None]).all()


def test_runs_move_by_numbers_of_their_own(seed):
    """Eight runs that begin alike stay in their places, and then differ, each from all others."""
    prior, particles = drawn(seed, 16)
    model = prior.recipe.model
    runs = jax.tree.map(lambda x: np.stack([np.asarray(x)[:8]] * 8), particles)
    runs = runs._replace(theta_1=np.arange(8.0)[:, None, None] + 0 * runs.theta_1)
    tuning = untuned(jax.random.key(seed), model, particles.negative)

    def moved(runs, num_sweeps):
        numbers = [np.asarray(x) for x in (0.0, 0.0, 4, num_sweeps)]
        return advance(jax.random.key(seed), prior.recipe, runs, tuning, *numbers)

    still, step, info = moved(runs, 0)
    np.testing.assert_array_equal(still.theta_1, runs.theta_1)
    np.testing.assert_allclose(step.mean, still.log_likelihood.mean(axis=1))
    assert step.mean.shape == (8,) and info.diverging.shape == (64,)
    alike, _, info = moved(runs._replace(theta_1=0 * runs.theta_1), 3)
    assert 0 < info.acceptance_rate <= 1
    for one in range(8):
        for other in range(one):
            same = np.asarray(alike.theta_2[one]) == np.asarray(alike.theta_2[other])
            assert same.mean() < 0.5, (one, other)


def test_batches_are_filled_and_share_their_program(monkeypatch):
    compilations = Compilations()
    needed = []
    for number in (3, 513, 700, 1024, 1025):
        points = (np.arange(float(number)), np.ones((number, 2)))
        found = over_points(Partial(_sum), points, 256)
        np.testing.assert_array_equal(found, np.arange(number) + 2)
        needed.append(compilations.needed)
    assert np.diff(needed).tolist() == [1, 0, 0, 1]
    monkeypatch.setattr(batches, "MAX_NUMBERS", 100)  # as if there were no memory for more
    np.testing.assert_array_equal(over_points(Partial(_sum), points, 256), found)
    assert compilations.needed == needed[-1] + 1


def test_keys_are_points_too(seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    found = over_points(Partial(jax.random.uniform), keys, 256)
    np.testing.assert_array_equal(found, jax.vmap(jax.random.uniform)(keys))


def _sum(point):
    return point[0] + point[1].sum()
