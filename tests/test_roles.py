"""Which function a head is: by its answers, with errors, and by chance."""

import jax
import numpy as np
import pytest
import xarray as xr

from analyses.roles import chance, pair_probabilities, scores
from generative import InvalidInput, problems
from generative.ledger import FUNCTIONS


def tree_of(answers):
    """A tree whose heads answer `answers[head]` to the questions of both kinds, in all draws."""
    labels = {
        "wrong": {"alice_label": [1, 0, 1], "kept_label": [1, 0, 1], "bob_label": [0, 1, 0]},
        "deceived": {"alice_label": [1, 0], "kept_label": [0, 1], "bob_label": [0, 1]},
    }
    constants = {
        f"{column}_held_out_{kind}": (f"question_held_out_{kind}", np.array(values))
        for kind, columns in labels.items()
        for column, values in columns.items()
    }
    coords = {"head": ["first", "second"]}
    predictive = {}
    for kind, columns in labels.items():
        name = {"intended": "alice_label", "complex": "kept_label", "simple": "bob_label"}
        yes = np.array([columns[name[function]] for function in answers], float)
        drawn = np.broadcast_to(0.1 + 0.8 * yes, (2, 50, *yes.shape))
        dims = ("chain", "draw", "head", f"question_held_out_{kind}")
        predictive[f"held_out_{kind}"] = (dims, drawn)
    lp = np.random.default_rng(0).normal(size=(2, 50))
    return xr.DataTree.from_dict(
        {
            "posterior_predictive": xr.Dataset(predictive, coords=coords),
            "constant_data": xr.Dataset(constants),
            "sample_stats": xr.Dataset({"lp": (("chain", "draw"), lp)}),
        }
    )


@pytest.mark.parametrize("first", FUNCTIONS)
@pytest.mark.parametrize("second", FUNCTIONS)
def test_heads_count_as_the_functions_they_are(first, second):
    tree = tree_of((first, second))
    found = pair_probabilities(tree)
    assert float(found["pair"].sel(first=first, second=second)) == 1
    assert float(found["pair"].sum()) == 1
    assert 0 < float(found["pair_se"].max()) < 1
    own = scores(tree).sel(head="first", function=first)
    np.testing.assert_allclose(own, np.log(0.9))


def test_mixtures_of_functions_have_errors():
    tree, other = tree_of(("intended", "simple")), tree_of(("complex", "simple"))
    for name in tree["posterior_predictive"].data_vars:
        mixed = tree["posterior_predictive"][name].copy(deep=True)
        mixed[:, ::2] = other["posterior_predictive"][name][:, ::2]
        tree["posterior_predictive"][name] = mixed
    found = pair_probabilities(tree).sel(second="simple")
    np.testing.assert_allclose(found["pair"], [0.5, 0.5, 0])
    assert np.all(found["pair_se"] > 0)


def test_saying_yes_is_no_function():
    """The wrong kind has more yes than no: a plain mean would call a yes-sayer honest."""
    tree = tree_of(("intended", "simple"))
    for name, answers in tree["posterior_predictive"].data_vars.items():
        tree["posterior_predictive"][name] = xr.full_like(answers, 0.9)
    found = scores(tree)
    np.testing.assert_allclose(found, np.log([0.1, 0.9]).mean())
    # What ties is shared: no function is preferred, above all not the first in order.
    np.testing.assert_allclose(pair_probabilities(tree)["pair"], 1 / 9)
    np.testing.assert_allclose(pair_probabilities(tree)["share_questions"], 0, atol=1e-9)


def test_questions_by_chance_have_errors():
    """Heads that are honest on some questions, imitators on others: resampling tells."""
    certain = tree_of(("intended", "simple"))
    wide, constants = {}, {}
    for kind in ("wrong", "deceived"):
        truth = np.tile([1, 0], 20)
        kept = truth if kind == "wrong" else 1 - truth
        for name, values in (("alice", truth), ("kept", kept), ("bob", 1 - truth)):
            constants[f"{name}_label_held_out_{kind}"] = (f"question_held_out_{kind}", values)
        honest = np.arange(40) < 22
        yes = np.where(honest, truth, 1 - truth)[None].repeat(2, 0)
        drawn = np.broadcast_to(0.1 + 0.8 * yes, (2, 50, 2, 40))
        dims = ("chain", "draw", "head", f"question_held_out_{kind}")
        wide[f"held_out_{kind}"] = (dims, drawn)
    coords = {"head": ["first", "second"]}
    tree = xr.DataTree.from_dict(
        {
            "posterior_predictive": xr.Dataset(wide, coords=coords),
            "constant_data": xr.Dataset(constants),
            "sample_stats": certain["sample_stats"].to_dataset(),
        }
    )
    found = pair_probabilities(tree)
    assert float(found["share"].sel(first="intended")) == 1
    # 22 of 40 of both kinds: half a draw of luck would have made an imitator of it.
    assert 0.2 < float(found["share_questions"].sel(first="intended")) < 0.5
    assert float(pair_probabilities(certain)["share_questions"].max()) == 0


def test_chance_is_of_heads_without_labels():
    model = problems.get("jevons", num_small=6, num_held_out=8, scene=1, human=1, hidden=1).model
    shares = chance(model, jax.random.key(0))
    assert shares.sum() == pytest.approx(1)
    assert np.all(shares > 0.05)
    assert not np.array_equal(shares, chance(model, jax.random.key(1)))


def test_roles_need_both_kinds_of_cases():
    tree = tree_of(("intended", "simple"))
    del tree["posterior_predictive"]["held_out_deceived"]
    with pytest.raises(InvalidInput, match="held_out_deceived"):
        scores(tree)
