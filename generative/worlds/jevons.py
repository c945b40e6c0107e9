"""Beans in a box: real human errors whose truth is known, counted by W. S. Jevons in 1871.

Jevons threw beans towards a box, glanced at what fell in, guessed their number, and then counted.
His table of 1027 throws gives how often n beans were taken for e.

References
----------
W. S. Jevons, "The Power of Numerical Discrimination", Nature 3, 281-282 (1871),
doi:10.1038/003281a0.
"""

from functools import cache

import numpy as np
from jaxtyping import Float, Int

from generative.labelling import Cases, concatenate

# How often (values) each number of beans (keys) was taken for how many.
COUNTS: dict[int, dict[int, int]] = {
    3: {3: 23},
    4: {4: 65},
    5: {5: 102, 6: 4, 7: 1},
    6: {5: 7, 6: 120, 7: 20},
    7: {6: 18, 7: 113, 8: 25},
    8: {7: 30, 8: 76, 9: 28, 10: 1},
    9: {7: 2, 8: 24, 9: 76, 10: 18, 11: 2},
    10: {8: 6, 9: 37, 10: 46, 11: 16, 12: 2},
    11: {8: 1, 9: 11, 10: 19, 11: 26, 12: 12},
    12: {9: 1, 10: 4, 11: 17, 12: 19, 13: 3, 14: 1},
    13: {11: 7, 12: 11, 13: 6, 14: 1, 15: 1},
    14: {11: 2, 12: 3, 13: 3, 14: 4, 15: 2},
    15: {12: 2, 13: 1, 14: 6, 15: 2},
}
_LARGEST = 15
_NUM_JUDGES = 9
_NUM_SCALES, _NUM_EYES = 3, 3
_SCALE_NOISE, _EYE_NOISE = 0.7, 0.7
# Beans that no eye sees, under a false bottom; or (negative) that are only seen, painted on it.
_UNSEEN = (-3, -2, 2, 3)


def throws() -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return the number of beans and Jevons' guess of each of the 1027 throws."""
    rows = [(n, e, k) for n, guesses in COUNTS.items() for e, k in guesses.items()]
    actual, guess, times = np.array(rows).T
    return np.repeat(actual, times), np.repeat(guess, times)


def guess_law(actual: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 16"]:
    """Return the frequencies of guesses 0 to 15 of so many beans."""
    table = np.zeros((_LARGEST + 1, _LARGEST + 1))
    for n, guesses in COUNTS.items():
        table[n, list(guesses)] = list(guesses.values())
        table[n] /= table[n].sum()
    return table[actual]


@cache
def cases(seed: int = 0, tricks: bool = True) -> Cases:
    """Ask of every throw whether there are more than k beans, near where guesses err.

    The human is Jevons himself. The judges of the complex process are nine guesses drawn from his
    own frequencies for so many beans. The network has a limited view: three noisy traces of where
    the human's eye went, which follow the guess, and three noisy scales, which follow the beans.
    These sensors are simulated; the pairs of number and guess are not.

    Parameters
    ----------
    seed : int
        Of the thresholds k, the judges and the sensors.
    tricks : bool
        Ask about every throw once more with two or three beans hidden under a false bottom, or
        with so many that are only painted on it. Guesses are of what looks like beans then; the
        true answer counts beans, and so do the scales.
    """
    rng = np.random.default_rng(seed)
    # Two thresholds for every throw, or there would be few cases of which judges correct him.
    actual, guess = (np.tile(x, 2) for x in throws())
    found = _ask(rng, actual, guess, np.zeros_like(actual))
    if not tricks:
        return found
    return concatenate(found, _ask(rng, actual, guess, rng.choice(_UNSEEN, size=len(actual))))


def _ask(
    rng: np.random.Generator, visible: np.ndarray, guess: np.ndarray, unseen: np.ndarray
) -> Cases:
    # Thresholds about the number, so that guesses that are off by one err half of the time; one
    # further where beans are unseen, which is mirrored (o to -1 - o) where they are only seen.
    offset = rng.integers(-2, 2 + unseen.any(), size=len(visible))
    threshold = visible + np.where(unseen < 0, -1 - offset, offset)
    law = guess_law(visible)
    exceeds = np.arange(_LARGEST + 1) > threshold[:, None]
    says_yes = (law * exceeds).sum(axis=1)
    truth = (visible + unseen > threshold).astype(int)
    return Cases(
        inputs=_sensors(rng, visible + unseen, guess, threshold),
        alice_label=truth,
        bob_label=(guess > threshold).astype(int),
        judgement=rng.binomial(_NUM_JUDGES, says_yes) / _NUM_JUDGES,
        num_judges=np.full(len(truth), _NUM_JUDGES),
        difficulty=np.where(truth == 1, 1 - says_yes, says_yes),
        source=np.arange(len(truth))[:, None] % len(throws()[0]),
        tampered=unseen != 0,
    )


def _sensors(
    rng: np.random.Generator, weighed: np.ndarray, guess: np.ndarray, threshold: np.ndarray
) -> Float[np.ndarray, "n 7"]:
    """Eyes and scales relative to the threshold, and the threshold, in beans scaled to about 1."""
    size = len(weighed)
    eyes = guess[:, None] + _EYE_NOISE * rng.normal(size=(size, _NUM_EYES))
    scales = weighed[:, None] + _SCALE_NOISE * rng.normal(size=(size, _NUM_SCALES))
    about = threshold[:, None] + 0.5
    return np.hstack([(eyes - about) / 2, (scales - about) / 2, (about - 9) / 3])
