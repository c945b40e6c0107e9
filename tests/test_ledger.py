"""The account of pairs of heads: by its rules, by counting, by enumeration and as a program."""

from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_density
from scipy import stats

from generative import InvalidInput
from generative.discrete import DiscreteTwoStage
from generative.ledger import FUNCTIONS, Assumptions, margin, nine_pairs, single_heads
from generative.nine_pairs import every_language, three_functions
from tests.statistical import FALSE_ALARM_RATE

N = 10**12


def as_dict(assumptions):
    return {(p.first, p.second): p for p in nine_pairs(assumptions)}


@pytest.mark.parametrize("complex_agrees", [0, 999, 1000, 1001])
def test_table_of_nine_pairs(complex_agrees):
    pairs = as_dict(Assumptions(complex_agrees=complex_agrees))
    found = {key: (p.spent, p.saved, p.total - N, p.verdict) for key, p in pairs.items()}
    s = complex_agrees
    assert found == {
        ("intended", "simple"): (11_000, 10_000, 1_000, "wanted"),
        ("intended", "complex"): (12_000, 10_000, 2_000, "fine"),
        ("intended", "intended"): (10_000, 0, 10_000, "fine"),
        ("complex", "simple"): (2_000, s, 2_000 - s, "bad"),
        ("complex", "complex"): (2_000, 0, 2_000, "bad"),
        ("complex", "intended"): (12_000, 10_000, 2_000, "bad"),
        ("simple", "simple"): (1_000, 0, 1_000, "does not fit"),
        ("simple", "complex"): (2_000, s, 2_000 - s, "does not fit"),
        ("simple", "intended"): (11_000, 10_000, 1_000, "does not fit"),
    }
    # The wanted pair wins while the dishonest heads agree with probability above 2^-1000.
    assert margin(Assumptions(complex_agrees=s)) == 1_000 - s


def test_sensitivity_of_the_verdict():
    assert margin(Assumptions(corrected=False)) == 0  # step 1 alone only levels the field
    assert single_heads()["simple"] == N + 1_000
    # Humans a worse prior over language: nothing more is saved than the intended head cost ...
    worse = Assumptions(language=15_000)
    assert margin(worse) == 1_000
    # ... else the pair would cost less than the world model, with either head honest: no tilt.
    uncapped = replace(worse, capped=False)
    assert as_dict(uncapped)["intended", "simple"].total == N - 4_000
    assert margin(uncapped) == 1_000
    # Humans a better prior: bits are missing, and at 9 000 the verdict turns.
    assert [margin(Assumptions(language=h)) for h in (9_500, 9_000, 8_999)] == [500, 0, -1]
    assert margin(Assumptions(complex=1_000)) == 0
    assert margin(Assumptions(intended=40_000)) == 1_000
    with pytest.raises(InvalidInput, match="simple"):
        Assumptions(simple=-1)


