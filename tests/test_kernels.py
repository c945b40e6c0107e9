"""Moves: reversibility, exact one-dimensional draws, and what the exchange accepts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC
from scipy import integrate, stats

from analyses.benchmarks.posteriors import acceptance
from generative import LinearGaussianAgreement, problems
from inference.annealing.anneal import anneal
from inference.gaussians.first_given_second import FirstGivenSecond
from inference.gaussians.joint import JointReference, PosteriorReference
from inference.gaussians.surrogate import agreement_potential, fit
from inference.kernels.exchange.hmc import ExchangeHMC, is_divergent
from inference.kernels.exchange.transported import TransportedExchange
from inference.moves.density import log_joint
from inference.moves.piecewise import sample_piecewise_exponential
from inference.moves.reference_hmc import integrate as flow
from inference.moves.reference_hmc import kinetic_energy
from tests.statistical import assert_centred_gaussian


def random_form(rng, m, d, zero=()):
    s2 = rng.uniform(0.2, 1.0, size=d)
    s2[list(zero)] = 0.0
    return LinearGaussianAgreement(
        jnp.asarray(rng.normal(size=(m, d))), jnp.asarray(rng.normal(size=m)), s2
    )


def dense(apply, n):
    return np.stack([np.asarray(apply(x)) for x in jnp.eye(n)], axis=1)


def test_flow_is_reversible_and_preserves_volume(seed):
    rng = np.random.default_rng(seed)
    form = random_form(rng, 2, 3)

    def anything(x):
        return jnp.sum(jnp.sin(x)), jnp.cos(3 * x) * x[::-1]  # no gradient of anything

    def step(both):
        x, v = jnp.split(both, 2)
        end = flow(anything, x, v, form.c[0] + 0 * x, form.covariance, jnp.asarray(0.3), 4)
        return jnp.concatenate([end.position, end.velocity])

    start = jnp.asarray(rng.normal(size=6))
    end = step(start)
    back = step(end * jnp.array([1, 1, 1, -1, -1, -1.0]))
    np.testing.assert_allclose(back * jnp.array([1, 1, 1, -1, -1, -1.0]), start, atol=1e-12)
    np.testing.assert_allclose(np.abs(np.linalg.det(jax.jacobian(step)(start))), 1, atol=1e-10)


@pytest.mark.parametrize("zero", [(), (1,)])
def test_references_are_consistent(seed, zero):
    rng = np.random.default_rng(seed)
    d = 4
    form, likelihood = random_form(rng, 3, d, zero), random_form(rng, 2, d)
    joint = JointReference(form, jnp.asarray(rng.uniform(0.5, 2.0, size=d)))
    for reference in (joint, PosteriorReference(joint, likelihood)):
        covariance = dense(reference.covariance, 2 * d)
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
        precision = dense(reference.precision, 2 * d)
        np.testing.assert_allclose(covariance @ precision @ covariance, covariance, atol=1e-9)
        keys = jax.random.split(jax.random.key(seed), 40_000)
        draws = np.asarray(jax.vmap(reference.fluctuation)(keys))
        assert_centred_gaussian(draws, covariance)


def test_first_given_second_is_the_exact_conditional(seed):
    model = problems.get("linear_gaussian", d=5, m=3).model
    form = model.agreement.closed_form
    reference = FirstGivenSecond(model, form)
    theta_2 = jnp.asarray(np.random.default_rng(seed).normal(size=5))

    def log_conditional(a):
        return log_joint(model, a, theta_2) - form.log_normalizer(a)

    precision = -jax.hessian(log_conditional)(jnp.zeros(5))
    np.testing.assert_allclose(dense(reference.precision, 5), precision, atol=1e-9)
    np.testing.assert_allclose(dense(reference.covariance, 5), np.linalg.inv(precision), atol=1e-9)
    np.testing.assert_allclose(jax.grad(log_conditional)(reference.mean(theta_2)), 0, atol=1e-9)


def test_surrogate_is_exact_for_quadratic_c_from_any_draws(seed):
    for form in ("residuals", "disagreement"):
        model = problems.get("linear_gaussian", d=6, m=3, closed_form=False, form=form).model
        exact = problems.get("linear_gaussian", d=6, m=3).model.agreement.closed_form
        draws = jax.random.normal(jax.random.key(seed), (5, 6))
        fitted = fit(jax.random.key(1), model, agreement_potential(model), draws, 3)
        x = jnp.arange(6.0)
        np.testing.assert_allclose(fitted.mean(x), exact.mean(x), rtol=1e-6)
        np.testing.assert_allclose(fitted.log_normalizer(x), exact.log_normalizer(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("slopes", "precisions"),
    [
        ([1.0, 2.0, 3.0], [0, 0, 0]),
        ([0, 2.0, 3.0], [1.5, 0, 0]),
        ([1.0, 1.0, 0], [0, 0, 0]),
        ([0, 60.0, 0], [1.0, 0, 0]),
    ],
)
def test_piecewise_exponential(seed, slopes, precisions):
    centres = np.array([0.0, 1.0, -0.7])
    slopes, precisions = np.array(slopes, float), np.array(precisions, float)

    keys = jax.random.split(jax.random.key(seed), 20_000)
    draws = np.asarray(
        jax.vmap(
            lambda k: sample_piecewise_exponential(
                k, *map(jnp.asarray, (centres, slopes, precisions))
            )
        )(keys)
    )
    assert np.isfinite(draws).all()
    grid = np.linspace(-12, 12, 200_001)
    values = np.exp(
        -sum(
            s * np.abs(grid - c) + p * (grid - c) ** 2 / 2
            for s, c, p in zip(slopes, centres, precisions, strict=True)
        )
    )
    cdf = integrate.cumulative_trapezoid(values, grid, initial=0)

    def p_value(x):
        return stats.kstest(x, lambda t: np.interp(t, grid, cdf / cdf[-1])).pvalue

    assert p_value(draws) > 1e-6
    # Negative control: a little less spread, around where the draws are.
    assert p_value(np.median(draws) + 0.9 * (draws - np.median(draws))) < 1e-6


@pytest.mark.parametrize("transport", [True, False])
def test_transport_accepts_exact_moves_at_d_200(seed, transport):
    """Moves of theta_1 drawn from its exact conditional; the plain exchange is the control."""
    rate = acceptance(200, transport, seed)
    assert rate > 0.95 if transport else rate < 0.05


def test_anneal_normaliser(seed):
    problem = problems.get("rotated_wells", d=4)
    theta_1 = problem.model.space.origin
    keys = jax.random.split(jax.random.key(seed), 32)
    runs = jax.vmap(lambda k: anneal(k, problem.model, theta_1, 64))(keys)
    ratio = np.exp(np.asarray(runs.log_normalizer) - problem.truth.log_normalizer(theta_1))
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(32) < 0.5


@pytest.mark.parametrize("kernel", [TransportedExchange, ExchangeHMC])
@pytest.mark.parametrize("method", ["sequential", "vectorized"])
def test_kernels_run_under_numpyro(kernel, method):
    model = problems.get("double_well").model
    mcmc = MCMC(
        kernel(model),
        num_warmup=20,
        num_samples=30,
        num_chains=2,
        chain_method=method,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), extra_fields=("acceptance_rate",))
    assert mcmc.get_samples(group_by_chain=True)["theta_1"].shape == (2, 30, 1)


def test_a_kernel_compiles_once():
    traces = []
    base = problems.get("double_well").model

    def counted(theta):
        traces.append(1)
        return base.agreement.disagreement(base.space.vector(theta))

    model = base.replace(disagreement=counted)
    kernel = TransportedExchange(model)
    state = kernel.init(jax.random.key(0), 0)
    step = jax.jit(kernel.sample)
    state = step(state)
    count = len(traces)
    for _ in range(3):
        state = step(state._replace(num_moves=state.num_moves + 1))
    assert len(traces) == count


def test_a_velocity_that_overflows_has_infinite_energy(seed):
    rng = np.random.default_rng(seed)
    surrogate, likelihood = random_form(rng, 2, 3), random_form(rng, 2, 3)
    reference = PosteriorReference(JointReference(surrogate, jnp.ones(3)), likelihood)
    velocities = 1e160 * jnp.asarray(rng.normal(size=(200, 6)))
    raw = jax.vmap(lambda v: v @ reference.precision(v))(velocities)
    assert (~(raw > 0)).any()  # NaN or -infinity, which would be a gain
    energies = jax.vmap(lambda v: kinetic_energy(reference, v))(velocities)
    assert bool((energies == jnp.inf).all())
    assert bool(jnp.isfinite(kinetic_energy(reference, velocities[0] / 1e160)))


@pytest.mark.parametrize(
    ("gain", "in_warmup", "in_sampling"),
    [(-2000.0, True, True), (2000.0, False, True), (np.nan, True, True), (-5.0, False, False)],
)
def test_trajectories_with_a_huge_energy_error_are_refused(gain, in_warmup, in_sampling):
    for is_warmup, expected in ((True, in_warmup), (False, in_sampling)):
        assert bool(is_divergent(jnp.asarray(gain), jnp.asarray(is_warmup))) == expected
