"""Discrete two-stage models, whose posteriors are known exactly by counting.

Stage 1 draws a program that makes a state of the world of every input, and a pair of heads. Stage 2
draws a human, who says something in every state, until the heads agree on the small set. Programs
have priors 2^-bits; world models, heads and humans are lookup tables.
"""

from dataclasses import dataclass
from itertools import product

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float, Int

from generative.errors import InvalidInput
from generative.setups import Setup, check_setup

_MOST_ENUMERATED = 2_000_000


@dataclass(frozen=True)
class Counts:
    """What a discrete model says of each world program w and pair of heads (f, g).

    Attributes
    ----------
    log2_joint : array, shape (w, f, g)
        log2 p(w, f, g, data), bits, humans summed over.
    saved : array, shape (w, f, g)
        -log2 Z, bits; infinite where the heads cannot agree.
    """

    log2_joint: Float[np.ndarray, "w f g"]
    saved: Float[np.ndarray, "w f g"]

    @property
    def total(self) -> Float[np.ndarray, "f g"]:
        """-log2 p(f, g, data), bits: what each pair costs, all told."""
        return -np.logaddexp2.reduce(self.log2_joint, axis=0)

    @property
    def log2_evidence(self) -> float:
        """log2 p(data), bits."""
        return float(np.logaddexp2.reduce(self.log2_joint, axis=None))

    @property
    def posterior(self) -> Float[np.ndarray, "f g"]:
        """P(f, g | data)."""
        return np.exp2(-self.total - self.log2_evidence)


