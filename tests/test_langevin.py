"""Langevin dynamics: the bias of a finite step and of lag, predicted for linear chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generative import problems
from inference.kernels.diagonal import DiagonalConditional, DiagonalJoint
from inference.kernels.langevin import Langevin, LangevinTuning, Metric
from tests.oracles import linear_langevin
from tests.statistical import assert_moments


def dense(apply, n):
    return np.asarray(jax.vmap(apply, 1, 1)(jnp.eye(n)))


def flat_metric(model):
    s1 = jnp.asarray(model.first_stage.variance)
    s2 = jnp.asarray(model.second_stage.variance)
    zero = jnp.zeros_like(s1)
    conditional = DiagonalConditional(zero, s2)
    return Metric(DiagonalJoint(s1, conditional, zero), conditional)


def matrices(problem):
    """The linear model's arrays, read off its functions."""
    model, d = problem.model, problem.model.dimension
    zero = jnp.zeros(d)
    a = np.sqrt(model.agreement.strength) * np.asarray(
        jax.jacobian(model.agreement.residuals)(zero)
    )
    c = -np.sqrt(model.agreement.strength) * np.asarray(model.agreement.residuals(zero))
    hessian = -np.asarray(jax.hessian(model.log_likelihood)(zero))
    root = np.linalg.cholesky(hessian + 1e-12 * np.eye(d)).T
    y = np.linalg.solve(root.T, np.asarray(jax.grad(model.log_likelihood)(zero)))
    return model.first_stage.variance, model.second_stage.variance, a, c, root, y, 1.0


def chain(kernel, tuning, key, num_negatives, num_chains, num_draws, thinning):
    model = kernel.model

    @jax.jit
    def run(key):
        def one(key):
            start = jnp.zeros(model.dimension)
            state = kernel.init(start, start, jnp.zeros((num_negatives, model.dimension)))

            def draw(state, key):
                def step(i, s):
                    return kernel.step(jax.random.fold_in(key, i), s, tuning)[0]

                state = jax.lax.fori_loop(0, thinning, step, state)
                return state, kernel.read(jax.random.fold_in(key, thinning), state, tuning)

            return jax.lax.scan(draw, state, jax.random.split(key, num_draws))[1]

        return jax.vmap(one)(jax.random.split(key, num_chains))

    points = run(key)
    return np.concatenate([points.theta_1, points.theta_2], axis=-1)[:, num_draws // 10 :]


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("estimator", ["control", "score"])
def test_bias_of_step_and_lag_is_predicted(averaged, estimator, seed):
    problem = problems.get("linear_gaussian", d=3, m=2, closed_form=False, agreement_strength=8.0)
    model = problem.model
    metric = flat_metric(model)
    s = {"h": 0.04, "e": 0.08, "M": 2, "K": 2, "averaged": averaged}
    s |= {"score": estimator == "score", "omitted": False}
    parts = (
        dense(metric.joint.covariance, 6),
        dense(metric.negative.covariance, 3),
        dense(metric.negative.low_rank, 3),
    )
    mean, covariance = linear_langevin(*matrices(problem), *parts, s)
    kernel = Langevin(model, averaged, estimator)
    tuning = LangevinTuning(metric, *map(jnp.asarray, (s["h"], s["e"], s["K"])))
    draws = chain(kernel, tuning, jax.random.key(seed), s["M"], 64, 2000, 10)
    assert_moments(draws, mean, covariance)