@pytest.mark.parametrize(
    "assumptions",
    [
        Assumptions(),
        Assumptions(world=10**9, intended=300, complex=120, simple=50),
        Assumptions(intended=4_000, language=5_000, capped=False),
        Assumptions(language=6_000, complex_and_simple=2_500),
    ],
)
def test_counting_reproduces_the_table(assumptions):
    ordinary = 10_000 if assumptions.language else assumptions.intended
    model = three_functions(assumptions, num_ordinary=ordinary, num_corrected=ordinary // 10)
    counts = model.count()
    for pair in nine_pairs(assumptions):
        f, g = FUNCTIONS.index(pair.first), FUNCTIONS.index(pair.second)
        np.testing.assert_allclose(counts.saved[0, f, g], pair.saved, atol=1e-6)
        if pair.verdict == "does not fit":
            assert counts.total[f, g] == np.inf
        else:
            # 1e12 in double precision resolves 1e-4 bit.
            np.testing.assert_allclose(counts.total[f, g], pair.total, rtol=1e-15, atol=1e-2)
    # Without the saving the intended pair costs as much as is saved more, and lose.
    without = model.count("one-stage").total[0, 2]
    np.testing.assert_allclose(without - counts.total[0, 2], counts.saved[0, 0, 2], atol=1e-2)


SMALL = [
    every_language(),
    every_language(num_states=4, num_worlds=4, num_corrected=2, error_rate=0.1),
    every_language(num_states=2, num_worlds=1, num_corrected=0),
    replace(
        every_language(error_rate=0.2),
        human_bits=-np.log2(np.array([[0.7, 0.3], [0.1, 0.9], [0.5, 0.5]])),
        worlds=np.array([[0, 1, 2], [1, 1, 0]]),
    ),
]


@pytest.mark.parametrize("setup", ["two-stages", "one-stage", "z-omitted"])
@pytest.mark.parametrize("model", SMALL)
def test_counting_is_enumeration(model, setup):
    counted, enumerated = model.count(setup), model.enumerate(setup)
    np.testing.assert_allclose(counted.log2_joint, enumerated.log2_joint, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(counted.saved, enumerated.saved, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(counted.posterior.sum(), 1, rtol=1e-12)


def test_setups_differ():
    found = [SMALL[1].count(s).log2_evidence for s in ("two-stages", "one-stage", "z-omitted")]
    assert min(abs(np.subtract.outer(found, found)[np.triu_indices(3, 1)])) > 0.1


@pytest.mark.parametrize("model", SMALL)
def test_the_program_agrees_with_the_counts(model):
    """Summed over every value of its sites, the program's density is the counted joint."""
    humans = jnp.array(list(product((0, 1), repeat=len(model.human_bits))))

    def joint(world, pair, human):
        data = {"world": world, "pair": pair, "human": human}
        data |= {"agreed": 1, "labels": jnp.asarray(model.labels), "said": jnp.asarray(model.said)}
        return log_density(handlers.condition(model.program, data), (), {}, {})[0]

    over_humans = jax.vmap(joint, (None, None, 0))
    shape = model.count().log2_joint.shape
    worlds, pairs = (x.ravel() for x in jnp.indices((shape[0], shape[1] * shape[2])))
    values = jax.jit(lambda w, p: jax.lax.map(lambda x: over_humans(*x, humans), (w, p)))
    found = jax.scipy.special.logsumexp(values(worlds, pairs), axis=-1).reshape(shape)
    np.testing.assert_allclose(found / np.log(2), model.count().log2_joint, rtol=1e-9, atol=1e-9)


def test_the_program_simulates_what_is_counted(seed):
    """Accepted simulations are distributed as the counted posterior; Z omitted is told apart."""
    model = every_language(num_states=2, num_worlds=2, num_corrected=1, error_rate=0.2)
    draws = Predictive(model.program, num_samples=200_000)(jax.random.key(seed))
    kept = np.all(draws["labels"] == model.labels, -1) & np.all(draws["said"] == model.said, -1)
    kept &= draws["agreed"] == 1
    seen = np.bincount(np.asarray(draws["pair"])[kept], minlength=model.pair_bits.size)
    assert seen.sum() > 1000

    def p_value(setup):
        probability = model.count(setup).posterior.ravel()
        expected = probability * seen.sum()
        large = expected > 5
        counts = np.r_[seen[large], seen[~large].sum()]
        expected = np.r_[expected[large], expected[~large].sum()]
        return stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue

    assert p_value("two-stages") > FALSE_ALARM_RATE
    assert p_value("z-omitted") < FALSE_ALARM_RATE


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("world_bits", np.zeros(2), "sum to 2"),
        ("human_bits", np.full((3, 2), 2.0), "sum to 0.5"),
        ("labels", np.array([0, 1, 2]), "0 to 2"),
        ("said", np.array([0]), "as heard"),
        ("error_rate", 1.0, "below 1"),
    ],
)
@pytest.mark.usefixtures("wrong_types")
def test_bad_models_are_refused(field, value, message):
    with pytest.raises(InvalidInput, match=message):
        replace(every_language(), **{field: value})


def test_incomplete_codes_are_no_program():
    model: DiscreteTwoStage = replace(every_language(), world_bits=np.array([1.0, 2.0]))
    with pytest.raises(InvalidInput, match="sum to 0.75"), handlers.seed(rng_seed=0):
        model.program()
    with pytest.raises(InvalidInput, match="to enumerate"):
        three_functions().enumerate()
