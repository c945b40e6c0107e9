"""What the kernels that deal with an unknown Z(theta_1) by the exchange ratio have in common."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from generative import TwoStageModel
from inference.annealing.anneal import anneal
from inference.kernels.exchange.leap import leap, moved_negative
from inference.kernels.exchange.state import ExchangeState, Tuning
from inference.kernels.exchange.warmup import untuned
from inference.kernels.negative import NegativeSampler, PersistentNegative
from inference.moves import step_size as step_sizes
from inference.moves.chain_kernel import ChainKernel
from inference.moves.density import log_agreeing, log_joint
from inference.moves.reference_hmc import reference_hmc
from inference.moves.step_size import StepSize

_TARGET_SECOND, _TARGET_NEGATIVE = 0.85, 0.8
_NUM_PARTICLES = 64


class Proposal(NamedTuple):
    """Where an exchange move would go, and the log of the reverse over the forward density."""

    theta_1: Float[Array, " d"]
    theta_2: Float[Array, " d"]
    log_reverse: Float[Array, ""]


class _Offer(NamedTuple):
    """A proposal, and what decides on it."""

    proposal: Proposal
    gain: Float[Array, ""]  # of the joint density without Z, nats
    threshold: Float[Array, ""]  # accepted is what the ratio of normalisers exceeds, nats


class _Place(NamedTuple):
    """A theta_1 on the way, and what negative samples follow there."""

    theta_1: Float[Array, " d"]
    centre: Float[Array, " d"]


class _Path(NamedTuple):
    """A negative sample on its way from the proposal back to theta_1, and what came of it."""

    at: _Place  # of the theta_1 that it is a draw for
    w: Float[Array, " d"]
    fresh: Float[Array, " d"]  # under the proposal
    log_ratio: Float[Array, ""]  # of Z(theta_1) / Z(theta_1'), nats
    rate_negative: Float[Array, ""]  # of the moves that its step size adapts to
    found: Bool[Array, ""]
    theta_1: Float[Array, " d"]
    theta_2: Float[Array, " d"]
    acceptance_rate: Float[Array, ""]


class ExchangeKernel(ChainKernel):
    """Abstract: a sweep that ends in an accept step by the exchange ratio.

    Parameters
    ----------
    model : TwoStageModel
    negative : NegativeSampler
        How negative samples are made;
        :class:`~inference.kernels.negative.RejectionNegative` makes the kernel exact.
    num_moves : int
        Moves per negative sample, for a persistent one. Too few: w lags, theta_1 spreads.
    max_num_steps : int
        Leapfrog steps of one move of theta_2, at most.
    target_acceptance : float
        Of the exchange move.
    omit_normalizer : bool
        True leaves out -log Z(theta_1), a labelled mistake: the negative control of every check.
    mover : NegativeSampler, optional
        How negative samples move between bridges, where `negative` draws them at a price.
    """

    model: TwoStageModel
    negative: NegativeSampler
    num_moves: int = eqx.field(static=True)
    max_num_steps: int = eqx.field(static=True)
    target_acceptance: float = eqx.field(static=True)
    omit_normalizer: bool = eqx.field(static=True)
    mover: NegativeSampler | None

    def __init__(
        self,
        model: TwoStageModel,
        negative: NegativeSampler | None = None,
        num_moves: int = 4,
        max_num_steps: int = 32,
        target_acceptance: float = 0.5,
        omit_normalizer: bool = False,
        mover: NegativeSampler | None = None,
    ):
        self.model = model
        self.negative = negative or PersistentNegative(max_num_steps)
        self.num_moves = num_moves
        self.max_num_steps = max_num_steps
        self.target_acceptance = target_acceptance
        self.omit_normalizer = omit_normalizer
        self.mover = mover

    def get_diagnostics_str(self, state: ExchangeState) -> str:
        """Return the acceptance rate of the exchange move, and C."""
        return f"accept {state.acceptance_rate.mean():.2f}, C {state.disagreement.mean():.3g}"

    def _init(self, rng_key: jax.Array, num_warmup: int | Int[Array, ""]) -> ExchangeState:
        model = self.model
        rng_key, key_1, key_2, key_fit = jax.random.split(rng_key, 4)
        theta_1 = model.first_stage.around(model.space.origin).sample(key_1)
        particles = anneal(key_2, model, theta_1, _NUM_PARTICLES).particles
        # L may be -infinity at some particles; a chain that starts there could never leave.
        start = jnp.argmax(jnp.isfinite(jax.vmap(model.log_likelihood)(particles)))
        negative = particles[(start + 1) % _NUM_PARTICLES]
        tuning = untuned(key_fit, model, particles)
        return self.start(rng_key, theta_1, particles[start], negative, tuning, num_warmup)

    def start(
        self,
        rng_key: jax.Array,
        theta_1: Float[Array, " d"],
        theta_2: Float[Array, " d"],
        negative: Float[Array, " d"],
        tuning: Tuning,
        num_warmup: int | Int[Array, ""] = 0,
    ) -> ExchangeState:
        """Start one chain at given parameters, negative sample and tuning."""
        zero, count = jnp.zeros((), theta_1.dtype), jnp.zeros((), int)
        state = ExchangeState(
            z={"theta_1": theta_1, "theta_2": theta_2},
            negative=negative,
            rng_key=rng_key,
            i=count,
            num_warmup=count + num_warmup,
            num_moves=count + self.num_moves,
            tuning=tuning,
            acceptance_rate=zero,
            acceptance_rate_2=zero,
            diverging=jnp.zeros((), bool),
            num_failed=count,
            lp=zero,
            disagreement=zero,
            log_likelihood=zero,
            negative_disagreement=zero,
            disagreement_theta_1=zero,
        )
        return self._describe(state)

    def _describe(self, state: ExchangeState) -> ExchangeState:
        theta_1, theta_2 = state.z["theta_1"], state.z["theta_2"]
        return state._replace(
            lp=log_joint(self.model, theta_1, theta_2),
            disagreement=self.model.agreement.disagreement(theta_2),
            log_likelihood=self.model.log_likelihood(theta_2),
            negative_disagreement=self.model.agreement.disagreement(state.negative),
            disagreement_theta_1=self.model.agreement.disagreement(theta_1),
        )

    def _adapted(
        self, state: ExchangeState, step: StepSize, rate: Array, target: float
    ) -> StepSize:
        is_warmup, is_last = state.i < state.num_warmup, state.i == state.num_warmup - 1
        return step_sizes.update(step, rate, target, is_warmup, is_last)

    def _move_second(self, key: jax.Array, state: ExchangeState) -> ExchangeState:
        model, tuning = self.model, state.tuning
        theta_1 = state.z["theta_1"]
        key_leap, key_jitter, key_move = jax.random.split(key, 3)
        start = leap(key_leap, model, self.negative, state)
        # Jitter lets a chain whose step is unstable where it happens to be move on.
        jitter = jax.random.uniform(key_jitter, (), theta_1.dtype, 0.5, 1.0)
        theta_2, info = reference_hmc(
            key_move,
            start,
            lambda theta: log_agreeing(model, theta_1, theta) + model.log_likelihood(theta),
            tuning.metric_2,
            tuning.metric_2.mean(theta_1),
            jitter * tuning.step_2.value,
            self.max_num_steps,
        )
        step_2 = self._adapted(state, tuning.step_2, info.acceptance_rate, _TARGET_SECOND)
        return state._replace(
            z={"theta_1": theta_1, "theta_2": theta_2},
            acceptance_rate_2=info.acceptance_rate,
            diverging=info.diverging,
            tuning=tuning._replace(step_2=step_2),
        )

    def _place(self, tuning: Tuning, theta_1: Array) -> _Place:
        return _Place(theta_1, tuning.normalizer.centre(self.model, theta_1))

    def _carry(self, w: Array, source: _Place, target: _Place) -> Array:
        """Carry w from q(. | source) towards q(. | target); its inverse swaps the two."""
        return w + (target.centre - source.centre)

    def _settle(self, key: jax.Array, state: ExchangeState, proposal: Proposal) -> ExchangeState:
        """Accept or reject a proposal by the exchange ratio, and renew the negative sample.

        The ratio Z(theta_1) / Z(theta_1') is estimated by annealed importance sampling from a
        negative sample under the proposal back to theta_1, in equal steps with a move after each
        but the last. Run backwards this is the same path in the other direction, which makes the
        accept step exact for an exact negative sample and any number of steps.

        An accepted sample has passed a test that depends on it, and a refused proposal leaves the
        old one in place: neither has the law of q any more until it moves. One move is enough to
        go on from, since each proposal makes `num_moves` more.
        """
        key_start, key_turns, key_accept = jax.random.split(key, 3)
        start = self._path(key_start, state, proposal)
        gain = (
            log_joint(self.model, proposal.theta_1, proposal.theta_2)
            - log_joint(self.model, state.z["theta_1"], state.z["theta_2"])
            + proposal.log_reverse
        )
        threshold = -jax.random.exponential(key_accept, (), gain.dtype) - gain
        turn = partial(self._turn, key_turns, state, _Offer(proposal, gain, threshold))
        num_bridges = state.tuning.num_bridges
        turns = num_bridges if self.negative.is_exact else num_bridges + 1
        path = jax.lax.fori_loop(0, turns, turn, start)
        rate, is_warmup, tuning = path.acceptance_rate, state.i < state.num_warmup, state.tuning
        return state._replace(
            z={"theta_1": path.theta_1, "theta_2": path.theta_2},
            negative=path.w,
            acceptance_rate=rate,
            num_failed=state.num_failed + jnp.where(path.found | is_warmup, 0, 1),
            tuning=tuning._replace(
                step_1=self._adapted(state, tuning.step_1, rate, self.target_acceptance),
                step_negative=self._adapted(
                    state, tuning.step_negative, path.rate_negative, _TARGET_NEGATIVE
                ),
            ),
        )

    def _path(self, key: jax.Array, state: ExchangeState, proposal: Proposal) -> _Path:
        """Carry the negative sample to the proposal; where moves are another sampler's, draw it."""
        theta_1 = state.z["theta_1"]
        zero, found = jnp.zeros((), theta_1.dtype), jnp.ones((), bool)
        start, end = (self._place(state.tuning, x) for x in (theta_1, proposal.theta_1))
        w = self._carry(state.negative, start, end)
        if self.mover is not None:
            settings = (state.tuning, proposal.theta_1, w, state.num_moves)
            w, _, found = moved_negative(key, self.model, self.negative, *settings)
        elif isinstance(self.negative, PersistentNegative):
            w = self.negative.rescued(key, self.model, proposal.theta_1, w)
        return _Path(
            at=end,
            w=w,
            fresh=w,
            log_ratio=zero,
            rate_negative=zero,
            found=found,
            theta_1=theta_1,
            theta_2=state.z["theta_2"],
            acceptance_rate=zero,
        )

    def _turn(
        self,
        key: jax.Array,
        state: ExchangeState,
        offer: _Offer,
        index: Array,
        path: _Path,
    ) -> _Path:
        """Move the sample, weigh it, and carry it one step on; after the last step, decide.

        A turn more only moves what was kept. All in one loop, so that the sampler is compiled once.
        """
        tuning, theta_1 = state.tuning, state.z["theta_1"]
        bridges = tuning.num_bridges
        is_first, is_last = index == 0, index == bridges - 1
        if self.mover is None:
            sampler, first_moves = self.negative, state.num_moves
            counts = jnp.where(is_first, 1.0, 0.0)
        else:
            sampler, first_moves = self.mover, jnp.zeros_like(state.num_moves)
            counts = jnp.where(is_first, 0.0, 1 / jnp.maximum(bridges - 1, 1))
        num_moves = jnp.where(is_first, first_moves, 1)
        key_move = jax.random.fold_in(key, index)
        settings = (tuning, path.at.theta_1, path.w, num_moves)
        w, rate, found = moved_negative(key_move, self.model, sampler, *settings)
        share_done = ((index + 1) / bridges).astype(theta_1.dtype)
        proposed = offer.proposal.theta_1
        between = proposed + share_done * (theta_1 - proposed)
        target = self._place(tuning, jnp.where(is_last, theta_1, between))  # to the last bit
        carried = self._carry(w, path.at, target)
        weight = log_agreeing(self.model, target.theta_1, carried)
        weight -= log_agreeing(self.model, path.at.theta_1, w)
        path = path._replace(
            at=target,
            w=jnp.where(index < bridges, carried, w),
            fresh=jnp.where(is_first, w, path.fresh),
            log_ratio=path.log_ratio + (0 if self.omit_normalizer else weight),
            rate_negative=path.rate_negative + counts.astype(rate.dtype) * rate,
            found=path.found & found,
        )
        decided = self._decided(state, offer, path)
        return jax.tree.map(lambda new, old: jnp.where(is_last, new, old), decided, path)

    def _decided(self, state: ExchangeState, offer: _Offer, path: _Path) -> _Path:
        """Accept or reject, given the ratio of normalisers; go on with the sample that is kept."""
        proposal, log_accept = offer.proposal, offer.gain + path.log_ratio
        usable = path.found & ~jnp.isnan(log_accept)
        accept = usable & (path.log_ratio > offer.threshold)
        theta_1, theta_2 = state.z["theta_1"], state.z["theta_2"]
        kept = jnp.where(accept, proposal.theta_1, theta_1)
        rate = jnp.exp(jnp.minimum(log_accept, 0.0))
        return path._replace(
            at=path.at._replace(theta_1=kept),  # from where nothing is carried on
            w=jnp.where(accept, path.fresh, state.negative),
            theta_1=kept,
            theta_2=jnp.where(accept, proposal.theta_2, theta_2),
            acceptance_rate=jnp.where(usable, rate, 0).astype(theta_1.dtype),
        )
