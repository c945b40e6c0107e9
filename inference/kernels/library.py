r"""A library of agreeing draws, from which moves of theta_2 and of negative samples cross basins.

Let B be one wide law of theta_2, and h(w) = B(w) exp(-lambda C(w)) / Z_h what agreement makes of B.
Against h the conditional q(w | theta_1), which is p2(w | theta_1) exp(-lambda C(w)) / Z(theta_1),
has the weight ::

    q(w | theta_1) / h(w) = p2(w | theta_1) / B(w)  up to a constant in w:

lambda C cancels, whatever it is. So draws of h, made once, serve as proposals under every theta_1,
and a choice among hundreds of them evaluates no C. B is the law of theta_2 before agreement, if
theta_1 has the mean and the variances of some draws: p1's to begin with, and then, where this is
worth less, those of chains in warm-up or of a pilot at a power of the likelihood, since data may
hold theta_1 where p1's library has hardly a draw. Nested sampling keeps p1's.
The weights then vary little in few dimensions; their effective number falls geometrically with d,
and with it what the move does.

The move is iterated sampling importance resampling, C. Andrieu, A. Lee and M. Vihola, Bernoulli 24
(2018), doi:10.3150/15-BEJ785: the current point and K draws of h are put in a row, and one of them
is chosen by its weight, which for theta_2 includes L. It is reversible and exact for independent
draws of h, and K is so large that a few of them count. A library has so many draws and no more,
annealed, so that the shares of basins keep its error of about one over the root of their number.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from generative import GaussianStage, TwoStageModel
from generative.parts import Data
from inference import prng
from inference.annealing.anneal import anneal
from inference.moves.accept import is_accepted
from inference.moves.density import first_draws, log_second

# Populations that are annealed apart, and their particles.
_NUM_POPULATIONS, _NUM_PARTICLES = 8, 2048
_ROW = 64
# By how much a row of one particle alone is dearer than one that all particles look at.
_DEARER = 10
# A move chooses among what is worth so many draws of its law, at all but a tenth of some theta_1.
_WORTH, _LEFT_OUT, _NUM_JUDGED = 2, 0.1, 256
_BATCH = 256


class Library(Data):
    """Draws of h, and its base.

    Attributes
    ----------
    draws : array, shape (n, d)
    log_likelihood : array, shape (n,)
        L at the draws, nats.
    log_ratio_at_centre : array, shape (n,)
        Log of p2 over B at the draws for theta_1 at the centre, nats, up to a constant.
    centre, spread : arrays, shape (d,)
        Mean and standard deviation of B, a Gaussian.
    num_rows, num_rows_2 : int arrays
        Rows of draws among which one move of a negative sample chooses, and one of theta_2.
    """

    draws: Float[Array, "n d"]
    log_likelihood: Float[Array, " n"]
    log_ratio_at_centre: Float[Array, " n"]
    centre: Float[Array, " d"]
    spread: Float[Array, " d"]
    num_rows: Int[Array, ""]
    num_rows_2: Int[Array, ""]

    def move(
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[Array, " d"],
        start: Float[Array, " d"],
        num_rows: Int[Array, ""],
    ) -> Float[Array, " d"]:
        """Choose among `start` and rows of draws; q(. | theta_1) exp(L) stays invariant.

        Negative samples, which know no data, move under the model at power 0. A row is chosen by
        its total weight, and then one of its draws.
        """
        key_first, key_rows, key_draw = jax.random.split(key, 3)
        most = self._most_rows
        first = jax.random.randint(key_first, (), 0, most)
        log_weights = self._weighing(model, theta_1)

        def choose(
            number: Array, carry: tuple[Array, Array], first: Array | int
        ) -> tuple[Array, Array]:
            chosen, log_total = carry
            row = (first + number) % most
            log_row = logsumexp(log_weights(row))
            log_total = jnp.logaddexp(log_total, log_row)
            taken = is_accepted(jax.random.fold_in(key_rows, number), log_row - log_total)
            return jnp.where(taken, row, chosen), log_total

        def chosen_from(first: Array | int) -> Array:
            log_weight = self.log_ratio(model, theta_1, start) + model.log_likelihood(start)
            body = partial(choose, first=first)
            return jax.lax.fori_loop(0, num_rows, body, (jnp.asarray(-1), log_weight))[0]

        # Where all rows are looked at, all particles look at one together, in a matrix product.
        row = jax.lax.cond(num_rows == most, lambda: chosen_from(0), lambda: chosen_from(first))
        index = jax.random.categorical(key_draw, log_weights(row))
        return jnp.where(row < 0, start, self._row(self.draws, row)[index])

    def _weighing(
        self, model: TwoStageModel, theta_1: Array
    ) -> Callable[[Array], Float[Array, " row"]]:
        """Return what gives the log weights of a row, nats, under one theta_1."""

        def relative(w: Array) -> Array:
            return log_second(model, theta_1, w) - log_second(model, self.centre, w)

        def log_ratios(row: Array) -> Array:
            draws = self._row(self.draws, row)
            if model.second_stage.is_gaussian:  # with one covariance: linear in w
                return self._row(self.log_ratio_at_centre, row) + draws @ slope + offset
            return jax.vmap(lambda w: self.log_ratio(model, theta_1, w))(draws)

        offset, slope = jax.value_and_grad(relative)(jnp.zeros_like(theta_1))
        return lambda row: log_ratios(row) + model.tempered(self._row(self.log_likelihood, row))

    @staticmethod
    def _row(of: Array, row: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(of, row * _ROW, _ROW)

    def made_for(
        self,
        key: jax.Array,
        model: TwoStageModel,
        theta_1: Float[np.ndarray, "n d"],
        power: float = 1.0,
    ) -> "Library":
        """Return a library for such theta_1: this one, if it is worth as much there.

        Data count at a power, for theta_2.
        """
        judged = self.judged_at(model.temper(power), theta_1)
        # One that asks for all of its rows is at its worst, and says no more of itself.
        is_worth_it = judged.num_rows <= self.num_rows < self._most_rows
        return judged if is_worth_it else build(key, model, theta_1, power)

    @property
    def _most_rows(self) -> int:
        return len(self.draws) // _ROW

    def judged_at(self, model: TwoStageModel, theta_1: Float[np.ndarray, "n d"]) -> "Library":
        """Return the library with as many rows of proposals as hold a few draws that count."""
        chosen = np.linspace(0, len(theta_1) - 1, _NUM_JUDGED).astype(int)

        def num_rows(model: TwoStageModel) -> Int[Array, ""]:
            found = np.asarray(worth(self, model, jnp.asarray(theta_1[chosen])))
            needed = _WORTH * len(self.draws) / np.quantile(np.nan_to_num(found, nan=1), _LEFT_OUT)
            rows = int(np.clip(np.ceil(needed / _ROW), 1, self._most_rows))
            return jnp.asarray(rows if rows < self._most_rows / _DEARER else self._most_rows)

        return replace(self, num_rows=num_rows(model.temper(0.0)), num_rows_2=num_rows(model))

    def log_ratio(self, model: TwoStageModel, theta_1: Array, w: Array) -> Array:
        """Log of p2 over B, nats, up to a constant."""
        log_base = -0.5 * jnp.sum(((w - self.centre) / self.spread) ** 2)
        return log_second(model, theta_1, w) - log_base


@jax.jit
def worth(
    library: Library, model: TwoStageModel, theta_1: Float[Array, "n d"]
) -> Float[Array, " n"]:
    """How many draws of q(. | theta_1) exp(L) it is worth: (sum of weights)^2 / sum of squares.

    NaN where L is -infinity at all of its draws.
    """
    values = model.tempered(library.log_likelihood)

    def one(theta_1: Array) -> Array:
        log_weight = jax.vmap(lambda w: library.log_ratio(model, theta_1, w))(library.draws)
        return 1 / jnp.sum(jax.nn.softmax(log_weight + values) ** 2)

    return jax.lax.map(one, theta_1)


def is_possible(model: TwoStageModel) -> bool:
    """Whether one library serves every theta_1: no block of theta_2 may be theta_1's own."""
    return bool(model.moving_2.all())


