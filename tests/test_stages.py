"""Laws that every family of stages keeps, over one table."""

import importlib.util
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy import integrate, optimize, stats

from generative import (
    GaussianStage,
    IntractableNormalizer,
    InvalidInput,
    LaplaceStage,
    ParameterSpace,
    Stage,
    StudentTStage,
    TwoStageModel,
    problems,
    two_stage,
)
from inference import (
    MaximumAPosteriori,
    log_normalizer,
)
from inference.kernels.rejection_gibbs import RejectionGibbsKernel
from inference.moves.piecewise import sample_piecewise_exponential
from tests.statistical import FALSE_ALARM_RATE, z_limit

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "logistic_stage.py"


def example() -> Any:
    """Return the module that docs/adding_a_stage.md shows."""
    spec = importlib.util.spec_from_file_location("logistic_stage", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Family(NamedTuple):
    """A row of the table of laws: a stage of a scale, and SciPy's law of scale 1."""

    stage: Callable[[Any], Stage]
    law: Any


def t_stage(nu: float) -> Callable[[Any], Stage]:
    return partial(StudentTStage, degrees_of_freedom=nu)


FAMILIES = {
    "gaussian": Family(GaussianStage, stats.norm()),
    "laplace": Family(LaplaceStage, stats.laplace()),
    "student-t, nu 1": Family(t_stage(1.0), stats.t(1.0)),
    "student-t, nu 5": Family(t_stage(5), stats.t(5.0)),
    "logistic": Family(example().LogisticStage, stats.logistic()),
}
SCALES = np.array([0.4, 1.0, 2.5])
WRONG = 1.2  # a factor on the scale that every comparison must see
GRID = np.array([-7.0, -1.3, -0.2, 0.3, 0.9, 4.0])

table = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def bound(family: Family, scale: Any = SCALES, dtype: Any = float) -> Stage:
    return family.stage(scale).bind(ParameterSpace(jnp.zeros(np.size(scale), dtype)), "scale")


def one(family: Family, scale: float = 1.0) -> Stage:
    return bound(family, np.array([scale]))


def density(stage: Stage) -> Callable[[float], float]:
    """Log density of a shift in one dimension, compiled once."""
    evaluate = jax.jit(stage.around(jnp.zeros(1)).log_prob)
    return lambda x: float(evaluate(jnp.full(1, x)))


@table
def test_density(family):
    around = bound(family).around(jnp.asarray([1.0, -2.0, 0.0]))
    x = GRID[:, None] * np.ones(3)
    shift = x - np.array([1.0, -2.0, 0.0])
    right, wrong = (
        (family.law.logpdf(shift / s) - np.log(s)).sum(axis=-1) for s in (SCALES, WRONG * SCALES)
    )
    found = around.log_prob(x)
    np.testing.assert_allclose(found, right, rtol=1e-9)
    assert np.abs(found - wrong).min() > 1e-3


@table
def test_density_is_normalised(family):
    evaluate = jax.jit(one(family).around(jnp.zeros(1)).log_prob)
    # Tails as of Cauchy's law fall by 1 in as many decades.
    t = np.linspace(-22, 22, 40_001)
    mass = np.trapezoid(np.exp(np.asarray(evaluate(np.sinh(t)[:, None]))) * np.cosh(t), t)
    assert abs(mass - 1) < 1e-6


@table
def test_draws(seed, family):
    draws = np.asarray(bound(family).around(jnp.zeros(3)).sample(jax.random.key(seed), (20_000,)))
    for j, scale in enumerate(SCALES):
        assert stats.kstest(draws[:, j] / scale, family.law.cdf).pvalue > FALSE_ALARM_RATE / 200
        assert stats.kstest(draws[:, j] / (WRONG * scale), family.law.cdf).pvalue < 1e-6
    variance = np.nan_to_num(family.law.var(), nan=np.inf)  # SciPy has none of a Cauchy law
    np.testing.assert_allclose(bound(family).variance, variance * SCALES**2, rtol=1e-6)


@table
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_dtype_is_kept(family, dtype):
    def everything(stage, key):
        around = stage.around(jnp.ones(3, dtype))
        draws = around.sample(key, (2,))
        found = [draws, around.log_prob(draws), stage.scale_score(draws), stage.score(draws)]
        found += [stage.least_subgradient(draws[0], draws[1])]
        found += [stage.ascent_step(draws[0], jnp.asarray(0.1, dtype), draws[1])]
        return [*found, stage.reference_variance, stage.variance]

    found = jax.eval_shape(everything, bound(family, dtype=dtype), jax.random.key(0))
    assert {x.dtype for x in found} == {jnp.dtype(dtype)}


@table
def test_scores_are_derivatives_of_the_density(family):
    stage, step = bound(family), 1e-5
    shift = np.stack([GRID, GRID[::-1], 2 * GRID], axis=1)

    def log_p(x, factor=1.0):
        return family.law.logpdf(x / (factor * SCALES)) - np.log(factor * SCALES)

    slope = (log_p(shift + step) - log_p(shift - step)) / (2 * step)
    np.testing.assert_allclose(stage.score(jnp.asarray(shift)), slope, rtol=1e-6, atol=1e-9)
    change = (log_p(shift, np.exp(step)) - log_p(shift, np.exp(-step))).sum(axis=-1) / (2 * step)
    np.testing.assert_allclose(stage.scale_score(jnp.asarray(shift)), change, rtol=1e-6, atol=1e-9)
    # Either of the two families that were once told apart is wrong for any third.
    others = [
        bound(FAMILIES[name]).scale_score(jnp.asarray(shift)) for name in ("gaussian", "laplace")
    ]
    same = [np.allclose(other, change) for other in others]
    assert same == [family is FAMILIES[name] for name in ("gaussian", "laplace")]


@table
def test_bound_of_the_score(family):
    """Where there is one it is the least; where there is none the score grows for ever."""
    stage = bound(family)
    shift = np.sinh(np.linspace(-8, 8, 2001))[:, None] * SCALES
    largest = np.abs(np.asarray(stage.score(jnp.asarray(shift)))).max(axis=0)
    if stage.score_bound is None:
        assert np.all(largest * SCALES > 1000)
    else:
        np.testing.assert_allclose(stage.score_bound, largest, rtol=1e-4)


@table
def test_kinks_and_curvature_are_as_declared(family):
    stage = one(family)
    below, above = (float(stage.score(jnp.full(1, x))[0]) for x in (-1e-9, 1e-9))
    assert (below - above > 0.1) == stage.has_kinks
    scores = np.asarray(stage.score(GRID[:, None]))[:, 0]
    assert np.allclose(scores / GRID, scores[0] / GRID[0]) == stage.is_gaussian


@pytest.mark.parametrize("nu", [0.5, 1.0, 5.0])
def test_the_reference_of_student_t_has_its_mean_curvature(nu):
    family = Family(t_stage(nu), stats.t(nu))
    stage = one(family)
    curvature = jax.jit(jax.vmap(jax.grad(lambda x: -stage.score(x[None])[0])))
    # Mean over quantiles: the midpoint rule in the law's own probability.
    p = (np.arange(100_000) + 0.5) / 100_000
    mean = float(np.asarray(curvature(family.law.ppf(p))).mean())
    np.testing.assert_allclose(stage.reference_variance[0], 1 / mean, rtol=1e-3)


@table
@pytest.mark.parametrize("force", [-3.0, 0.4, 2.0])
def test_ascent(family, force):
    """A proximal step by brute force where there are kinks, a gradient step elsewhere."""
    stage, size, step = one(family, 0.7), 0.3, 1e-6
    metric = size * float(stage.reference_variance[0])
    log_p = density(stage)
    for x in (-1.3, -0.05, 0.0, 0.2, 2.0):
        moved, least = (
            float(found[0])
            for found in (
                stage.ascent_step(jnp.full(1, x), jnp.asarray(size), jnp.full(1, force)),
                stage.least_subgradient(jnp.full(1, x), jnp.full(1, force)),
            )
        )
        left, right = ((log_p(x + d) - log_p(x)) / d for d in (-step, step))
        ends = sorted((force + left, force + right))
        expected = 0.0 if ends[0] < 0 < ends[1] and stage.has_kinks else min(ends, key=abs)
        assert abs(least - expected) < 1e-4
        if not stage.has_kinks:
            assert abs(moved - (x + metric * (force + 0.5 * (left + right)))) < 1e-4
            continue

        def cost(y, x=x):
            return (y - x - metric * force) ** 2 / (2 * metric) - log_p(y)

        grid = np.append(np.linspace(-4, 4, 401), 0.0)
        best = grid[np.argmin([cost(y) for y in grid])]
        found = optimize.minimize_scalar(cost, (best - 0.02, best, best + 0.02), tol=1e-10)
        assert abs(moved - min((best, found.x), key=cost)) < 1e-5


@table
def test_fixed_coordinates(family):
    stages = (bound(family, np.array([0.4, 0.0, 2.5])), bound(family, np.array([0.4, 2.5])))
    location, kept = jnp.asarray([1.0, 3.0, -1.0]), np.array([0, 2])

    @jax.jit
    def everything(stage, free, key):
        draws = stage.around(location).sample(key, (5,))
        shift, force = draws - location, jnp.ones(3)
        densities = stage.around(location).log_prob(draws), stage.scale_score(shift)
        x = draws[:, kept]
        of_free = free.around(location[kept]).log_prob(x), free.scale_score(shift[:, kept])
        step = stage.ascent_step(shift[0], jnp.asarray(0.1), force)
        score, least = stage.score(shift[0]), stage.least_subgradient(shift[0], force)
        zeros = shift[0], step, score, least, stage.variance, stage.reference_variance
        return densities, of_free, jnp.stack(zeros)

    densities, of_free, zeros = everything(*stages, jax.random.key(0))
    np.testing.assert_allclose(densities, of_free, rtol=1e-12)
    np.testing.assert_array_equal(zeros[:, 1], 0)
    assert np.all(zeros[:, 0] != 0)
    assert stages[0].score_bound is None or np.isinf(stages[0].score_bound[1])
    nothing_free = bound(family, np.zeros(2)).around(jnp.ones(2))
    assert nothing_free.log_prob(jnp.ones(2)) == 0


@table
def test_the_program_has_the_density_of_the_stages(family):
    model = TwoStageModel(
        jnp.asarray([0.3, -1.0]),
        family.stage(0.5),
        family.stage(np.array([2.0, 0.0])),
        disagreement=lambda theta: jnp.sum(theta**2),
        agreement_strength=0.0,
    )
    a, b = np.array([1.0, -0.4]), np.array([0.7, -0.4])
    found = log_density(two_stage, (model,), {}, {"theta_1": a, "theta_2": b})[0]
    law = family.law
    first = (law.logpdf((a - np.asarray(model.theta_0)) / 0.5) - np.log(0.5)).sum()
    second = law.logpdf((b - a)[0] / 2.0) - np.log(2.0)
    np.testing.assert_allclose(found, first + second, rtol=1e-9)


CENTRES, FIRST, SECOND = np.array([0.1, 1.5, -0.8, 2.0]), 0.9, 0.6


def conditional_cdf(family: Family) -> Callable[[np.ndarray], np.ndarray]:
    """Of theta_1 given theta_2 and rejected proposals at the other centres."""
    grid = np.linspace(-12, 12, 200_001)
    log_p = family.law.logpdf((grid - CENTRES[0]) / FIRST)
    log_p += sum(family.law.logpdf((grid - c) / SECOND) for c in CENTRES[1:])
    cdf = integrate.cumulative_trapezoid(np.exp(log_p), grid, initial=0)
    return lambda x: np.interp(x, grid, cdf / cdf[-1])


@cache
def conditional_draws(name: str, seed: int) -> np.ndarray:
    """Draws of it by the terms that rejection Gibbs takes, from chains long enough to forget."""
    first, second = (one(FAMILIES[name], scale) for scale in (FIRST, SECOND))

    def chain(key: jax.Array) -> jax.Array:
        def sweep(index, x):
            keys = jax.random.split(jax.random.fold_in(key, index), 3)
            shift = x - CENTRES[:, None]
            of_first = first.quadratic_terms(keys[0], shift[:1])
            of_second = second.quadratic_terms(keys[1], shift[1:])
            slopes, precisions = (
                jnp.concatenate(terms)[:, 0] for terms in zip(of_first, of_second, strict=True)
            )
            centres = jnp.asarray(CENTRES)
            return sample_piecewise_exponential(keys[2], centres, slopes, precisions)

        return jax.lax.fori_loop(0, 12, sweep, jnp.asarray(0.0))

    keys = jax.random.split(jax.random.key(seed), 5_000)
    return np.asarray(jax.jit(jax.vmap(chain))(keys))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "logistic"])
