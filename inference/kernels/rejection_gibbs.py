"""Rejection Gibbs: exact moves on theta_1 by keeping the proposals that agreement rejected.

Given theta_1, running the rejection sampler until it succeeds gives rejected proposals Y; with Y
in the state, Z(theta_1) cancels and theta_1 given (theta_2, Y) is as if Y were more data:
p1(theta_1) p2(theta_2 | theta_1) prod_y p2(y | theta_1). Exact for any C, at a cost of 1 / Z.

V. Rao, L. Lin and D. Dunson, Biometrika 103 (2016), doi:10.1093/biomet/asw005.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from generative import TwoStageModel
from generative.agreement import rejection_sample
from inference.gaussians import surrogate as surrogates
from inference.moves import step_size as step_sizes
from inference.moves.accept import is_accepted
from inference.moves.chain_kernel import ChainKernel
from inference.moves.density import log_agreeing, log_joint
from inference.moves.independence import offer
from inference.moves.piecewise import sample_piecewise_exponential
from inference.moves.reference_hmc import reference_hmc
from inference.moves.step_size import StepSize

_ROUND = 16
_TARGET = 0.9  # with a flat metric, quartic walls make larger steps diverge


class RejectionGibbsState(NamedTuple):
    """State of one chain.

    Attributes
    ----------
    z : dict
        theta_1 and theta_2, each of shape (d,).
    rng_key : PRNG key
    i, num_warmup : int arrays
    step_2, step_shared : StepSize
        Of moves of theta_2 and of the coordinates that both stages share.
    num_tries, num_capped : int arrays
        Proposals of this sweep; sweeps after warm-up in which the cap was hit.
    acceptance_rate, diverging, lp, disagreement, disagreement_theta_1, log_likelihood
        As in :class:`~inference.kernels.exchange.state.ExchangeState`.
    """

    z: dict[str, Float[Array, " d"]]
    rng_key: jax.Array
    i: Int[Array, ""]
    num_warmup: Int[Array, ""]
    step_2: StepSize
    step_shared: StepSize
    num_tries: Int[Array, ""]
    num_capped: Int[Array, ""]
    acceptance_rate: Float[Array, ""]
    diverging: Bool[Array, ""]
    lp: Float[Array, ""]
    disagreement: Float[Array, ""]
    disagreement_theta_1: Float[Array, ""]
    log_likelihood: Float[Array, ""]


class RejectionGibbsKernel(ChainKernel):
    """HMC on theta_2; theta_1 given theta_2 and the rejected proposals.

    Parameters
    ----------
    model : TwoStageModel
    cap : int
        Proposals per sweep, at most. A sweep that hits it keeps theta_1 and is counted: it
        would target another distribution, so a run with many of them must not be used.
    max_num_steps : int
        Leapfrog steps of one move of theta_2, at most.
    """

    model: TwoStageModel
    cap: int = eqx.field(static=True, default=2000)
    max_num_steps: int = eqx.field(static=True, default=32)

    def __check_init__(self) -> None:
        key, origin = jax.random.key(0), self.model.space.origin
        for stage in (self.model.first_stage, self.model.second_stage):
            jax.eval_shape(stage.quadratic_terms, key, origin)  # or it refuses

    def get_diagnostics_str(self, state: RejectionGibbsState) -> str:
        """Return the number of proposals, and C."""
        return f"tries {state.num_tries.mean():.0f}, C {state.disagreement.mean():.3g}"

    def _init(self, rng_key: jax.Array, num_warmup: int | Int[Array, ""]) -> RejectionGibbsState:
        model = self.model
        rng_key, key_1, key_2 = jax.random.split(rng_key, 3)
        theta_1 = model.first_stage.around(model.space.origin).sample(key_1)
        theta_2, _ = rejection_sample(key_2, model.agreement, theta_1, 50 * self.cap)
        dtype = theta_1.dtype
        zero, count = jnp.zeros((), dtype), jnp.zeros((), int)
        state = RejectionGibbsState(
            z={"theta_1": theta_1, "theta_2": jnp.where(jnp.isfinite(theta_2), theta_2, theta_1)},
            rng_key=rng_key,
            i=count,
            num_warmup=count + num_warmup,
            step_2=step_sizes.initial(0.3, dtype),
            step_shared=step_sizes.initial(0.3, dtype),
            num_tries=count,
            num_capped=count,
            acceptance_rate=zero,
            diverging=jnp.zeros((), bool),
            lp=zero,
            disagreement=zero,
            disagreement_theta_1=zero,
            log_likelihood=zero,
        )
        return self._describe(state)

    def _describe(self, state: RejectionGibbsState) -> RejectionGibbsState:
        model, theta_1, theta_2 = self.model, state.z["theta_1"], state.z["theta_2"]
        return state._replace(
            lp=log_joint(model, theta_1, theta_2),
            disagreement=model.agreement.disagreement(theta_2),
            disagreement_theta_1=model.agreement.disagreement(theta_1),
            log_likelihood=model.log_likelihood(theta_2),
        )

    def _sweep(self, state: RejectionGibbsState) -> RejectionGibbsState:
        keys = jax.random.split(state.rng_key, 7)
        rng_key, key_2, key_y, key_fresh, key_1, key_shared, key_terms = keys
        state = state._replace(rng_key=rng_key)
        model = self.model
        if model.moving_2.any():
            state = self._move_second(key_2, state)
        if model.moving_1.any():
            rejected, count, agreed, capped = self._rejected(key_y, state.z["theta_1"])
            if model.moving_2.any():
                state = self._refresh(key_fresh, state, agreed, capped)
            moved = self._move_first(key_1, key_terms, state, rejected, count)
            if (model.moving_1 & ~model.moving_2).any():
                moved = self._move_shared(key_shared, moved, rejected, count)
            state = jax.tree.map(
                lambda new, old: jnp.where(capped, old, new), moved, state
            )._replace(
                num_tries=count + 1,
                num_capped=state.num_capped
                + jnp.where(capped & (state.i >= state.num_warmup), 1, 0),
            )
        return self._describe(state._replace(i=state.i + 1))

    def _move_second(self, key: jax.Array, state: RejectionGibbsState) -> RejectionGibbsState:
        model, theta_1 = self.model, state.z["theta_1"]
        theta_2, info = reference_hmc(
            key,
            state.z["theta_2"],
            lambda theta: log_agreeing(model, theta_1, theta) + model.log_likelihood(theta),
            surrogates.flat(model),
            theta_1,
            state.step_2.value,
            self.max_num_steps,
        )
        return state._replace(
            z={"theta_1": theta_1, "theta_2": theta_2},
            acceptance_rate=info.acceptance_rate,
            diverging=info.diverging,
            step_2=self._adapted(state, state.step_2, info.acceptance_rate),
        )

    def _adapted(self, state: RejectionGibbsState, step: StepSize, rate: Array) -> StepSize:
        is_warmup, is_last = state.i < state.num_warmup, state.i == state.num_warmup - 1
        return step_sizes.update(step, rate, _TARGET, is_warmup, is_last)

    def _refresh(
        self, key: jax.Array, state: RejectionGibbsState, agreed: Array, capped: Array
    ) -> RejectionGibbsState:
        """Offer theta_2 the proposal on which the heads agreed: an exact draw of its prior.

        Independent of the rejected ones given theta_1, so only L decides; it finds every mode.
        """
        theta_2 = offer(key, self.model, state.z["theta_2"], agreed, ~capped)
        return state._replace(z=state.z | {"theta_2": theta_2})

    def _rejected(self, key: jax.Array, theta_1: Array) -> tuple[Array, Array, Array, Array]:
        """Return rejected proposals (padded), their number, the kept one, and cap hits."""
        agreement = self.model.agreement
        proposal = agreement.second_stage.around(theta_1)
        size = -(-self.cap // _ROUND) * _ROUND

        def one_round(carry: tuple) -> tuple:
            key, buffer, count, _, _ = carry
            key, key_draw, key_keep = jax.random.split(key, 3)
            draws = proposal.sample(key_draw, (_ROUND,))
            log_keep = jax.vmap(agreement.log_factor)(draws)
            log_uniform = -jax.random.exponential(key_keep, log_keep.shape, log_keep.dtype)
            agreed = log_uniform < log_keep
            buffer = jax.lax.dynamic_update_slice(buffer, draws, (count, jnp.zeros_like(count)))
            count += jnp.where(agreed.any(), jnp.argmax(agreed), _ROUND)
            return key, buffer, count, draws[jnp.argmax(agreed)], agreed.any()

        start = (
            key,
            jnp.zeros((size, self.model.dimension), theta_1.dtype),
            jnp.zeros((), int),
            theta_1,
            jnp.zeros((), bool),
        )
        _, buffer, count, agreed, done = jax.lax.while_loop(
            lambda carry: ~carry[4] & (carry[2] <= size - _ROUND), one_round, start
        )
        return buffer, count, agreed, ~done

    def _move_first(
        self,
        key: jax.Array,
        key_terms: jax.Array,
        state: RejectionGibbsState,
        rejected: Array,
        count: Array,
    ) -> RejectionGibbsState:
        """Draw the coordinates of theta_1 that both stages move, given theta_2 and Y."""
        model, dtype = self.model, rejected.dtype
        theta_1, theta_2 = state.z["theta_1"], state.z["theta_2"]
        present = jnp.arange(len(rejected)) < count
        first, second = model.first_stage, model.second_stage
        if first.is_gaussian and second.is_gaussian:
            s1 = jnp.where(first.free, jnp.asarray(first.scale, dtype), 1)
            s2 = jnp.where(second.free, jnp.asarray(second.scale, dtype), 1)
            precision = 1 / s1**2 + (count + 1).astype(dtype) / s2**2
            total = theta_2 + jnp.where(present[:, None], rejected, 0).sum(axis=0)
            mean = (model.space.origin / s1**2 + total / s2**2) / precision
            draw = mean + jax.random.normal(key, mean.shape, dtype) / jnp.sqrt(precision)
        else:
            others = jnp.concatenate([theta_2[None], rejected])
            is_other = jnp.concatenate([jnp.ones(1, bool), present])[:, None]
            terms = self._terms(key_terms, theta_1, others, is_other)
            centres = jnp.concatenate([model.space.origin[None], others])
            draw = jax.vmap(sample_piecewise_exponential, (0, 1, 1, 1))(
                jax.random.split(key, model.dimension), centres, *terms
            )
        moves = model.moving_1 & model.moving_2
        return state._replace(z=state.z | {"theta_1": jnp.where(moves, draw, theta_1)})

    def _terms(
        self, key: jax.Array, theta_1: Array, others: Array, is_other: Array
    ) -> tuple[Array, Array]:
        """Slopes and precisions of theta_1's log density at theta_0 and at the other centres.

        Laplace stages put kinks there; mixtures of Gaussians draw a precision for each.
        """
        model, origin = self.model, self.model.space.origin[None]
        key_first, key_second = jax.random.split(key)
        of_first = model.first_stage.quadratic_terms(key_first, theta_1 - origin)
        of_others = model.second_stage.quadratic_terms(key_second, others - theta_1)
        slopes, precisions = (
            jnp.concatenate([first, jnp.where(is_other, second, 0)])
            for first, second in zip(of_first, of_others, strict=True)
        )
        return slopes, precisions

    def _move_shared(
        self, key: jax.Array, state: RejectionGibbsState, rejected: Array, count: Array
    ) -> RejectionGibbsState:
        """Move coordinates that theta_2 takes from theta_1 by a random walk along their prior.

        Their conditional given Y holds the probability that each of Y is rejected, which depends
        on them: p1 exp(-lambda C + L)(theta_2) prod_y (1 - exp(-lambda C(y))).
        """
        model, agreement = self.model, self.model.agreement
        key_step, key_accept = jax.random.split(key)
        shared = jnp.asarray(model.moving_1 & ~model.moving_2)
        present = jnp.arange(len(rejected)) < count
        theta_1, theta_2 = state.z["theta_1"], state.z["theta_2"]

        def log_density(theta_1: Array) -> Array:
            log_keep = jax.vmap(agreement.log_factor)(jnp.where(shared, theta_1, rejected))
            refused = jnp.log(-jnp.expm1(log_keep))
            both = jnp.where(shared, theta_1, theta_2)
            return log_joint(model, theta_1, both) + jnp.sum(jnp.where(present, refused, 0))

        spread = jnp.sqrt(jnp.asarray(model.first_stage.reference_variance, theta_1.dtype))
        noise = jax.random.normal(key_step, theta_1.shape, theta_1.dtype)
        proposed = theta_1 + jnp.where(shared, state.step_shared.value * spread * noise, 0)
        log_accept = log_density(proposed) - log_density(theta_1)
        log_accept = jnp.where(jnp.isnan(log_accept), -jnp.inf, log_accept)
        accept = is_accepted(key_accept, log_accept)
        theta_1 = jnp.where(accept, proposed, theta_1)
        is_warmup, is_last = state.i < state.num_warmup, state.i == state.num_warmup - 1
        rate = jnp.exp(jnp.minimum(log_accept, 0.0))
        step = step_sizes.update(state.step_shared, rate, 0.4, is_warmup, is_last)
        z = {"theta_1": theta_1, "theta_2": jnp.where(shared, theta_1, theta_2)}
        return state._replace(z=z, step_shared=step)
