"""Langevin dynamics: the bias of a finite step and of lag, predicted for linear chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generative import problems
from generative.parts import Parts
from inference.backends.schedules import Schedule
from inference.gaussians.diagonal import DiagonalConditional, DiagonalJoint
from inference.kernels.langevin.chains import Chains, read_all, step_all
from inference.kernels.langevin.dynamics import LangevinTuning, Metric
from inference.kernels.langevin.steps import Langevin
from inference.moves.noise import standard_normal
from tests.oracles import linear_langevin
from tests.statistical import assert_moments, moments_z, z_limit


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


def predicted(problem, metric, s):
    """Moments by Lyapunov's equation."""
    d = problem.model.dimension
    parts = dense(metric.joint.covariance, 2 * d), dense(metric.negative.covariance, d)
    return linear_langevin(*matrices(problem), *parts, dense(metric.negative.low_rank, d), s)


def drawn(problem, metric, s, seed, num_draws=2000, thinning=10):
    kernel = Langevin(
        problem.model,
        s["averaged"],
        "score" if s["score"] else "control",
        omit_normalizer=s["omitted"],
    )
    tuning = LangevinTuning(metric, *map(jnp.asarray, (s["h"], s["e"], s["K"])))
    return chain(kernel, tuning, jax.random.key(seed), s["M"], 64, num_draws, thinning)


CLASSICAL = {"h": 0.04, "e": 0.08, "M": 2, "K": 2, "averaged": False, "score": True}
CLASSICAL |= {"omitted": False}


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("score", [False, True])
def test_bias_of_step_and_lag_is_predicted(averaged, score, seed):
    problem = problems.get("linear_gaussian", d=3, m=2, closed_form=False, agreement_strength=8.0)
    metric = flat_metric(problem.model)
    settings = CLASSICAL | {"averaged": averaged, "score": score}
    assert_moments(drawn(problem, metric, settings, seed), *predicted(problem, metric, settings))


class Quarter(Schedule):
    """A quarter of the step, always."""

    def __call__(self, step):
        return jnp.full((), 0.25)


@pytest.mark.parametrize("forgets", [False, True])
def test_draws_show_the_noise_of_a_step_as_scheduled(forgets, seed):
    """The control reads draws at the step that warm-up found."""
    problem = problems.get("linear_gaussian", d=3, m=2, closed_form=False, agreement_strength=8.0)
    metric, number = flat_metric(problem.model), 64
    kernel = Langevin(problem.model, averaged=True, estimator="score")
    tuning = LangevinTuning(metric, *map(jnp.asarray, (4 * CLASSICAL["h"], 0.08, 2)))
    zeros = jnp.zeros((number, 3))
    start = jax.vmap(kernel.init)(zeros, zeros, jnp.zeros((number, 2, 3)))
    keys = jax.random.split(jax.random.key(seed), number)
    state = Chains(start, keys, jnp.zeros(number, int), jnp.ones(number), tuning)
    schedule = Parts(Quarter())

    def draw(state, _):
        step = lambda _, state: step_all(kernel, schedule, state)  # noqa: E731
        state = jax.lax.fori_loop(0, 10, step, state)
        shown = read_all(kernel, state._replace(scale=jnp.ones(number)) if forgets else state)
        return state, jnp.concatenate([shown.theta_1, shown.theta_2], axis=-1)

    _, draws = jax.jit(lambda state: jax.lax.scan(draw, state, None, 2000))(state)
    draws = np.swapaxes(np.asarray(draws[200:]), 0, 1)
    scores = moments_z(draws, *predicted(problem, metric, CLASSICAL | {"averaged": True}))
    assert (np.abs(scores).max() > z_limit(len(scores))) == forgets, np.abs(scores).max()


def excess(problem, draws):
    """Mean square over the posterior variance, less 1, of all coordinates; with its error."""
    truth = problem.truth
    mean = np.concatenate([truth.mean_1, truth.mean_2])
    variance = np.concatenate([np.diag(truth.cov_1), np.diag(truth.cov_2)])
    by_chain = ((draws - mean) ** 2 / variance).mean(axis=(1, 2)) - 1
    return by_chain.mean(), by_chain.std(ddof=1) / np.sqrt(len(by_chain))


@pytest.mark.slow
@pytest.mark.parametrize("d", [5, 20, 200])
@pytest.mark.parametrize("cause", ["step", "lag"])
def test_extrapolation_reaches_the_exact_moments(d, cause, seed):
    problem = problems.get("linear_gaussian", d=d, closed_form=False, agreement_strength=2.0)
    metric = flat_metric(problem.model)
    if cause == "step":  # the exact control has no lag, so that only the step is left
        known = problems.get("linear_gaussian", d=d, agreement_strength=2.0).model
        metric = metric._replace(negative=known.agreement.closed_form)
        h = 0.06 if d == 5 else 0.03
        coarse = CLASSICAL | {"h": h, "e": 0.1, "score": False}
        fine = coarse | {"h": h / 2}
    else:
        coarse = CLASSICAL | {"h": 0.02, "e": 0.2, "M": 4, "K": 4, "averaged": True}
        fine = coarse | {"K": 8}
    found = []
    for settings, thinning in ((coarse, 10), (fine, 20 if cause == "step" else 10)):
        draws = drawn(problem, metric, settings, seed, thinning=thinning)
        found.append(excess(problem, draws))
        mean, covariance = predicted(problem, metric, settings)
        truth = np.concatenate([np.diag(problem.truth.cov_1), np.diag(problem.truth.cov_2)])
        centre = np.concatenate([problem.truth.mean_1, problem.truth.mean_2])
        bias = np.mean((np.diag(covariance) + (mean - centre) ** 2) / truth) - 1
        assert abs(found[-1][0] - bias) < z_limit() * found[-1][1]
        assert bias > z_limit() * found[-1][1]  # there is something to extrapolate
    value = 2 * found[1][0] - found[0][0]
    assert abs(value) < z_limit() * np.hypot(2 * found[1][1], found[0][1]) < 0.05


def test_moments_fail_without_negative_samples(seed):
    problem = problems.get("linear_gaussian", d=20, closed_form=False, agreement_strength=2.0)
    settings = CLASSICAL | {"averaged": True, "score": False}
    metric = flat_metric(problem.model)
    for omitted in (False, True):
        draws = drawn(problem, metric, settings | {"omitted": omitted}, seed)
        mean = np.concatenate([problem.truth.mean_1, problem.truth.mean_2])
        by_chain = draws.mean(axis=1) - mean
        scores = by_chain.mean(axis=0) / by_chain.std(axis=0, ddof=1) * np.sqrt(len(by_chain))
        assert (np.abs(scores).max() > z_limit(len(scores))) == omitted


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 17, 100_000])
def test_noise_is_that_of_jax(size, dtype, seed):
    key = jax.random.key(seed)
    with jax.enable_x64(dtype == "float64"):
        ours = jax.jit(standard_normal, static_argnums=(1, 2))(key, size, jnp.dtype(dtype))
        theirs = jax.random.normal(key, (size,), dtype)
    np.testing.assert_allclose(ours, theirs, rtol=2e-6)