def test_theta_1_given_proposals(seed, name):
    """What holds for a Gaussian of the same scale must not pass for another family."""
    cdf, limit = conditional_cdf(FAMILIES[name]), FALSE_ALARM_RATE / 200
    assert stats.kstest(conditional_draws(name, seed), cdf).pvalue > limit
    as_gaussian = stats.kstest(conditional_draws("gaussian", seed), cdf).pvalue > limit
    assert as_gaussian == (name == "gaussian")


@pytest.mark.parametrize("nu", [0, -1.0, np.nan, np.inf, "3", True, None, [3.0], 10**400])
def test_degrees_of_freedom_that_are_none(nu):
    with pytest.raises(InvalidInput, match=r"degrees_of_freedom: found .*; allowed: a finite numb"):
        StudentTStage(1.0, degrees_of_freedom=nu)


def test_closed_forms_need_gaussian_stages():
    linear = problems.get("linear_gaussian", d=2).model
    model = linear.replace(second_stage=StudentTStage(0.5, degrees_of_freedom=4.0))
    assert linear.agreement.is_tractable
    assert not model.agreement.is_tractable
    with pytest.raises(IntractableNormalizer):
        log_density(two_stage, (model,), {}, {"theta_1": np.zeros(2), "theta_2": np.zeros(2)})
    for method in ("closed_form", "gauss_newton"):
        with pytest.raises(InvalidInput, match="GaussianStage"):
            log_normalizer(model, model.theta_0, method)
    assert linear.replace(first_stage=t_stage(4.0)(1.0)).agreement.is_tractable


