"""Discrete models of the argument about pairs of heads, in which its savings can be counted."""

from itertools import product

import numpy as np

from generative.discrete import DiscreteTwoStage
from generative.errors import InvalidInput
from generative.ledger import FUNCTIONS, SOURCE, Assumptions, heads_cost


def three_functions(
    assumptions: Assumptions = SOURCE,
    num_ordinary: int = 10_000,
    num_corrected: int = 1_000,
    num_hidden: int = 10,
) -> DiscreteTwoStage:
    """Return a model with the three functions as heads, and every human that is possible.

    What heads cost is assumed; what agreement saves is not, it follows from how many humans there
    are. Each state has a true answer, yes or no. The human heard in the data is right in the
    ordinary states and wrong elsewhere; the complex process corrects some of these states, and the
    others are hidden from it too.

    Parameters
    ----------
    assumptions : Assumptions
        Of these, `complex_agrees` is not used (heads that agree for every human save nothing), and
        nothing is capped: only as many bits are saved as `language` says.
    num_ordinary, num_corrected, num_hidden : int
        Numbers of states. The small set are the ordinary ones, over which the bits of language
        are spread evenly.
    """
    sizes = (num_ordinary, num_corrected, num_hidden)
    if min(sizes) < 0 or num_ordinary < 1:
        raise InvalidInput("num_ordinary", sizes, "numbers of states >= 0, some ordinary")
    total = sum(sizes)
    states = np.arange(total)
    truth = states % 2
    ordinary = states < num_ordinary
    corrected = ~ordinary & (states < num_ordinary + num_corrected)
    human = np.where(ordinary, truth, 1 - truth)
    human_bits = _speech(assumptions.language_bits / num_ordinary, ordinary, truth)
    spoken = float(human_bits[states, human].sum())
    if spoken > assumptions.world:
        raise InvalidInput("world", assumptions.world, f"at least the human's {spoken:.6g} bits")
    honest = np.repeat(truth[:, None], 2, axis=1)
    imitating = np.tile([0, 1], (total, 1))
    heads = {
        "intended": honest,
        "complex": np.where(corrected[:, None], honest, imitating),
        "simple": imitating,
    }
    labelled = ordinary | corrected if assumptions.corrected else ordinary
    return DiscreteTwoStage(
        world_bits=np.array([assumptions.world - spoken]),
        worlds=states[None],
        pair_bits=np.array(
            [[heads_cost(assumptions, f, g) for g in FUNCTIONS] for f in FUNCTIONS], float
        ),
        heads=np.stack([heads[name] for name in FUNCTIONS]),
        human_bits=human_bits,
        small=states[ordinary],
        large=states[labelled],
        labels=truth[labelled],
        heard=states,
        said=human,
    )


def every_language(
    num_states: int = 3, num_worlds: int = 2, num_corrected: int = 1, error_rate: float = 0.0
) -> DiscreteTwoStage:
    """Return a complete model whose heads are every language there is, and imitation.

    A head is an imitator (one bit), or some table from states to answers (one bit, and one more for
    each state). World programs differ in which state they make of each input. Small enough to
    enumerate, and complete, so that it is a NumPyro program too.

    Parameters
    ----------
    num_states : int
        States of the world; as many bits as a language costs.
    num_worlds : int
        Programs for the world model, a power of 2; the first one made the data.
    num_corrected : int
        States in which the human errs and labels are right.
    error_rate : float
        Of labels.
    """
    if not 0 <= num_corrected < num_states:
        raise InvalidInput("num_corrected", num_corrected, f"0 to {num_states - 1}")
    states = np.arange(num_states)
    tables = np.array(list(product((0, 1), repeat=num_states)))
    languages = np.repeat(tables[:, :, None], 2, axis=2)
    heads = np.concatenate([np.tile([0, 1], (1, num_states, 1)), languages])
    head_bits = np.r_[1.0, np.full(len(tables), 1.0 + num_states)]
    truth = states % 2
    human = np.where(states < num_states - num_corrected, truth, 1 - truth)
    return DiscreteTwoStage(
        world_bits=np.full(num_worlds, np.log2(num_worlds)),
        worlds=np.stack([np.roll(states, w) for w in range(num_worlds)]),
        pair_bits=head_bits[:, None] + head_bits,
        heads=heads,
        human_bits=np.ones((num_states, 2)),
        small=states[: num_states - num_corrected],
        large=states,
        labels=truth,
        heard=states,
        said=human,
        error_rate=error_rate,
    )


def _speech(bits: float, ordinary: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Cost of each answer in each state, when the true one costs `bits` in the ordinary states."""
    costs = np.ones((len(truth), 2))
    here = np.flatnonzero(ordinary)
    with np.errstate(divide="ignore"):
        costs[here, 1 - truth[here]] = -np.log2(-np.expm1(-bits * np.log(2)))
    costs[here, truth[here]] = bits
    return costs
