"""Agreement of the two heads, and theta_2 given theta_1 as a NumPyro distribution."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree
from numpyro import handlers

from generative.errors import IntractableNormalizer, InvalidInput
from generative.linear import (
    LinearGaussianAgreement,
    LinearResiduals,
    linear_gaussian_agreement,
)
from generative.parameters import ParameterSpace
from generative.parts import Data, Parts
from generative.stage import Stage
from generative.user_code import blame, require_callable, require_scalar, traced
from generative.values import as_jax, require_finite, rounding

REJECTION_CAP = 100_000
_PROPOSALS_PER_ROUND = 32

NO_CLOSED_FORM = (
    "log Z(theta_1) has no closed form for this model, so the conditioned density is known only "
    "up to a constant in theta_2: use unnormalized_log_prob, estimate log Z with "
    "inference.log_normalizer, or sample the posterior without it by inference.infer(model, HMC())"
)


class Agreement(Data):
    """How strongly theta_2 is conditioned on agreement.

    Parameters
    ----------
    space : ParameterSpace
    second_stage : Stage
        Where theta_2 comes from before conditioning.
    disagreement, residuals : callable, optional
        Of a pytree; one of the two.
    strength : float
        lambda >= 0, nats per unit of C.

    Attributes
    ----------
    strength : float array
    is_absent : bool
        Whether lambda = 0, so that the heads are not asked to agree.
    closed_form : LinearGaussianAgreement or None
        The law of theta_2 given theta_1, where it is Gaussian.

    Raises
    ------
    InvalidInput
    """

    strength: Float[Array, ""]
    second_stage: Stage
    closed_form: LinearGaussianAgreement | None
    is_absent: bool = eqx.field(static=True)
    _space: ParameterSpace
    _given: Parts
    _has_residuals: bool = eqx.field(static=True)

    def __init__(
        self,
        space: ParameterSpace,
        second_stage: Stage,
        disagreement: Callable[[PyTree], Array] | None,
        residuals: Callable[[PyTree], Array] | None,
        strength: float,
    ):
        if (disagreement is None) == (residuals is None):
            found = "neither" if disagreement is None else "both"
            raise InvalidInput("disagreement", f"{found} of disagreement and residuals", "one")
        require_finite("agreement_strength", strength, "a finite number >= 0")
        if strength < 0:
            raise InvalidInput("agreement_strength", strength, "a finite number >= 0")
        self._space, self.second_stage = space, second_stage
        self._has_residuals = residuals is not None
        self._given = Parts(residuals if self._has_residuals else disagreement)
        self.strength = as_jax(strength, space.origin.dtype)
        self.is_absent = float(self.strength) == 0
        linear = residuals if isinstance(residuals, LinearResiduals) else None
        if linear is not None and linear.A.shape[1] != space.dimension:
            raise InvalidInput(
                "residuals", f"A of shape {linear.A.shape}", f"(m, {space.dimension})"
            )
        self.closed_form = None
        self._check(disagreement, residuals)
        is_gaussian = second_stage.is_gaussian or not second_stage.free.any()
        if linear is not None and is_gaussian:
            variance = as_jax(second_stage.variance)
            self.closed_form = linear_gaussian_agreement(linear, self.strength, variance)

    @property
    def given(self) -> dict[str, Callable[[PyTree], Array]]:
        """What the user gave, C or r, by the name of the argument."""
        return {"residuals" if self._has_residuals else "disagreement": self._given.whole}

    def disagreement(self, theta: Float[Array | np.ndarray, " d"]) -> Float[Array, ""]:
        """C of one parameter vector, shape (d,), not negative."""
        if self._has_residuals:
            return 0.5 * jnp.sum(self._evaluate(theta) ** 2)
        return self._evaluate(theta)

    @property
    def residuals(self) -> Callable[[Float[Array, " d"]], Float[Array, " m"]] | None:
        """r(theta) with C = |r|^2 / 2 of one parameter vector, where it is known."""
        return self._evaluate if self._has_residuals else None

    def _evaluate(self, theta: Float[Array | np.ndarray, " d"]) -> Array:
        with handlers.block():  # a program that it runs leaves no sites in the model's
            value = self._given.whole(self._space.unravel(theta))
        return jnp.asarray(value, self._space.origin.dtype)

    def log_factor(self, theta: Float[Array | np.ndarray, " d"]) -> Float[Array, ""]:
        """-lambda C of one parameter vector, nats; 0 where lambda = 0, though C be infinite."""
        if self.is_absent:
            return jnp.zeros((), self._space.origin.dtype)
        return -self.strength * self.disagreement(theta)

    @property
    def log_normalizer(self) -> Callable[[Array], Array] | None:
        """Log Z of one theta_1 in nats, shape (d,) -> (), where it has a closed form; else None."""
        if self.is_absent or not self.second_stage.free.any():
            return self.log_factor
        return None if self.closed_form is None else self.closed_form.log_normalizer

    @property
    def is_tractable(self) -> bool:
        """Whether log Z(theta_1) has a closed form."""
        return self.log_normalizer is not None

    def _check(self, disagreement: Any, residuals: Any) -> None:
        """Check the shape of what the user gave, and C at theta_0."""
        space = self._space
        if residuals is None:
            require_callable("disagreement", disagreement, "theta -> scalar")
            require_scalar("disagreement", disagreement, space.theta_0)
        else:
            require_callable("residuals", residuals, "theta -> array of shape (m,)")
            shape = traced("residuals", residuals, space.theta_0).shape
            if len(shape) != 1 or shape[0] == 0:
                raise InvalidInput("residuals", f"shape {shape} at theta_0", "shape (m,), m >= 1")
        with blame("disagreement", "a function of theta"):
            value = np.asarray(_at(self, space.origin))
        least = -rounding(space.origin.dtype) / max(1.0, float(self.strength))
        if not np.isfinite(value) or value < least:
            raise InvalidInput("disagreement", f"{value} at theta_0", "a finite number >= 0")


_at = jax.jit(Agreement.disagreement)


class AgreementConditioned(dist.Distribution):
    """theta_2 given theta_1: a stage, conditioned on the two heads agreeing.

    Its density is p2(theta_2 | theta_1) exp(-lambda C(theta_2)) / Z(theta_1).

    Parameters
    ----------
    base : Distribution
        p2(. | theta_1), from ``model.second_stage.around(theta_1)``.
    agreement : Agreement

    Notes
    -----
    `sample` is exact: from the closed form, else by rejection, at a mean cost of 1 / Z
    proposals. A draw that needs more than `REJECTION_CAP` proposals comes back as NaN
    (:func:`generative.simulate` turns that into an error).
    """

    pytree_data_fields = ("base", "agreement")

    def __init__(self, base: dist.Distribution, agreement: Agreement):
        self.base, self.agreement = base, agreement
        super().__init__(base.batch_shape, base.event_shape)

    @property
    def support(self) -> dist.constraints.Constraint:
        """That of the base distribution."""
        return self.base.support

    @property
    def _theta_1(self) -> Float[Array, "*batch d"]:
        return self.base.location if hasattr(self.base, "location") else self.base.base_dist.loc

    def unnormalized_log_prob(
        self, value: Float[Array | np.ndarray, "*batch d"]
    ) -> Float[Array, "*batch"]:
        """Return log p2(value | theta_1) - lambda C(value), nats."""
        self._refuse_batches()
        log_factor = jnp.vectorize(self.agreement.log_factor, signature="(d)->()")(value)
        return self.base.log_prob(value) + log_factor

    def log_prob(self, value: Float[Array | np.ndarray, "*batch d"]) -> Float[Array, "*batch"]:
        """Return the normalised log density, nats.

        Raises
        ------
        IntractableNormalizer
            Where log Z(theta_1) has no closed form.
        """
        self._refuse_batches()
        if not self.agreement.is_tractable:
            raise IntractableNormalizer(NO_CLOSED_FORM)
        log_z = jnp.vectorize(self.agreement.log_normalizer, signature="(d)->()")(self._theta_1)
        return self.unnormalized_log_prob(value) - log_z

    def _refuse_batches(self) -> None:
        """Refuse what `vmap` returns, which holds one copy of the model for each of its batch."""
        if jnp.ndim(self.agreement.strength):
            raise InvalidInput(
                "agreement",
                "a batch of them, as jax.vmap returns",
                "one, with a distribution around a batch of theta_1",
            )

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw theta_2 exactly, shape sample_shape + batch_shape + (d,)."""
        return self.sample_with_tries(key, sample_shape)[0]

    def sample_with_tries(
        self, key: jax.Array, sample_shape: tuple[int, ...] = (), cap: int | Array = REJECTION_CAP
    ) -> tuple[Array, Array]:
        """Draw theta_2 and count the proposals; a draw beyond the cap is NaN."""
        self._refuse_batches()
        shape = sample_shape + self.batch_shape
        theta_1 = jnp.broadcast_to(self._theta_1, shape + self.event_shape)
        flat = theta_1.reshape(-1, *self.event_shape)
        keys = jax.random.split(key, len(flat))
        draws, tries = jax.vmap(self._sample_one, (0, 0, None))(keys, flat, cap)
        return draws.reshape(theta_1.shape), tries.reshape(shape)

    def _sample_one(self, key: jax.Array, theta_1: Array, cap: int | Array) -> tuple[Array, Array]:
        if self.agreement.closed_form is not None:
            return self.agreement.closed_form.sample(key, theta_1), jnp.ones((), int)
        if not self.agreement.second_stage.free.any():
            return theta_1, jnp.ones((), int)  # a point mass, whatever C is there
        return rejection_sample(key, self.agreement, theta_1, cap)


