"""Real images of digits, a human who sees only part of each, and judges who see more."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from generative.labelling import Cases

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# The human sees the right half only, where a 5 can pass for a 3; judges see all but an edge.
_VISIBLE = slice(4, 8)
_JUDGES = (slice(0, 7), slice(1, 8), slice(0, 8))
_GENUINE_COLUMNS = 3


@cache
def load() -> tuple[np.ndarray, np.ndarray]:
    """Images of the digits 3, 5 and 8 and their classes.

    Returns
    -------
    images : array, shape (n, 8, 8)
        Grey levels in [0, 1].
    classes : int array, shape (n,)

    Notes
    -----
    From scikit-learn's copy of *Optical Recognition of Handwritten Digits* (E. Alpaydin and
    C. Kaynak, UCI, 1998), doi:10.24432/C50P49.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    chosen = np.isin(bunch.target, (3, 5, 8))
    return bunch.images[chosen] / 16.0, bunch.target[chosen]


@cache
def cases(seed: int = 0) -> Cases:
    """Ask of every image whether it shows a 3; the human answers from its right half.

    Parameters
    ----------
    seed : int
        Of which images forged ones are pieced together from.

    Notes
    -----
    The human answers as a logistic regression on the visible pixels does, fitted to the true
    answers of all images: the best that this view allows a linear judge. Its errors are
    systematic, a function of what it sees, so a network can learn to predict them. The judges of
    the complex process see more, and what they see overlaps; they are right about every image.

    Forged images come last. They keep the left edge of one image, which its true answer goes by,
    and show another one elsewhere, which deceives the human and all judges.
    """
    images, classes = load()
    truth = (classes == 3).astype(int)
    own = np.arange(len(images))
    other = np.random.default_rng(seed).permutation(own)
    forged = np.where(np.arange(8) < _GENUINE_COLUMNS, images, images[other])
    everything = np.concatenate([images, forged])
    answer = np.concatenate([truth, truth])
    human = _judge(_VISIBLE, 1.0).predict_proba(_view(everything, _VISIBLE))[:, 1]
    votes = [_judge(view, 10.0).predict(_view(everything, view)) for view in _JUDGES]
    mean, spread = _standards()
    found = Cases(
        inputs=(everything.reshape(len(everything), -1) - mean) / spread,
        alice_label=answer,
        bob_label=(human > 0.5).astype(int),
        judgement=np.mean(votes, axis=0),
        num_judges=np.full(len(answer), len(_JUDGES)),
        difficulty=np.where(answer == 1, 1 - human, human),
        source=np.stack([np.tile(own, 2), np.concatenate([own, other])], axis=1),
        tampered=np.repeat([False, True], len(images)),
    )
    return found[~found.tampered | found.of_kind("deceived")]


def pictures(inputs: Float[np.ndarray, "n 64"]) -> Float[np.ndarray, "n 8 8"]:
    """Return the images, grey levels in [0, 1], that standardised inputs came from."""
    mean, spread = _standards()
    return np.clip(np.asarray(inputs) * spread + mean, 0, 1).reshape(-1, 8, 8)


def _standards() -> tuple[np.ndarray, np.ndarray]:
    pixels = load()[0].reshape(-1, 64)
    spread = pixels.std(axis=0)
    return pixels.mean(axis=0), np.where(spread > 0, spread, 1.0)


def _view(images: np.ndarray, columns: slice) -> np.ndarray:
    return images[:, :, columns].reshape(len(images), -1)


@cache
def _judge(columns: slice, penalty: float) -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    images, classes = load()
    judge = LogisticRegression(C=penalty, max_iter=5000)
    return judge.fit(_view(images, columns), classes == 3)
