"""Are negative samples draws of q(. | theta_1), and theta_2 of its law given theta_1 and the data?

That doubling the moves of persistent negative samples changes nothing says little where they sit
in one basin of q: K and 2 K moves are then equally wrong. Two comparisons see it. At power 0 of the
likelihood theta_2 and w are exchangeable given theta_1, for nothing; and at posterior theta_1 fresh
annealed draws of q(. | theta_1), which started in all of p2, show the basins that w never visits.
Of theta_2 the same is asked in a way that cannot fail a right chain: conditional SMC leaves its law
as it is, and takes it to basins that it never visited. None of these sees a basin that no annealed
particle finds.
"""

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from generative import TwoStageModel
from inference.annealing.conditional_smc import annealed_populations
from inference.annealing.given_data import given_data
from inference.batches import over_points
from inference.checks import Check, check_no_shift, mean_and_error
from inference.functionals import bounded_cost
from inference.moves.density import log_second

EXCHANGEABLE, FRESH, RENEWED = "exchangeable", "fresh_negatives", "renewed_theta_2"
# A sweep of 16 particles can leave a quarter of an error that their pilots have in a basin's share.
NUM_FRESH_PARTICLES, NUM_FRESH_SWEEPS = 16, 4
# Starts that have the law already need not be forgotten for the comparison to be valid.
_NUM_RENEWING_SWEEPS = 2
_NUM_DIRECTIONS = 3
_BATCH = 256
# Per chain: fewer have no Monte Carlo error.
_FEWEST_DRAWS = 4

Batch = Float[np.ndarray, "chain draw d"]
Populations = Float[np.ndarray, "chain draw particle d"]


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
    pair = (theta_2[:, :, None], negative[:, :, None])
    return compare_draws(model.temper(0.0), EXCHANGEABLE, theta_1, *pair, what)


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
    theta_1, negative = (_evenly(x, num_pairs) for x in (theta_1, negative))
    fresh = _annealed(key, model, theta_1, NUM_FRESH_SWEEPS)
    what = f"w and fresh draws of q at {theta_1[..., 0].size} posterior theta_1"
    return compare_draws(model.temper(0.0), FRESH, theta_1, negative[:, :, None], fresh, what)


def check_renewed(
    model: TwoStageModel, key: jax.Array, theta_1: Batch, theta_2: Batch, num_pairs: int
) -> Check:
    """Compare theta_2 with what conditional SMC given theta_1 and the data makes of it.

    Parameters
    ----------
    model : TwoStageModel
    key : PRNG key
    theta_1, theta_2 : arrays, shape (chain, draw, d)
        Of the posterior; evenly spaced draws are compared.
    num_pairs : int
        In all chains together, about.
    """
    theta_1, theta_2 = (_evenly(x, num_pairs) for x in (theta_1, theta_2))
    renewed = _annealed(key, given_data(model), theta_1, _NUM_RENEWING_SWEEPS, theta_2)
    what = f"theta_2 and what conditional SMC makes of it at {theta_1[..., 0].size} draws"
    pair = (theta_2[:, :, None], renewed)
    return compare_draws(model, RENEWED, theta_1, *pair, what, is_renewal=True)