def build(
    key: jax.Array,
    model: TwoStageModel,
    theta_1: Float[np.ndarray, "n d"] | None = None,
    power: float = 1.0,
) -> Library:
    """Anneal a library.

    Parameters
    ----------
    key : PRNG key
    model : TwoStageModel
    theta_1 : array, shape (n, d), optional
        Draws for which it is made; by default it is made for p1.
    power : float
        Of the likelihood under which theta_2 will move.
    """
    origin, variance = model.space.origin, np.asarray(model.first_stage.reference_variance)
    key_judged, *keys = prng.split(key, 1 + _NUM_POPULATIONS)
    centre = origin
    if theta_1 is None:
        theta_1 = np.asarray(first_draws(key_judged, model, _NUM_JUDGED))
    else:
        centre, variance = jnp.asarray(theta_1.mean(axis=0), origin.dtype), theta_1.var(axis=0)
    spread = np.sqrt(variance + np.asarray(model.second_stage.reference_variance))
    base = model.replace(second_stage=GaussianStage(model.space.unravel(spread)))
    populations = [anneal(key, base, centre, _NUM_PARTICLES).particles for key in keys]
    draws = jnp.concatenate(populations)
    library = gather(model, draws, centre, jnp.asarray(spread, origin.dtype))
    return library.judged_at(model.temper(power), theta_1)


@jax.jit
def gather(
    model: TwoStageModel,
    draws: Float[Array, "n d"],
    centre: Float[Array, " d"],
    spread: Float[Array, " d"],
) -> Library:
    """Make a library of draws of h; moves choose among all of them, until it is judged."""
    values = jax.lax.map(model.log_likelihood, draws, batch_size=_BATCH)
    values = jnp.where(jnp.isnan(values), -jnp.inf, values)  # which is never chosen
    most = jnp.asarray(len(draws) // _ROW)
    library = Library(draws, values, jnp.zeros_like(values), centre, spread, most, most)
    at_centre = jax.vmap(lambda w: library.log_ratio(model, centre, w))(draws)
    return replace(library, log_ratio_at_centre=at_centre)
