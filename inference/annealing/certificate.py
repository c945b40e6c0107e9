"""Are negative samples draws of q(. | theta_1)?

That doubling the moves of persistent negative samples changes nothing says little where they sit
in one basin of q: K and 2 K moves are then equally wrong. Two comparisons see it. At power 0 of the
likelihood theta_2 and w are exchangeable given theta_1, for nothing; and at posterior theta_1 fresh
annealed draws of q(. | theta_1), which started in all of p2, show the basins that w never visits.
Neither sees a basin that no annealed particle finds.
"""

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from generative import TwoStageModel
from inference.annealing.conditional_smc import annealed_draws
from inference.batches import over_points
from inference.checks import About, Check, check_no_shift, mean_and_error
from inference.moves.density import log_second

EXCHANGEABLE, FRESH = "exchangeable", "fresh_negatives"
# A sweep of 16 particles can leave a quarter of an error that their pilots have in a basin's share.
NUM_FRESH_PARTICLES, NUM_FRESH_SWEEPS = 16, 4
_NUM_DIRECTIONS = 3
_BATCH = 256
# Per chain: fewer have no Monte Carlo error.
_FEWEST_DRAWS = 4

Batch = Float[np.ndarray, "chain draw d"]


def check_exchangeable(
    model: TwoStageModel, theta_1: Batch, theta_2: Batch, negative: Batch
) -> Check:
    """Check that theta_2 and w have one law given theta_1, as they must at power 0.

    Parameters
    ----------
    model : TwoStageModel
    theta_1, theta_2, negative : arrays, shape (run, particle, d)
        Draws of the two-stage prior.
    """
    what = f"theta_2 and w at {theta_1[..., 0].size} draws of the prior"
    return compare_draws(model, EXCHANGEABLE, theta_1, theta_2, negative, what)


def check_fresh(
    model: TwoStageModel, key: jax.Array, theta_1: Batch, negative: Batch, num_pairs: int
) -> Check:
    """Compare negative samples with fresh annealed draws at the same theta_1.

    Parameters
    ----------
    model : TwoStageModel
    key : PRNG key
    theta_1, negative : arrays, shape (chain, draw, d)
        Of the posterior; evenly spaced draws are compared.
    num_pairs : int
        In all chains together, about.
    """
    number = max(_FEWEST_DRAWS, num_pairs // len(theta_1))
    chosen = np.linspace(0, theta_1.shape[1] - 1, min(number, theta_1.shape[1])).astype(int)
    theta_1, negative = theta_1[:, chosen], negative[:, chosen]
    flat = theta_1.reshape(-1, model.dimension)
    drawn = annealed_draws(key, model, flat, NUM_FRESH_PARTICLES, NUM_FRESH_SWEEPS)
    fresh = drawn.reshape(theta_1.shape)
    what = f"w and fresh draws of q at {len(flat)} posterior theta_1"
    return compare_draws(model, FRESH, theta_1, negative, fresh, what)


def compare_draws(
    model: TwoStageModel,
    name: str,
    theta_1: Batch,
    first: Batch,
    second: Batch,
    what: str,
    about: About = "both",
) -> Check:
    """Compare two sets of draws of q, pair by pair, so that theta_1 adds no noise.

    On C, log p2, and w - theta_1 in scales of the second stage: its squared length, its parts
    along leading principal directions, and how these follow theta_1.

    Parameters
    ----------
    model : TwoStageModel
    name : str
        Of the check.
    theta_1, first, second : arrays, shape (chain, draw, d)
    what : str
        What is compared, for the message.
    about : {"draws", "evidence", "both"}
    """
    shifts = [_whitened(model, theta_1, x) for x in (first, second)]
    directions = _leading(np.concatenate([x.reshape(-1, x.shape[-1]) for x in shifts]))
    # Means alone would miss samples that are right on average, but do not follow theta_1.
    at = _whitened(model, theta_1.mean(axis=(0, 1)), theta_1) @ directions.T
    quantities = {}
    found = [
        _statistics(model, theta_1, x) | _along(shift, directions, at)
        for x, shift in zip((first, second), shifts, strict=True)
    ]
    for quantity, values in found[0].items():
        difference = values - found[1][quantity]
        if np.ptp(difference) > 0 or np.any(difference != 0):
            quantities[quantity] = (*mean_and_error(difference), float(found[1][quantity].std()))
    return check_no_shift(name, quantities, what, about=about)


def _statistics(model: TwoStageModel, theta_1: Batch, theta: Batch) -> dict[str, np.ndarray]:
    pairs = tuple(x.reshape(-1, x.shape[-1]) for x in (theta_1, theta))
    found = over_points(Partial(_at_pair, model), pairs, _BATCH)
    cost, log_p2 = (np.asarray(x).reshape(theta.shape[:2]) for x in found)
    return {"C": cost, "log_p2": log_p2}


def _along(
    shift: Batch, directions: Float[np.ndarray, "k d"], at: Float[np.ndarray, "chain draw k"]
) -> dict[str, np.ndarray]:
    """Squared distance from theta_1, shifts along directions, and their products with theta_1.

    In scales of the second stage.
    """
    along = shift @ directions.T
    found = {"distance": np.sum(shift**2, axis=-1)}
    for i in range(len(directions)):
        found[f"along_{i + 1}"] = along[..., i]
        found[f"following_{i + 1}"] = along[..., i] * at[..., i]
    return found


def _whitened(
    model: TwoStageModel, theta_1: Float[np.ndarray, "*batch d"], theta: Batch
) -> Float[np.ndarray, "chain draw moving"]:
    moving = np.asarray(model.moving_2)
    spread = np.sqrt(np.asarray(model.second_stage.reference_variance))[moving]
    return (theta - theta_1)[..., moving] / spread


def _leading(shifts: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "k d"]:
    """Principal directions of both sets together: labels play no part, so the test stays valid."""
    centred = np.nan_to_num(shifts - shifts.mean(axis=0))
    return np.linalg.svd(centred, full_matrices=False)[2][:_NUM_DIRECTIONS]


def _at_pair(model: TwoStageModel, pair: tuple[Array, Array]) -> tuple[Array, Array]:
    theta_1, theta = pair
    return model.agreement.disagreement(theta), log_second(model, theta_1, theta)
