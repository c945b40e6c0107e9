"""Two labelling processes, and the data sets that follow from where they agree.

The *simple* process is one human in the world. The *complex* one is an ensemble of judges with more
to go by; it keeps a label only where its judgement is clear.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from generative.errors import InvalidInput

Kind = Literal["right", "wrong", "deceived"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNCLEAR = -1
# The share of judges that a clear judgement takes.
CLEAR = 0.85


@dataclass(frozen=True)
class Cases:
    """Yes-or-no questions with their answers: true, by the simple and by the complex process.

    Attributes
    ----------
    inputs : array, shape (n, k)
        What the network sees, the question among it.
    alice_label : int array, shape (n,)
        The true answer, 0 or 1.
    bob_label : int array, shape (n,)
        The answer of the simple process.
    judgement : array, shape (n,)
        The share of the complex process's judges who answer yes.
    num_judges : int array, shape (n,)
        How many judges there are.
    difficulty : array, shape (n,)
        Probability that a human of the simple process errs.
    source : int array, shape (n, s)
        What each case was made from: cases that share a source are not independent, and are never
        split between training and evaluation.
    tampered : bool array, shape (n,)
        Where somebody tampered with what both processes go by. Such cases are never trained on: no
        labels are collected where strong adversaries are at work.
    """

    inputs: Float[np.ndarray, "n k"]
    alice_label: Int[np.ndarray, " n"]
    bob_label: Int[np.ndarray, " n"]
    judgement: Float[np.ndarray, " n"]
    num_judges: Int[np.ndarray, " n"]
    difficulty: Float[np.ndarray, " n"]
    source: Int[np.ndarray, "n s"]
    tampered: Bool[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.alice_label)

    def __getitem__(self, index: np.ndarray | slice) -> "Cases":
        return Cases(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @property
    def majority_label(self) -> Int[np.ndarray, " n"]:
        """The answer that more judges of the complex process give."""
        return (self.judgement > 0.5).astype(int)

    @property
    def label(self) -> Int[np.ndarray, " n"]:
        """The label that the complex process keeps; :data:`UNCLEAR` (-1) where it keeps none."""
        clear = np.maximum(self.judgement, 1 - self.judgement) >= CLEAR
        return np.where(clear, self.majority_label, UNCLEAR)

    @property
    def human_is_right(self) -> Bool[np.ndarray, " n"]:
        """Where the simple process gives the true answer."""
        return self.alice_label == self.bob_label

    def of_kind(self, kind: Kind) -> Bool[np.ndarray, " n"]:
        """Where both processes are right, where only the complex one is, or where both are wrong.

        Cases that the complex process is unclear about, or where it alone errs, are of no kind.
        """
        corrected = self.label == self.alice_label
        if kind == "right":
            return self.human_is_right & corrected
        if kind == "wrong":
            return ~self.human_is_right & corrected
        return ~self.human_is_right & (self.label == self.bob_label)

    def columns(self) -> dict[str, np.ndarray]:
        """Labels and difficulty by name, to be kept with the answers of networks."""
        names = ("label", "alice_label", "bob_label", "difficulty")
        return {name: getattr(self, name) for name in names}


def concatenate(*parts: Cases) -> Cases:
    """Return all cases of some parts, in order."""
    return Cases(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Cases)}
    )


@dataclass(frozen=True)
class LabelledSets:
    """The data sets of the two-stage model.

    Attributes
    ----------
    small : Cases
        Where both processes gave the same label, before labels are flipped; they define C.
    large : Cases
        The small set, and cases where the complex process corrects the simple one; with the labels
        of its majority they define L.
    held_out : dict
        Cases kept for evaluation, by kind.
    """

    small: Cases
    large: Cases
    held_out: dict[Kind, Cases]


def split_cases(
    cases: Cases,
    num_small: int,
    corrected_fraction: float,
    num_held_out: int,
    seed: int,
    *,
    hypothetical: Cases | None = None,
    num_errors: int = 0,
    predictable: bool = True,
    num_unclear: int = 0,
) -> LabelledSets:
    """Split cases into the small set, the large set and held-out cases.

    Parameters
    ----------
    cases : Cases
    num_small : int
        Size of the small set, drawn where both processes are right.
    corrected_fraction : float
        Corrected cases in the large set, relative to the small set (rounded up).
    num_held_out : int
        At most so many held-out cases of each kind.
    seed : int
    hypothetical : Cases, optional
        Generated cases, which the corrected ones are drawn from in place of `cases`.
    num_errors : int
        Wrong labels among those of the large set.
    predictable : bool
        Wrong labels are those that the human gave, in additional cases of the small set in which
        the human errs and nobody noticed: a network that models the human predicts them. Else
        labels of the small set are flipped at random, which nothing predicts.
    num_unclear : int
        Additional cases of the large set that the complex process is unclear about, with the
        label of the majority.

    Raises
    ------
    InvalidInput
        If there are too few cases.
    """
    rng = np.random.default_rng(seed)
    collected = ~cases.tampered
    right, wrong = (
        rng.permutation(np.flatnonzero(cases.of_kind(k) & collected)) for k in ("right", "wrong")
    )
    num_corrected = int(np.ceil(corrected_fraction * num_small))
    num_wrong = num_errors if predictable else 0
    spare = np.flatnonzero((cases.label == UNCLEAR) & collected)
    if num_held_out < 1:
        raise InvalidInput("num_held_out", num_held_out, "an integer >= 1")
    if not 1 <= num_small < len(right):
        raise InvalidInput("num_small", num_small, f"1 to {len(right) - 1}")
    corrected, held_from = cases[wrong], num_corrected
    if hypothetical is not None:
        chosen = rng.permutation(np.flatnonzero(hypothetical.of_kind("wrong")))
        corrected, held_from = hypothetical[chosen], 0
    if not 0 <= num_corrected < len(corrected):
        limit = (len(corrected) - 1) / num_small
        raise InvalidInput("corrected_fraction", corrected_fraction, f"0 to {limit:.2f}")
    limit = len(wrong) - held_from - 1 if predictable else num_small
    if not 0 <= num_errors <= limit:
        raise InvalidInput("num_errors", num_errors, f"0 to {limit}")
    if not 0 <= num_unclear <= len(spare):
        raise InvalidInput("num_unclear", num_unclear, f"0 to {len(spare)}")
    kept = cases[right[:num_small]]
    if not predictable:
        flipped = np.random.default_rng([seed, 1]).permutation(num_small)[:num_errors]
        kept = _relabel(kept, flipped, 1 - kept.alice_label)
    believed = cases[wrong[held_from : held_from + num_wrong]]
    small = concatenate(kept, _relabel(believed, np.arange(num_wrong), believed.bob_label))
    unclear = cases[np.random.default_rng([seed, 2]).permutation(spare)[:num_unclear]]
    large = concatenate(small, corrected[:num_corrected], unclear)
    kept_out: dict[Kind, np.ndarray] = {
        "right": right[num_small:],
        # From the end, so that the number of errors does not move them.
        "wrong": wrong[held_from + num_wrong :][::-1],
        "deceived": np.random.default_rng([seed, 3]).permutation(
            np.flatnonzero(cases.of_kind("deceived"))
        ),
    }
    # Corrected cases that were imagined have sources of their own.
    trained = concatenate(small, unclear, *([] if hypothetical else [corrected[:num_corrected]]))
    fresh = ~np.isin(cases.source, trained.source).any(axis=1)
    return LabelledSets(
        small=small,
        large=large,
        held_out={
            kind: cases[chosen[fresh[chosen]][:num_held_out]] for kind, chosen in kept_out.items()
        },
    )


def _relabel(cases: Cases, chosen: np.ndarray, labels: np.ndarray) -> Cases:
    """Make the complex process sure of other labels in some cases."""
    judgement = np.asarray(cases.judgement, float).copy()
    judgement[chosen] = labels[chosen]
    return replace(cases, judgement=judgement)


@dataclass(frozen=True)
class Comparisons:
    """Judgements about pairs of answers.

    Attributes
    ----------
    question : int array, shape (n,)
        Which question each pair answers.
    prefers_yes : int array, shape (n,)
        Whether "yes" was preferred to "no".
    """

    question: Int[np.ndarray, " n"]
    prefers_yes: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.question)


def compare_answers(cases: Cases, beta: float, confidence: float, seed: int) -> Comparisons:
    """Judge each question's pair of answers, and keep the comparisons that are confident.

    The judge is Boltzmann-rational about the complex process's opinion: it prefers "yes" with
    probability sigmoid(beta u), where u is the log odds of yes among the ensemble's judges, with
    half a vote added to either answer.

    Parameters
    ----------
    cases : Cases
    beta : float
        Rationality, dimensionless; 0 is a coin.
    confidence : float
        In [0.5, 1): a comparison is kept where the likelier choice has at least this
        probability.
    seed : int
    """
    if not 0 <= beta < np.inf:
        raise InvalidInput("beta", beta, "a finite number >= 0")
    if not 0.5 <= confidence < 1:
        raise InvalidInput("confidence", confidence, "a probability from 0.5, below 1")
    votes = cases.judgement * cases.num_judges
    preference = 1 / (1 + ((cases.num_judges - votes + 0.5) / (votes + 0.5)) ** beta)
    confident = np.flatnonzero(np.maximum(preference, 1 - preference) >= confidence)
    draws = np.random.default_rng(seed).uniform(size=len(cases))
    return Comparisons(confident, (draws < preference)[confident].astype(int))
