"""Worlds, their two labelling processes, and the data sets that follow."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generative import InvalidInput, problems
from generative.labelling import CLEAR, KINDS, UNCLEAR, compare_answers, split_cases
from generative.networks import TwoHeadedNetwork, logits
from generative.worlds import digits, jevons, room
from tests.statistical import z_limit

WORLDS = {"digits": digits.cases, "jevons": jevons.cases, "room": room.cases}


@pytest.mark.parametrize("name", WORLDS)
def test_worlds_have_cases_of_all_kinds(name):
    cases = WORLDS[name]()
    kinds = np.array([cases.of_kind(kind) for kind in KINDS])
    assert np.all(kinds.sum(axis=0) <= 1)
    assert np.all(kinds.sum(axis=1) >= 30)
    assert np.all(np.isfinite(cases.inputs))
    assert np.ptp(cases.inputs, axis=0).max() < 100
    for labels in (cases.alice_label, cases.bob_label, cases.label[cases.label != UNCLEAR]):
        assert set(np.unique(labels)) == {0, 1}
    assert np.all((cases.difficulty >= 0) & (cases.difficulty <= 1))
    # Difficulty is about the human: errors are likelier where it is high.
    wrong = ~cases.human_is_right
    assert cases.difficulty[wrong].mean() > cases.difficulty[~wrong].mean() + 0.2
    assert set(cases.columns()) == {"label", "alice_label", "bob_label", "difficulty"}


def test_jevons_table_is_the_published_one():
    """Totals of the 1871 table by number of beans, and how often he was right."""
    actual, guess = jevons.throws()
    assert len(actual) == 1027
    assert np.bincount(actual)[3:].tolist() == [
        23, 65, 107, 147, 156, 135, 122, 107, 69, 45, 26, 14, 11
    ]  # fmt: skip
    exact = [np.mean(guess[actual == n] == n) for n in (3, 4, 5, 6, 10)]
    np.testing.assert_allclose(exact, [1, 1, 102 / 107, 120 / 147, 46 / 107])
    law = jevons.guess_law(np.array([7, 15]))
    np.testing.assert_allclose(law.sum(axis=1), 1)


def test_beans_that_are_not_seen_or_only_seen_deceive_eyes_but_not_scales():
    cases = jevons.cases()
    deceived = cases[cases.of_kind("deceived") & cases.tampered]
    side = 2 * deceived.alice_label - 1
    eyes, scales = (side[:, None] * deceived.inputs[:, part] for part in np.s_[:3, 3:6])
    assert eyes.mean() < 0 < scales.mean()
    assert 0.4 < deceived.alice_label.mean() < 0.6  # no answer is honest by itself


def test_room_events_and_records():
    keys = jax.random.split(jax.random.key(0), 400)
    events = jax.vmap(room.simulate)(keys)
    assert np.asarray(events.person.sum(axis=(2))).max() == 1  # one person, in one place
    honest = room.Tampering(0.0, 0.0)
    records = jax.vmap(lambda k, e: room.record(k, e, honest))(keys, events)
    chairs = np.asarray(events.chairs.sum(axis=2))
    np.testing.assert_array_equal(np.asarray(records.tags), chairs)
    entered = np.asarray(events.person.any(axis=(1, 2)))
    np.testing.assert_array_equal(np.asarray(records.door.any(axis=1)), entered)
    dark = ~np.asarray(records.lit)
    assert 0.05 < dark.mean() < 0.5
    assert np.all(np.asarray(records.camera)[dark] == 0)
    # Replayed logs repeat a frame from before; steps and floor do not.
    replayed = jax.vmap(lambda k, e: room.record(k, e, room.Tampering(0.0, 1.0)))(keys, events)
    assert np.all(np.asarray(replayed.tags)[:, 2:] == np.asarray(replayed.tags)[:, 2:3])
    np.testing.assert_array_equal(np.asarray(replayed.floor), chairs)
    assert room.cases(50, 3).inputs.shape == (50, 51)


@pytest.mark.parametrize("name", WORLDS)
def test_sets_keep_the_rules(name):
    cases = WORLDS[name]()
    sets = split_cases(cases, 20, 0.25, 15, 0)
    assert len(sets.small) == 20 and len(sets.large) == 25
    assert np.all(sets.small.bob_label == sets.small.label)
    corrected = sets.large[np.arange(20, 25)]
    assert np.all(corrected.of_kind("wrong"))
    np.testing.assert_array_equal(sets.large.majority_label, sets.large.alice_label)
    for kind in KINDS:
        assert np.all(sets.held_out[kind].of_kind(kind))
    assert not sets.large.tampered.any()
    for held_out in sets.held_out.values():
        assert len(held_out) and not np.isin(held_out.source, sets.large.source).any()


def test_cases_of_one_source_are_kept_together():
    """All beans thrown once: whatever held-out cases share a throw with the large set are gone."""
    cases = jevons.cases()
    shared = np.isin(cases.source, split_cases(cases, 300, 0.02, 1, 0).large.source).any(axis=1)
    assert (shared & cases.of_kind("deceived")).sum() > 50  # there was something to leave out
    sets = split_cases(cases, 300, 0.02, 10_000, 0)
    assert len(sets.held_out["deceived"]) == (cases.of_kind("deceived") & ~shared).sum()


@pytest.mark.parametrize("predictable", [True, False])
def test_wrong_labels(predictable):
    cases = jevons.cases()
    sets = split_cases(cases, 20, 0.25, 15, 0, num_errors=4, predictable=predictable)
    wrong = sets.large.majority_label != sets.large.alice_label
    assert wrong.sum() == 4
    assert len(sets.small) == (24 if predictable else 20)
    # What is predictable is what the human said.
    agrees = sets.large.majority_label[wrong] == sets.large.bob_label[wrong]
    assert agrees.all() if predictable else not agrees.any()
    clean = split_cases(cases, 20, 0.25, 15, 0)
    questions = sets.held_out["wrong"].inputs
    np.testing.assert_array_equal(questions, clean.held_out["wrong"].inputs)
    unclear = split_cases(cases, 20, 0.25, 15, 0, num_unclear=6).large
    assert (unclear.label == UNCLEAR).sum() == 6


def test_hypothetical_cases_replace_recorded_ones():
    imagined = room.cases(500, 1, room.HYPOTHETICAL)
    sets = split_cases(room.cases(), 20, 0.5, 15, 0, hypothetical=imagined)
    known = {x.tobytes() for x in imagined.inputs}
    corrected = sets.large[np.arange(20, 30)]
    assert all(x.tobytes() in known for x in corrected.inputs)


def test_comparisons_are_confident_and_boltzmann(seed):
    cases = jevons.cases()
    compared = compare_answers(cases, beta=2.0, confidence=0.9, seed=seed)
    judged = cases.judgement[compared.question]
    odds = (9 * judged + 0.5) / (9 * (1 - judged) + 0.5)
    preference = odds**2 / (1 + odds**2)
    assert np.all(np.maximum(preference, 1 - preference) >= 0.9)
    # The choices are draws with these probabilities.
    surprise = (compared.prefers_yes - preference).sum()
    error = np.sqrt((preference * (1 - preference)).sum())
    assert abs(surprise) < z_limit() * error
    # A coin is never confident; a confidence of one half keeps everything.
    assert len(compare_answers(cases, 0.0, 0.9, seed)) == 0
    assert len(compare_answers(cases, 2.0, 0.5, seed)) == len(cases)


SMALL = {"num_small": 10, "scene": 1, "human": 1, "hidden": 1}


def test_likelihood_of_comparisons_is_tempered():
    options = SMALL | {"evidence": "both", "beta": 3.0, "num_unclear": 8, "confidence": 0.9}
    model = problems.get("jevons", **options).model
    questions, rationality = model.observation.inputs
    assert set(np.unique(rationality)) == {1.0, 3.0}
    assert np.sum(np.asarray(rationality) == 1.0) == 10
    theta = 0.3 * jnp.sin(jnp.arange(model.dimension))
    network: TwoHeadedNetwork = model.space.unravel(theta)
    first = rationality * logits(network, questions)[0]
    answers = model.data["answers"]
    expected = jnp.sum(
        jnp.where(answers == 1, jax.nn.log_sigmoid(first), jax.nn.log_sigmoid(-first))
    )
    np.testing.assert_allclose(model.log_likelihood(theta), expected, rtol=1e-10)


def test_first_head_may_be_the_instrumental_one():
    intended, instrumental = (
        problems.get("jevons", **SMALL, first_head=head).model
        for head in ("intended", "instrumental")
    )
    theta = 0.3 * jnp.sin(jnp.arange(intended.dimension))
    inputs = intended.questions["small"]
    np.testing.assert_allclose(
        intended.answers(theta, inputs), instrumental.answers(theta, inputs)[::-1], rtol=1e-12
    )
    np.testing.assert_allclose(
        intended.disagreement(theta), instrumental.disagreement(theta), rtol=1e-12
    )
    assert intended.log_likelihood(theta) != instrumental.log_likelihood(theta)


def test_intended_head_may_be_fixed():
    model = problems.get("room", **SMALL, setting="intended-fixed").model
    fixed = [n for n, moves in zip(model.space.names, model.moving_2, strict=True) if not moves]
    assert fixed and all(name.startswith("intended") for name in fixed)
    assert model.moving_1.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_small": 0}, "num_small"),
        ({"num_small": 6.5}, "num_small"),
        ({"num_held_out": 0}, "num_held_out"),
        ({"hidden": "many"}, "hidden"),
        ({"seed": -1}, "seed"),
        ({"predictable_errors": "False"}, "predictable_errors"),
        ({"corrected_fraction": float("nan")}, "corrected_fraction"),
        ({"corrected_fraction": 50.0}, "corrected_fraction"),
        ({"num_errors": 1000}, "num_errors"),
        ({"num_unclear": -1}, "num_unclear"),
        ({"evidence": "rumour"}, "evidence"),
        ({"evidence": "comparisons", "beta": -1.0}, "beta"),
        ({"evidence": "both", "beta": float("inf")}, "beta"),
        ({"evidence": "comparisons", "confidence": 1.0}, "confidence"),
        ({"first_head": "third"}, "first_head"),
        ({"stage": "cauchy"}, "stage"),
        ({"setting": "none"}, "setting"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidInput, match=message):
        problems.get("jevons", **options)


def test_clear_judgements_take_a_share():
    cases = jevons.cases()[np.arange(3)]
    judged = replace(cases, judgement=np.array([1 - CLEAR - 1e-9, CLEAR, 0.5]))
    assert judged.label.tolist() == [0, 1, UNCLEAR]