def rejection_sample(
    key: jax.Array, agreement: Agreement, theta_1: Float[Array, " d"], cap: int | Array
) -> tuple[Float[Array, " d"], Array]:
    """Draw theta_2 given theta_1 exactly, by proposing until the heads agree.

    Parameters
    ----------
    key : PRNG key
    agreement : Agreement
    theta_1 : array, shape (d,)
    cap : int or int array, shape ()
        Number of proposals, rounded up to full rounds, after which NaN is returned.

    Returns
    -------
    theta_2 : array, shape (d,)
    tries : int array, shape ()
    """
    proposal = agreement.second_stage.around(theta_1)

    def one_round(state: tuple) -> tuple:
        key, _, tries, _ = state
        key, key_draw, key_keep = jax.random.split(key, 3)
        draws = proposal.sample(key_draw, (_PROPOSALS_PER_ROUND,))
        log_keep = jax.vmap(agreement.log_factor)(draws)
        log_uniform = -jax.random.exponential(key_keep, log_keep.shape, log_keep.dtype)
        kept = log_uniform < log_keep
        first = jnp.argmax(kept)
        tries = tries + jnp.where(kept.any(), first + 1, _PROPOSALS_PER_ROUND)
        return key, draws[first], tries, kept.any()

    def unfinished(state: tuple) -> Array:
        return ~state[3] & (state[2] < cap)

    start = (key, theta_1, jnp.zeros((), int), jnp.zeros((), bool))
    _, draw, tries, found = jax.lax.while_loop(unfinished, one_round, start)
    return jnp.where(found, draw, jnp.nan), tries