@dataclass(frozen=True)
class DiscreteTwoStage:
    """A discrete two-stage model.

    Attributes
    ----------
    world_bits : array, shape (w,)
        Cost of each program for the world model.
    worlds : int array, shape (w, n)
        The state that each program makes of each of n inputs.
    pair_bits : array, shape (h, h)
        Cost of each pair of heads.
    heads : int array, shape (h, s, a)
        Each head's answer in a state in which the human says `a`. A head that answers honestly
        ignores the human; one that imitates ignores the state.
    human_bits : array, shape (s, a)
        Cost of saying `a` in a state; states are independent, and each one's probabilities sum to
        1. Infinite: never said.
    small : int array, shape (k,)
        Inputs on which the heads must agree.
    large, labels : int arrays, shape (l,)
        Inputs with labels for the first head.
    heard, said : int arrays, shape (r,)
        Inputs in which the human was heard, and what was said: facts about humans that the world
        model must get right, whatever the heads do.
    error_rate : float
        Probability that a label is not the first head's answer.

    Raises
    ------
    InvalidInput
        If costs are no code (their probabilities sum to more than 1), or an index is out of range.
    """

    world_bits: Float[np.ndarray, " w"]
    worlds: Int[np.ndarray, "w n"]
    pair_bits: Float[np.ndarray, "h h"]
    heads: Int[np.ndarray, "h s a"]
    human_bits: Float[np.ndarray, "s a"]
    small: Int[np.ndarray, " k"]
    large: Int[np.ndarray, " l"]
    labels: Int[np.ndarray, " l"]
    heard: Int[np.ndarray, " r"]
    said: Int[np.ndarray, " r"]
    error_rate: float = 0.0

    def __post_init__(self) -> None:
        num_states, num_answers = self.human_bits.shape
        for name in ("world_bits", "pair_bits"):
            kraft = float(np.sum(np.exp2(-getattr(self, name))))
            if not kraft <= 1 + 1e-9:
                raise InvalidInput(name, f"probabilities that sum to {kraft:.6g}", "at most 1")
        sums = np.exp2(-self.human_bits).sum(axis=1)
        if not np.allclose(sums, 1, rtol=0, atol=1e-9):
            worst = sums[np.argmax(np.abs(sums - 1))]
            raise InvalidInput("human_bits", f"probabilities that sum to {worst:.6g}", "1")
        size = self.worlds.shape[1]
        limits = {"worlds": num_states, "heads": num_answers, "labels": num_answers}
        limits |= {"said": num_answers, "small": size, "large": size, "heard": size}
        for name, limit in limits.items():
            values = getattr(self, name)
            if values.size and not (values.min() >= 0 and values.max() < limit):
                raise InvalidInput(name, f"{values.min()} to {values.max()}", f"0 to {limit - 1}")
        for one, other in (("large", "labels"), ("heard", "said")):
            if len(getattr(self, one)) != len(getattr(self, other)):
                raise InvalidInput(other, f"{len(getattr(self, other))} entries", f"as {one}")
        if not 0 <= self.error_rate < 1:
            raise InvalidInput("error_rate", self.error_rate, "a probability below 1")

    def count(self, setup: Setup = "two-stages") -> Counts:
        """Sum over humans state by state: what states are independent in, they multiply in."""
        check_setup(setup)
        shape = (len(self.worlds), *self.pair_bits.shape)
        log2_data, log2_z = np.zeros(shape), np.zeros(shape)
        for w, f, g in np.ndindex(shape):
            allowed = self._allowed(w, f, g)
            fits = self._log2_fit(w, f)
            log2_z[w, f, g] = _sum_states(np.where(allowed, -self.human_bits, -np.inf))
            kept = allowed if setup != "one-stage" else np.ones_like(allowed)
            log2_data[w, f, g] = _sum_states(np.where(kept, -self.human_bits + fits, -np.inf))
        return self._counts(log2_data, log2_z, setup)

    def enumerate(self, setup: Setup = "two-stages") -> Counts:
        """Go through every human, one by one.

        Raises
        ------
        InvalidInput
            If there are too many.
        """
        check_setup(setup)
        num_states, num_answers = self.human_bits.shape
        if num_answers**num_states > _MOST_ENUMERATED:
            found = f"{num_answers}^{num_states} humans"
            raise InvalidInput("human_bits", found, f"at most {_MOST_ENUMERATED} to enumerate")
        shape = (len(self.worlds), *self.pair_bits.shape)
        data, z = np.zeros(shape), np.zeros(shape)
        states = np.arange(num_states)
        for human in product(range(num_answers), repeat=num_states):
            prior = np.exp2(-self.human_bits[states, list(human)].sum())
            for w, f, g in np.ndindex(shape):
                answers = [[self.heads[h, s, human[s]] for s in self.worlds[w]] for h in (f, g)]
                agree = all(answers[0][i] == answers[1][i] for i in self.small)
                z[w, f, g] += prior * agree
                if agree or setup == "one-stage":
                    data[w, f, g] += prior * self._likelihood(w, human, answers[0])
        with np.errstate(divide="ignore"):
            return self._counts(np.log2(data), np.log2(z), setup)

    def program(self) -> None:
        """Make the sample statements of the model, a NumPyro program.

        Condition it on `agreed` = 1, `labels` and `said`.

        Raises
        ------
        InvalidInput
            If the costs leave room for programs that are not listed: a prior must be complete.
        """
        for name in ("world_bits", "pair_bits"):
            kraft = np.sum(np.exp2(-getattr(self, name)))
            if not np.isclose(kraft, 1, rtol=0, atol=1e-9):
                raise InvalidInput(name, f"probabilities that sum to {kraft:.6g}", "1")
        nats = np.log(2)
        world = numpyro.sample("world", dist.Categorical(logits=-nats * self.world_bits))
        pair = numpyro.sample("pair", dist.Categorical(logits=-nats * self.pair_bits.ravel()))
        first, second = (jnp.asarray(self.heads)[i] for i in jnp.divmod(pair, len(self.heads)))
        states = jnp.asarray(self.worlds)[world]
        must_agree = jnp.zeros(len(self.human_bits), bool).at[states[self.small]].set(True)
        speech = -nats * jnp.asarray(self.human_bits)
        agreeing = jnp.where(~must_agree[:, None] | (first == second), speech, -jnp.inf)
        possible = jnp.any(agreeing > -jnp.inf, axis=1, keepdims=True)
        # Where no human makes the heads agree, stage 2 never ends; `agreed` records that it did.
        numpyro.sample("agreed", dist.Delta(jnp.all(possible).astype(int)))
        speech = jnp.where(possible, agreeing, speech)
        human = numpyro.sample("human", dist.Categorical(logits=speech).to_event(1))
        here = states[self.large]
        answers = first[here, human[here]]
        right = jnp.arange(self.human_bits.shape[1]) == answers[:, None]
        labels = jnp.where(right, 1 - self.error_rate, self._other_rate)
        numpyro.sample("labels", dist.Categorical(probs=labels).to_event(1))
        numpyro.sample("said", dist.Delta(human[states[self.heard]], event_dim=1))

    @property
    def _other_rate(self) -> float:
        """Probability of each label that is not the first head's answer: all are alike."""
        return self.error_rate / max(self.human_bits.shape[1] - 1, 1)

    def _allowed(self, w: int, f: int, g: int) -> np.ndarray:
        """What the human may say in each state for the heads to agree, shape (s, a)."""
        allowed = np.ones(self.human_bits.shape, bool)
        states = np.unique(self.worlds[w, self.small])
        allowed[states] = self.heads[f, states] == self.heads[g, states]
        return allowed

    def _log2_fit(self, w: int, f: int) -> np.ndarray:
        """log2 of the likelihood of all that was observed in each state, shape (s, a)."""
        fits = np.zeros(self.human_bits.shape)
        with np.errstate(divide="ignore"):
            right = np.log2(1 - self.error_rate)
            wrong = np.log2(self._other_rate)
        for state, label in zip(self.worlds[w, self.large], self.labels, strict=True):
            fits[state] += np.where(self.heads[f, state] == label, right, wrong)
        for state, said in zip(self.worlds[w, self.heard], self.said, strict=True):
            fits[state] += np.where(np.arange(fits.shape[1]) == said, 0.0, -np.inf)
        return fits

    def _likelihood(self, w: int, human: tuple[int, ...], answers: list[np.integer]) -> float:
        value = 1.0
        for i, label in zip(self.large, self.labels, strict=True):
            value *= 1 - self.error_rate if answers[i] == label else self._other_rate
        for i, said in zip(self.heard, self.said, strict=True):
            value *= human[self.worlds[w, i]] == said
        return value

    def _counts(self, log2_data: np.ndarray, log2_z: np.ndarray, setup: Setup) -> Counts:
        prior = -self.world_bits[:, None, None] - self.pair_bits
        with np.errstate(invalid="ignore"):  # heads that cannot agree: impossible
            given = log2_data - log2_z if setup == "two-stages" else log2_data
        given = np.where(np.isneginf(log2_data), -np.inf, given)
        return Counts(prior + given, -log2_z)


def _sum_states(log2_terms: np.ndarray) -> float:
    return float(np.logaddexp2.reduce(log2_terms, axis=1).sum())