@pytest.mark.parametrize("name", ["student-t, nu 1", "logistic"])
def test_log_normalizer(seed, name):
    family, at = FAMILIES[name], np.array([2.5])
    model = problems.get("double_well").model.replace(second_stage=family.stage(0.5))
    found = log_normalizer(model, at, "importance", seed, target_standard_error=0.02)

    def integral(law):
        def agreeing(b):
            return law.pdf((b - at[0]) / 0.5) / 0.5 * np.exp(-3 * (b**2 - 1) ** 2 / 4)

        return np.log(integrate.quad(agreeing, -5, 5, points=(-1, 0, 1), limit=200)[0])

    limit = z_limit() * found.standard_error
    assert abs(found.value - integral(family.law)) < limit < 0.1
    assert abs(found.value - integral(stats.norm())) > limit


def test_a_family_without_the_form_is_refused_before_rejection_gibbs():
    stage = example().LogisticStage
    model = problems.get("double_well").model.replace(second_stage=stage(1.0))
    with pytest.raises(InvalidInput, match="quadratic_terms"):
        RejectionGibbsKernel(model)


class Kinked(GaussianStage):
    """What says that it has kinks, and no more."""

    has_kinks = True
    ascent_step, least_subgradient = Stage.ascent_step, Stage.least_subgradient


def test_a_family_with_kinks_must_know_its_step():
    model = problems.get("double_well").model.replace(second_stage=Kinked(1.0))
    with pytest.raises(InvalidInput, match="found Kinked; allowed: a family that defines"):
        MaximumAPosteriori()._check(model)
