"""Real images of digits, and a labeller who sees only part of each."""

from functools import cache

import numpy as np
from jaxtyping import Float

from generative.labelling import Cases

# The labeller sees the right half only, where a 5 can pass for a 3.
VISIBLE_COLUMNS = slice(4, 8)


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


def cases() -> Cases:
    """Ask of every image whether it shows a 3; the labeller answers from its right half.

    Notes
    -----
    The labeller answers as a logistic regression on the visible pixels does, fitted to the true
    answers of all images: the best that this view allows a linear judge. Its errors are
    systematic, a function of what it sees, so a network can learn to predict them.
    """
    images, classes = load()
    truth = (classes == 3).astype(int)
    mean, spread = _standards()
    inputs = (images.reshape(len(images), -1) - mean) / spread
    return Cases(inputs, truth, _labeller(images[:, :, VISIBLE_COLUMNS], truth))


def pictures(inputs: Float[np.ndarray, "n 64"]) -> Float[np.ndarray, "n 8 8"]:
    """Return the images, grey levels in [0, 1], that standardised inputs came from."""
    mean, spread = _standards()
    return np.clip(np.asarray(inputs) * spread + mean, 0, 1).reshape(-1, 8, 8)


def _standards() -> tuple[np.ndarray, np.ndarray]:
    pixels = load()[0].reshape(-1, 64)
    spread = pixels.std(axis=0)
    return pixels.mean(axis=0), np.where(spread > 0, spread, 1.0)


def _labeller(view: np.ndarray, truth: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    seen = view.reshape(len(view), -1)
    return LogisticRegression(C=1.0, max_iter=1000).fit(seen, truth).predict(seen)