def _evenly(draws: Batch, number: int) -> Float[np.ndarray, "chain chosen d"]:
    """Choose evenly spaced draws, about so many in all chains together."""
    num_chains, num_draws = draws.shape[:2]
    of_each = min(max(_FEWEST_DRAWS, number // num_chains), num_draws)
    return draws[:, np.linspace(0, num_draws - 1, of_each).astype(int)]


def _annealed(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Batch,
    num_sweeps: int,
    start: Batch | None = None,
) -> Populations:
    """Anneal populations at theta_1 of all chains; see :func:`annealed_populations`."""
    flat = None if start is None else start.reshape(-1, model.dimension)
    settings = (theta_1.reshape(-1, model.dimension), NUM_FRESH_PARTICLES, num_sweeps)
    found, _ = annealed_populations(key, model, *settings, flat)
    return found.reshape(*theta_1.shape[:2], *found.shape[1:])


def compare_draws(
    model: TwoStageModel,
    name: str,
    theta_1: Batch,
    first: Float[np.ndarray, "chain draw k d"],
    second: Populations,
    what: str,
    is_renewal: bool = False,
) -> Check:
    """Check that two sets of draws have one law; see :func:`differences`.

    Parameters
    ----------
    name : str
        Of the check.
    model, theta_1, first, second, is_renewal
        See :func:`differences`.
    what : str
        What is compared, for the message.
    """
    found = differences(model, theta_1, first, second, is_renewal)
    return check_no_shift(name, found, what, about="both")


def differences(
    model: TwoStageModel,
    theta_1: Batch,
    first: Float[np.ndarray, "chain draw k d"],
    second: Populations,
    is_renewal: bool = False,
) -> dict[str, tuple[float, float, float]]:
    """Compare two sets of draws, point by point, so that theta_1 adds no noise.

    On C, L, log p2, and w - theta_1 in scales of the second stage: its squared length, its parts
    along leading principal directions, and how these follow theta_1.

    Parameters
    ----------
    model : TwoStageModel
    theta_1 : array, shape (chain, draw, d)
    first, second : arrays, shapes (chain, draw, k, d) and (chain, draw, particle, d)
        Particles at one point may depend on each other; of these, means are compared.
    is_renewal : bool
        Whether the second was made of the first: what it kept of it, no difference can show.

    Returns
    -------
    dict
        Name to difference, its standard error and the standard deviation, as
        :func:`~inference.checks.check_no_shift` takes them.
    """
    shifts = [_whitened(model, theta_1[:, :, None], x) for x in (first, second)]
    directions = _leading(np.concatenate([x.reshape(-1, x.shape[-1]) for x in shifts]))
    # Means alone would miss samples that are right on average, but do not follow theta_1.
    at = _whitened(model, theta_1.mean(axis=(0, 1)), theta_1) @ directions.T
    quantities = {}
    found = [
        _statistics(model, theta_1, x) | _along(shift, directions, at[:, :, None])
        for x, shift in zip((first, second), shifts, strict=True)
    ]
    for quantity, of_first in found[0].items():
        of_second = found[1][quantity]
        before, after = of_first.mean(axis=-1), of_second.mean(axis=-1)
        if np.any(before != after):
            spread = float(of_second.std())
            shown = 1 - _kept(before, after, spread) if is_renewal else 1.0
            quantities[quantity] = (*mean_and_error(before - after), shown * spread)
    return quantities


def _kept(
    before: Float[np.ndarray, "chain draw"], after: Float[np.ndarray, "chain draw"], spread: float
) -> float:
    """Share of a difference that renewed draws keep: 0 at least, and where nothing varies."""
    norm = float(before.std()) * spread
    covariance = float(np.mean((before - before.mean()) * (after - after.mean())))
    return max(0.0, covariance / norm) if norm > 0 else 0.0


def _statistics(
    model: TwoStageModel, theta_1: Batch, theta: Populations
) -> dict[str, Float[np.ndarray, "chain draw particle"]]:
    at = np.broadcast_to(theta_1[:, :, None], theta.shape)
    pairs = tuple(x.reshape(-1, x.shape[-1]) for x in (at, theta))
    found = over_points(Partial(_at_pair, model), pairs, _BATCH)
    return {name: x.reshape(theta.shape[:3]) for name, x in found.items()}


def _along(
    shift: Populations,
    directions: Float[np.ndarray, "k d"],
    at: Float[np.ndarray, "chain draw 1 k"],
) -> dict[str, Float[np.ndarray, "chain draw particle"]]:
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
    model: TwoStageModel,
    theta_1: Float[np.ndarray, "*batch d"],
    theta: Float[np.ndarray, "*batches d"],
) -> Float[np.ndarray, "*batches moving"]:
    moving = np.asarray(model.moving_2)
    spread = np.sqrt(np.asarray(model.second_stage.reference_variance))[moving]
    return (theta - theta_1)[..., moving] / spread


def _leading(shifts: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "k d"]:
    """Principal directions of both sets together: they take no side, so the test stays valid."""
    centred = np.nan_to_num(shifts - shifts.mean(axis=0))
    return np.linalg.svd(centred, full_matrices=False)[2][:_NUM_DIRECTIONS]


def _at_pair(model: TwoStageModel, pair: tuple[Array, Array]) -> dict[str, Array]:
    theta_1, theta = pair
    cost = model.agreement.disagreement(theta)
    return {
        "C": bounded_cost(cost) if model.agreement.is_absent else cost,
        "L": model.log_likelihood(theta),
        "log_p2": log_second(model, theta_1, theta),
    }
