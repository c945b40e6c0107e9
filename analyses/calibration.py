"""Simulation-based calibration: is a true parameter's rank among posterior draws uniform?

Parameters and data are drawn from the model; a sampler that draws from the posterior of these data
ranks every quantity of the true parameters uniformly (S. Talts et al., arXiv:1804.06788). The
quantities here are those that a wrong Z moves, and functions of the data besides, which plain
parameters would leave blind (M. Modrak et al., Bayesian Analysis (2023), doi:10.1214/23-BA1404).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import arviz  # noqa: F401 - the accessor azstats
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from generative import (
    AgreementConditioned,
    AgreementNotReached,
    InvalidInput,
    TwoStageModel,
    simulate,
    simulate_data,
)
from generative.values import require_integer
from inference import NonFiniteState
from inference.answers import answers
from inference.backends.base import Sampler
from inference.directions import agreement_directions
from inference.moves.density import describe
from inference.reflections import reflected
from inference.results.draws import Draws
from inference.results.run import Result
from inference.results.sampled import verdict

_NUM_RANKED = 99  # draws that the true value is ranked among
_CONVERGED = "converged"


def calibrate(
    model: TwoStageModel, sampler: Sampler, num_simulations: int = 1000, seed: int = 0
) -> xr.DataTree:
    """Calibrate a sampler on data that the model itself has made.

    Parameters
    ----------
    model : TwoStageModel
        With an observation program; its own data are only a template of the shapes. Agreement must
        be reachable by rejection, as true parameters have to be exact draws.
    sampler : Sampler
        Such as ``HMC()``.
    num_simulations : int
    seed : int

    Returns
    -------
    DataTree
        Group `prior_sbc`, as :func:`arviz.plot_ecdf_pit` takes it: ranks in (0, 1) by quantity and
        `simulation`, NaN where a sampler returned no draws, and whether each run converged.

    Raises
    ------
    InvalidInput
        If an argument cannot be used.
    AgreementNotReached
        If the model cannot be simulated by rejection.

    Examples
    --------
    >>> import jax
    >>> jax.config.update("jax_enable_x64", True)
    >>> from analyses.benchmarks.calibration import two_wells
    >>> from analyses.calibration import calibrate
    >>> from inference import RejectionGibbs
    >>> tree = calibrate(two_wells(), RejectionGibbs(num_draws=500), num_simulations=3)
    >>> sorted(tree["prior_sbc"].data_vars)[:3]
    ['converged', 'disagreement', 'disagreement_theta_1']
    """
    require_integer("num_simulations", num_simulations, least=2)
    return as_tree(list(simulations(model, sampler, range(num_simulations), seed)))


def simulations(
    model: TwoStageModel, sampler: Sampler, indices: Iterable[int], seed: int = 0
) -> Iterator[dict[str, float]]:
    """Yield the ranks of single simulations, each of which has a key of its own.

    Parameters
    ----------
    model, sampler, seed
        As for :func:`calibrate`.
    indices : iterable of int
        Of the simulations, so that finished ones need not be made again.

    Yields
    ------
    dict
        Ranks in (0, 1) by quantity, and `converged`, 0 or 1; the latter alone where the sampler
        returned no draws.
    """
    if model.observation is None:
        raise InvalidInput("model", "one without an observation", "one with a NumPyro program")
    direction = jnp.asarray(agreement_directions(model).rows[:1])
    for index in indices:
        key_true, key_data, key_w, key_draw, key_tie = jax.random.split(
            jax.random.fold_in(jax.random.key(seed), index), 5
        )
        true = simulate(model, key_true, 1)
        data = simulate_data(model, key_data, true.theta_2)
        posed = model.replace(data={name: x[0] for name, x in data.items()})
        try:
            draws = sampler.renewed(posed, sampler.draw(posed, key_draw), key_draw)
        except (NonFiniteState, AgreementNotReached):
            yield {_CONVERGED: 0.0}
            continue
        result, _ = verdict(posed, draws, draws.answers or answers(posed, draws.values["theta_2"]))
        # Judged in one copy, but the truth may lie in any.
        drawn = replace(draws, values=reflected(posed, key_draw, draws.values))
        found = _quantities(posed, direction, *_ranked(drawn))
        negative = _agreeing(key_w, posed, true.theta_1) if "negative" in draws.values else None
        truth = _quantities(posed, direction, true.theta_1, true.theta_2, negative)
        ties = np.asarray(jax.random.uniform(key_tie, (len(found),)))
        ranked = {
            name: _rank(float(truth[name][0]), np.asarray(found[name]), tie)
            for name, tie in zip(found, ties, strict=True)
        }
        yield ranked | {_CONVERGED: float(result is Result.converged)}


def as_tree(rows: Sequence[dict[str, float]]) -> xr.DataTree:
    """Gather what :func:`simulations` yields into the tree of :func:`calibrate`."""
    names = sorted({name for row in rows for name in row})
    columns = {name: [row.get(name, np.nan) for row in rows] for name in names}
    data = xr.Dataset({name: ("simulation", np.asarray(x)) for name, x in columns.items()})
    return xr.DataTree.from_dict({"prior_sbc": data})


def ranks(tree: xr.DataTree) -> xr.Dataset:
    """Ranks alone, of the simulations that have any."""
    return tree["prior_sbc"].to_dataset().drop_vars(_CONVERGED).dropna("simulation")


def p_values(tree: xr.DataTree) -> dict[str, float]:
    """p-values of uniform ranks by quantity, by ArviZ's pointwise order-based test."""
    found = ranks(tree).azstats.uniformity_test(dim="simulation")[0]
    return {str(name): float(x) for name, x in found.items()}


def _ranked(draws: Draws) -> tuple[Array | None, ...]:
    """theta_1, theta_2 and, where there are any, w of a few draws far apart; shape (draw, d)."""
    first = draws.values["theta_1"]
    number = first.shape[0] * first.shape[1]
    chosen = np.linspace(0, number - 1, _NUM_RANKED).astype(int)

    def of(name: str) -> Array | None:
        if name not in draws.values:
            return None
        return jnp.asarray(draws.values[name].reshape(number, -1)[chosen])

    return of("theta_1"), of("theta_2"), of("negative")


@jax.jit
def _quantities(
    model: TwoStageModel,
    direction: Float[Array, "k d"],
    theta_1: Float[Array, "n d"],
    theta_2: Float[Array, "n d"],
    negative: Float[Array, "n d"] | None,
) -> dict[str, Float[Array, " n"]]:
    """What is ranked; `direction` is the one in which C changes most, of theta_1 over its scale."""
    quantities = jax.vmap(lambda a, b: describe(model, a, b))(theta_1, theta_2)
    spread = jnp.sqrt(jnp.asarray(model.first_stage.reference_variance))
    whitened = jnp.where(spread > 0, (theta_1 - model.space.origin) / spread, 0)
    for of in direction:
        quantities["theta_1_along"] = whitened @ of
        if negative is not None:
            # (w - theta_1) / s2^2 under a Gaussian stage; its mean is the gradient of log Z.
            score = -model.second_stage.score(negative - theta_1)
            quantities["negative_score_along"] = score * spread @ of
    return quantities


@jax.jit
def _agreeing(key: jax.Array, model: TwoStageModel, theta_1: Array) -> Array:
    second = model.second_stage.around(theta_1)
    return AgreementConditioned(second, model.agreement).sample(key)


def _rank(true: float, drawn: np.ndarray, tie: float) -> float:
    below, equal = np.sum(drawn < true), np.sum(drawn == true)
    return float((below + tie * (equal + 1)) / (len(drawn) + 1))
