"""Two labelling processes, and the data sets that follow from where they agree."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from generative.errors import InvalidInput


@dataclass(frozen=True)
class Cases:
    """Questions with their answers, true and human.

    Attributes
    ----------
    inputs : array, shape (n, k)
        What the network sees.
    alice_label : int array, shape (n,)
        The true answer, 0 or 1.
    bob_label : int array, shape (n,)
        The answer of the simple labelling process.
    """

    inputs: Float[np.ndarray, "n k"]
    alice_label: Int[np.ndarray, " n"]
    bob_label: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.alice_label)

    def __getitem__(self, index: np.ndarray) -> "Cases":
        return Cases(self.inputs[index], self.alice_label[index], self.bob_label[index])

    @property
    def human_is_right(self) -> Bool[np.ndarray, " n"]:
        """Where the simple labelling process gives the true answer."""
        return self.alice_label == self.bob_label


@dataclass(frozen=True)
class LabelledSets:
    """The data sets of the two-stage model.

    Attributes
    ----------
    small : Cases
        Where the simple process is right; they define C.
    large : Cases
        The small set, and cases where the simple process errs; they define L, by true labels.
    held_out_right, held_out_wrong : Cases
        Kept for evaluation, by whether the human is right.
    """

    small: Cases
    large: Cases
    held_out_right: Cases
    held_out_wrong: Cases


def split_cases(
    cases: Cases, num_small: int, corrected_fraction: float, num_held_out: int, seed: int
) -> LabelledSets:
    """Split cases into the small set, the large set and held-out cases.

    Parameters
    ----------
    cases : Cases
    num_small : int
        Size of the small set.
    corrected_fraction : float
        Corrected cases in the large set, relative to the small set (rounded up).
    num_held_out : int
        At most so many held-out cases of either kind.
    seed : int

    Raises
    ------
    InvalidInput
        If there are too few cases.
    """
    rng = np.random.default_rng(seed)
    right = rng.permutation(np.flatnonzero(cases.human_is_right))
    wrong = rng.permutation(np.flatnonzero(~cases.human_is_right))
    num_corrected = int(np.ceil(corrected_fraction * num_small))
    if not 1 <= num_small < len(right):
        raise InvalidInput("num_small", num_small, f"1 to {len(right) - 1}")
    if not 0 <= num_corrected < len(wrong):
        raise InvalidInput(
            "corrected_fraction", corrected_fraction, f"0 to {(len(wrong) - 1) / num_small:.2f}"
        )
    small = right[:num_small]
    return LabelledSets(
        small=cases[small],
        large=cases[np.concatenate([small, wrong[:num_corrected]])],
        held_out_right=cases[right[num_small : num_small + num_held_out]],
        held_out_wrong=cases[wrong[num_corrected : num_corrected + num_held_out]],
    )
