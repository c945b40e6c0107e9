"""Simulation-based calibration: uniform ranks of exact draws, and mistakes that it must see."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from analyses import figures
from analyses.benchmarks.calibration import CASES, CONTROLS, two_wells
from analyses.calibration import calibrate, p_values, ranks, simulations
from generative import InvalidInput, TwoStageModel, simulate, simulate_data
from inference import HMC, NonFiniteState
from inference.backends.base import Sampler
from inference.moves.density import describe
from inference.results.draws import Draws
from inference.running.progress import SILENT, Monitor

LEVEL = 1e-4


class FromThePrior(Sampler):
    """Exact where data say nothing of theta_2; a factor on theta_1 is a mistake."""

    factor: float = 1.0
    fails: bool = False

    def draw(self, model: TwoStageModel, key: jax.Array, monitor: Monitor = SILENT) -> Draws:
        if self.fails:
            raise NonFiniteState("on purpose")
        drawn = simulate(model, key, 200)
        first, second = self.factor * drawn.theta_1, drawn.theta_2
        statistics = jax.vmap(lambda a, b: describe(model, a, b))(first, second)
        values = {"theta_1": first, "theta_2": second, **statistics}
        return Draws(
            {name: np.asarray(x).reshape(4, 50, *x.shape[1:]) for name, x in values.items()}
        )


def blind() -> TwoStageModel:
    """Two wells, and an observation that does not depend on them."""

    def look(theta):
        numpyro.sample("y", dist.Normal(0 * theta, 1.0).to_event(1))

    return two_wells().replace(observation=look, data={"y": np.zeros(2)})


def test_ranks_of_exact_draws_are_uniform_and_of_others_not(seed, tmp_path):
    panels = {}
    for factor, is_calibrated in ((1.0, True), (2.5, False)):
        tree = calibrate(blind(), FromThePrior(factor=factor), 40, seed)
        assert (min(p_values(tree).values()) > LEVEL) == is_calibrated
        panels[f"theta_1 times {factor}"] = ranks(tree).isel(simulation=slice(int(20 * factor)))
    figures.calibration(panels, tmp_path / "ranks.png")
    assert (tmp_path / "ranks.png").stat().st_size > 0
    found = ranks(tree)
    assert found.sizes["simulation"] == 40
    assert "theta_1_along" in found
    assert bool(((found > 0) & (found < 1)).all().to_array().all())


def test_a_simulation_can_be_made_alone(seed):
    model, sampler = blind(), FromThePrior()
    both = list(simulations(model, sampler, range(2), seed))
    assert list(simulations(model, sampler, [1], seed)) == [both[1]]


def test_runs_without_draws_are_counted(seed):
    tree = calibrate(blind(), FromThePrior(fails=True), 2, seed)
    assert float(tree["prior_sbc"]["converged"].sum()) == 0


def test_simulated_data_follow_theta_2(seed):
    model = two_wells()
    theta_2 = np.broadcast_to([1.0, -2.0], (4000, 2))
    y = simulate_data(model, jax.random.key(seed), theta_2)["y"]
    assert y.shape == (4000, 2)
    assert np.abs(y.mean(axis=0) - theta_2[0]).max() < 5 * 0.5 / np.sqrt(4000)
    assert np.abs(y.std(axis=0) / 0.5 - 1).max() < 5 / np.sqrt(2 * 4000)


def test_bad_input_is_refused():
    model, key = two_wells(), jax.random.key(0)
    with pytest.raises(InvalidInput, match="shape"):
        simulate_data(model, key, jnp.zeros((3, 5)))
    bare = model.replace(observation=None)
    with pytest.raises(InvalidInput, match="observation"):
        simulate_data(bare, key, jnp.zeros((1, 2)))
    with pytest.raises(InvalidInput, match="observation"):
        calibrate(bare, HMC(), 2)
    with pytest.raises(InvalidInput, match="num_simulations"):
        calibrate(model, HMC(), 1)


@pytest.mark.parametrize("case", CASES)
def test_cases_can_be_simulated(seed, case):
    model = CASES[case]()
    drawn = simulate(model, jax.random.key(seed), 200)
    data = simulate_data(model, jax.random.key(seed), drawn.theta_2)
    posed = model.replace(data={name: x[0] for name, x in data.items()})
    assert jax.tree.structure(posed) == jax.tree.structure(model)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["two wells", "two deep wells"])
def test_default_chains_are_calibrated(seed, case):
    p = p_values(calibrate(CASES[case](), HMC(), 300, seed))
    assert min(p.values()) > LEVEL, p


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS)
def test_mistakes_are_not_calibrated(seed, control):
    case, sampler, number = control
    p = p_values(calibrate(CASES[case](), sampler, number, seed))
    assert min(p.values()) < LEVEL, p
