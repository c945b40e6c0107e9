"""Parameters, stages, closed forms, the program and exact simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.util import log_density
from scipy import integrate, stats

from generative import (
    AgreementConditioned,
    AgreementNotReached,
    GaussianStage,
    IntractableNormalizer,
    InvalidInput,
    LaplaceStage,
    LinearGaussianAgreement,
    LinearResiduals,
    ParameterSpace,
    TwoStageModel,
    problems,
    simulate,
    two_stage,
)
from generative.setups import set_up
from inference.moves.density import log_joint
from tests.oracles import double_well_evidences, linear_posterior
from tests.statistical import assert_centred_gaussian, z_limit

TREE = {"head": {"weight": jnp.zeros((2, 3)), "bias": jnp.zeros(2)}, "world": jnp.zeros(())}


def model_with(**changes) -> TwoStageModel:
    arguments = {
        "theta_0": jnp.zeros(2),
        "first_stage": GaussianStage(1.0),
        "second_stage": GaussianStage(0.5),
        "disagreement": lambda t: jnp.sum(t**2),
    }
    return TwoStageModel(**(arguments | changes))


def test_vectors_pytrees_and_batches():
    space = ParameterSpace(TREE)
    assert space.dimension == 9
    assert space.names[:2] == ["head.bias[0]", "head.bias[1]"]
    assert space.vector(TREE).shape == (9,)
    assert space.vector(np.zeros((4, 9))).shape == (4, 9)
    batch = jax.tree.map(lambda x: jnp.zeros((5, *x.shape)), TREE)
    assert space.vector(batch).shape == (5, 9)
    scalar = ParameterSpace(jnp.zeros(()))
    assert scalar.vector(jnp.zeros((5, 1))).shape == (5, 1)
    assert scalar.vector(jnp.zeros(())).shape == (1,)
    with pytest.raises(InvalidInput, match="theta"):
        space.vector(np.zeros(8))


def test_scales_by_prefix():
    space = ParameterSpace(TREE)
    scale = space.expand({"head": 2.0, "world": 0.0}, "scale")
    np.testing.assert_array_equal(scale, [2.0] * 8 + [0.0])
    leaf = space.expand({"head": {"weight": np.full((2, 3), 3.0), "bias": 1.0}, "world": 1.0}, "s")
    assert leaf.sum() == 18 + 2 + 1
    for bad in (-1.0, np.nan, {"head": 1.0}, {"head": np.ones(7), "world": 1.0}):
        with pytest.raises(InvalidInput, match="scale"):
            space.expand(bad, "scale")


@pytest.mark.parametrize(
    ("stage", "expected"), [(GaussianStage(0.7), dist.Normal), (LaplaceStage(0.7), dist.Laplace)]
)
def test_stage_densities_are_normalised(stage, expected):
    x = jnp.array([0.3, -1.0, 2.0])
    around = stage.around(jnp.ones(3))
    np.testing.assert_allclose(around.log_prob(x), expected(1.0, 0.7).log_prob(x).sum())
    draws = around.sample(jax.random.key(0), (200_000,))
    np.testing.assert_allclose(
        draws.var(axis=0), stage.bind(ParameterSpace(jnp.zeros(3)), "s").variance, rtol=0.03
    )


def test_a_fixed_block_stays_and_has_no_density():
    stage = GaussianStage(jnp.array([1.0, 0.0]))
    around = model_with(first_stage=stage).first_stage.around(jnp.array([0.5, 3.0]))
    draws = around.sample(jax.random.key(0), (7,))
    np.testing.assert_array_equal(draws[:, 1], 3.0)
    np.testing.assert_allclose(around.log_prob(draws), dist.Normal(0.5, 1.0).log_prob(draws[:, 0]))


def test_nuts_with_fixed_blocks_returns_the_prior():
    model = problems.get("linear_gaussian", d=3).model.replace(
        first_stage=GaussianStage(jnp.array([1.0, 0.0, 1.0])),
        second_stage=GaussianStage(jnp.array([0.5, 0.5, 0.0])),
        log_likelihood=None,
    )
    mcmc = MCMC(NUTS(two_stage), num_warmup=500, num_samples=4000, progress_bar=False)
    mcmc.run(jax.random.key(1), model)
    draws = mcmc.get_samples()
    np.testing.assert_array_equal(draws["theta_1"][:, 1], 0.0)
    np.testing.assert_array_equal(draws["theta_2"][:, 2], draws["theta_1"][:, 2])
    np.testing.assert_allclose(draws["theta_1"].var(axis=0), [1, 0, 1], atol=0.15)


def test_closed_form_against_quadrature():
    residuals = LinearResiduals(jnp.array([[1.3]]), jnp.array([0.4]), jnp.array([[2.0]]))
    model = model_with(
        theta_0=jnp.zeros(1), disagreement=None, residuals=residuals, agreement_strength=3.0
    )

    def integrand(b, a):
        return stats.norm.pdf(b, a, 0.5) * np.exp(-3 * 0.5 * 2.0 * (1.3 * b - 0.4) ** 2)

    for a in (-1.0, 0.0, 2.0):
        z = integrate.quad(integrand, -10, 10, args=(a,))[0]
        closed = model.agreement.log_normalizer(jnp.array([a]))
        np.testing.assert_allclose(closed, np.log(z), rtol=1e-9)
        mean = integrate.quad(lambda b, a: b * integrand(b, a), -10, 10, args=(a,))[0] / z
        np.testing.assert_allclose(
            model.agreement.closed_form.mean(jnp.array([a])), [mean], rtol=1e-8
        )


def test_linear_algebra_against_dense(seed):
    rng = np.random.default_rng(seed)
    a, c, s2 = rng.normal(size=(3, 6)), rng.normal(size=3), rng.uniform(0.1, 2, size=6)
    form = LinearGaussianAgreement(jnp.asarray(a), jnp.asarray(c), s2)
    dense = np.linalg.inv(np.diag(1 / s2) + a.T @ a)
    x = jnp.asarray(rng.normal(size=6))
    np.testing.assert_allclose(form.covariance(x), dense @ x)
    np.testing.assert_allclose(form.precision(form.covariance(x)), x)
    np.testing.assert_allclose(form.gain(x), dense @ np.diag(1 / s2) @ x)
    np.testing.assert_allclose(form.score(x), jax.grad(form.log_normalizer)(x))
    draws = jax.vmap(form.fluctuation)(jax.random.split(jax.random.key(seed), 40_000))
    assert_centred_gaussian(np.asarray(draws), dense)


def test_truth_of_linear_gaussian_by_another_route():
    problem = problems.get("linear_gaussian", d=4)
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(4, 4)) / 2, rng.normal(size=4) * 0.5
    b = rng.normal(size=(2, 4)) / 2
    y = b @ rng.normal(size=4) + 0.5 * rng.normal(size=2)
    root = np.sqrt(20.0)
    mean, covariance, d = linear_posterior(
        np.ones(4), np.full(4, 0.25), root * a, root * c, b, y, 0.25
    )
    np.testing.assert_allclose(problem.truth.mean_1, mean[:d], atol=1e-10)
    np.testing.assert_allclose(problem.truth.mean_2, mean[d:], atol=1e-10)
    np.testing.assert_allclose(problem.truth.cov_2, covariance[d:, d:], atol=1e-10)


def test_the_three_evidences_of_the_double_well():
    ours, without, globally = double_well_evidences()
    np.testing.assert_allclose([ours, without, globally], [-1.0521, -1.7482, -1.0705], atol=2e-4)
    truth = problems.get("double_well").truth
    np.testing.assert_allclose(truth.log_evidence, ours, atol=2e-4)
    np.testing.assert_allclose([truth.mean_1[0], truth.cov_1[0, 0]], [0.63799, 0.73976], atol=1e-5)


def test_predictive_gives_the_two_stage_prior_and_a_factor_does_not(seed):
    model = problems.get("double_well").model.replace(log_likelihood=None)
    n = 20_000
    exact = Predictive(two_stage, num_samples=n)(jax.random.key(seed), model)["theta_2"][:, 0]

    def by_factor(model):
        theta_1 = numpyro.sample("theta_1", model.first_stage.around(model.theta_0))
        theta_2 = numpyro.sample("theta_2", model.second_stage.around(theta_1))
        numpyro.factor("agree", -3.0 * model.disagreement(theta_2))

    wrong = Predictive(by_factor, num_samples=n)(jax.random.key(seed), model)["theta_2"][:, 0]
    grid = np.linspace(-7, 7, 1401)
    f = stats.norm.pdf(grid[None], grid[:, None], 1) * np.exp(-3 * (grid**2 - 1) ** 2 / 4)[None]
    density = stats.norm.pdf(grid, 0.2, 1) @ (f / f.sum(axis=1, keepdims=True))
    distribution = np.cumsum(density) / density.sum()

    def distance(draws):
        return stats.kstest(np.asarray(draws), lambda x: np.interp(x, grid, distribution)).statistic

    limit = stats.kstwobign.isf(1e-6) / np.sqrt(n) + 0.005  # the grid's own resolution
    assert distance(exact) < limit < distance(wrong)


def test_rejection_matches_the_closed_form(seed):
    closed = problems.get("linear_gaussian", d=2, agreement_strength=2.0).model
    opaque = problems.get("linear_gaussian", d=2, agreement_strength=2.0, closed_form=False).model
    theta_1 = jnp.array([0.5, -0.5])
    draws = [
        AgreementConditioned(m.second_stage.around(theta_1), m.agreement).sample(
            jax.random.key(seed), (20_000,)
        )
        for m in (closed, opaque)
    ]
    error = np.sqrt(sum(np.var(x, axis=0) / len(x) for x in draws))
    score = (draws[0].mean(axis=0) - draws[1].mean(axis=0)) / error
    assert np.abs(score).max() < z_limit(2)


def test_simulation_reports_the_cost_and_refuses_what_it_cannot_do():
    model = problems.get("double_well").model
    assert 2 < simulate(model, jax.random.key(0), 2000).tries.mean() < 6
    hopeless = model_with(disagreement=lambda t: 1 + jnp.sum(t**2), agreement_strength=100.0)
    with pytest.raises(AgreementNotReached, match="rejection cannot work"):
        simulate(hopeless, jax.random.key(0), 2, cap=100)


def test_log_prob_needs_a_closed_form():
    model = model_with()
    conditioned = AgreementConditioned(model.second_stage.around(jnp.zeros(2)), model.agreement)
    assert np.isfinite(conditioned.unnormalized_log_prob(jnp.ones(2)))
    with pytest.raises(IntractableNormalizer, match="log_normalizer"):
        conditioned.log_prob(jnp.ones(2))


def bernoulli(theta):
    numpyro.sample("y", dist.Bernoulli(logits=jnp.broadcast_to(theta[0], (3,))))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"agreement_strength": -1.0}, "agreement_strength"),
        ({"agreement_strength": np.nan}, "agreement_strength"),
        ({"first_stage": GaussianStage(-1.0)}, "first_stage.scale"),
        ({"second_stage": 0.5}, "second_stage"),
        ({"disagreement": lambda t: -1.0 + 0 * t.sum()}, "disagreement"),
        ({"disagreement": lambda t: t}, "disagreement"),
        ({"disagreement": lambda t: jnp.nan * t.sum()}, "disagreement"),
        ({"disagreement": None}, "disagreement"),
        ({"theta_0": jnp.zeros(0)}, "theta_0"),
        ({"theta_0": jnp.zeros(2, int)}, "theta_0"),
        ({"log_likelihood": lambda t: t}, "log_likelihood"),
        ({"log_likelihood": lambda t: jnp.nan * t.sum()}, "log_likelihood"),
        ({"observation": bernoulli, "data": {"y": [1]}}, "data"),
        ({"observation": bernoulli, "data": {"y": [1, 2, 0]}}, "data"),
        ({"observation": bernoulli, "data": {"z": [1, 0, 0]}}, "data"),
        ({"observation": bernoulli, "data": {"y": []}}, "data"),
    ],
)
@pytest.mark.usefixtures("wrong_types")
def test_bad_input_names_the_field(changes, field):
    with pytest.raises(InvalidInput, match=field.replace(".", r"\.")) as caught:
        model_with(**changes)
    assert "\n" not in str(caught.value)


def test_observation_gives_the_likelihood_and_simulates():
    model = model_with(observation=bernoulli, data={"y": [1, 0, 1]})
    expected = dist.Bernoulli(logits=0.7).log_prob(np.array([1, 0, 1])).sum()
    np.testing.assert_allclose(model.log_likelihood(jnp.array([0.7, 0.0])), expected)
    unseen = model.replace(data=None)
    assert Predictive(two_stage, num_samples=5)(jax.random.key(0), unseen)["y"].shape == (5, 3)


def test_a_disagreement_that_runs_a_program_leaves_no_sites():
    program = handlers.condition(bernoulli, {"y": jnp.array([1, 0, 1])})
    model = model_with(disagreement=lambda t: -log_density(program, (t,), {}, {})[0])
    drawn = Predictive(two_stage, num_samples=2)(jax.random.key(0), model)
    assert set(drawn) == {"theta_1", "theta_2"}


@pytest.mark.parametrize("given", ["by the set-up", "by the user"])
def test_data_count_once_where_a_likelihood_runs_a_program_of_its_own(given):
    model = model_with(observation=bernoulli, data={"y": [1, 0, 1]}, agreement_strength=2.0)
    penalised = set_up(model, "z-omitted")
    if given == "by the user":
        program = handlers.condition(bernoulli, {"y": jnp.array([1, 0, 1])})

        def log_likelihood(theta):
            return log_density(program, (theta,), {}, {})[0] + model.agreement.log_factor(theta)

        penalised = penalised.replace(log_likelihood=log_likelihood)
    theta_1, theta_2 = jax.random.normal(jax.random.key(0), (2, 2))
    pair = {"theta_1": theta_1, "theta_2": theta_2}
    found = log_density(two_stage, (penalised,), {}, pair)[0]
    assert np.isclose(found, log_joint(model, theta_1, theta_2))


def test_problems_by_name():
    assert set(problems.names()) >= {"linear_gaussian", "double_well", "rotated_wells", "digits"}
    with pytest.raises(InvalidInput, match="problem"):
        problems.get("nothing")
    with pytest.raises(InvalidInput, match=r"problem\.colour"):
        problems.get("double_well", colour=1)


@pytest.mark.parametrize("setting", ["uniform", "split"])
def test_digits_sets(setting):
    model = problems.get("digits", setting=setting, num_small=40).model
    assert model.dimension >= 200
    assert len(model.labels["large"]) == 44
    assert (model.moving_1 | model.moving_2).all()
    assert (model.moving_1 & model.moving_2).all() == (setting == "uniform")
    assert 0 <= float(model.disagreement(model.theta_0)) <= 1
    shape = model.answers(model.theta_0, model.questions["held_out_wrong"]).shape
    assert shape[0] == 2 and shape[1] > 30
