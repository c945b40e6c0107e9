"""Bits saved: errors that hold where the cost of agreement is skewed."""

import jax
import numpy as np
import pytest
from scipy import stats

from generative import problems
from inference.results import bits_saved
from inference.results.bits_saved import posterior_mean_cost

GRID = np.linspace(-6.0, 6.0, 1201)
NUM_REPEATS = 100


def double_well():
    """Exact law of the double well on a grid: of theta_1 and theta_2, and -log Z of theta_1."""
    model = problems.get("double_well").model
    over = jax.jit(jax.vmap(lambda t: (model.agreement.log_factor(t), model.log_likelihood(t))))
    log_factor, log_likelihood = map(np.asarray, over(GRID[:, None]))
    first, second = (float(np.ravel(s.scale)[0]) for s in (model.first_stage, model.second_stage))
    step = stats.norm.pdf(GRID[:, None], GRID, second) * np.exp(log_factor)
    z = step.sum(axis=1) * (GRID[1] - GRID[0])
    prior = stats.norm.pdf(GRID, float(model.space.origin[0]), first)
    law = (prior / z)[:, None] * step * np.exp(log_likelihood)
    return model, law / law.sum(), -np.log(z)


def least_squares(cost, chosen, controls):
    """One control, and the error of homoscedastic residuals: what understated it."""
    flat = controls[..., :1].reshape(-1, 1)
    rows = np.column_stack([np.ones(len(chosen)), flat[chosen] - flat.mean()])
    coefficients = np.linalg.lstsq(rows, cost, rcond=None)[0]
    scatter = np.sum((cost - rows @ coefficients) ** 2) / (len(cost) - 2)
    explained = flat.std() * abs(coefficients[1]) / len(flat) ** 0.5
    return float(coefficients[0]), float(np.hypot((scatter / len(cost)) ** 0.5, explained))


@pytest.mark.parametrize("is_control", [False, True])
def test_errors_hold_where_cost_is_skewed(is_control, seed, monkeypatch):
    if is_control:
        monkeypatch.setattr(bits_saved, "_regressed", least_squares)
    model, law, cost = double_well()
    truth = law.sum(axis=1) @ cost
    rng, found = np.random.default_rng(seed), []
    for repeat in range(NUM_REPEATS):
        drawn = rng.choice(law.size, 1600, p=law.ravel())
        pair = (GRID[x].reshape(4, 400, 1) for x in np.unravel_index(drawn, law.shape))
        estimate = posterior_mean_cost(model, *pair, jax.random.key(repeat))
        found.append((estimate.value - truth) / estimate.standard_error)
    is_covered = np.sum(np.square(found)) < stats.chi2.isf(1e-3, NUM_REPEATS)
    assert is_covered != is_control, np.std(found)
