"""Transported exchange within Gibbs: exact moves on theta_1 that never need Z(theta_1).

A sweep moves theta_2 given theta_1 by HMC, which needs no Z, and then theta_1 given theta_2 by an
exchange move. The exchange move proposes theta_1', draws a negative sample w' ~ q(. | theta_1'),
carries it back by a fixed bijection, w = T(w'), and accepts with ::

    log alpha = D log p1 + D log p2(theta_2 | .) + D(-lambda C + L)(theta_2) + log K ratio
                + log f(w | theta_1) - log f(w' | theta_1'),

where the last line estimates log Z(theta_1) - log Z(theta_1') without bias of the target. With
the shift T(w') = w' + G (theta_1 - theta_1'), where the surrogate's conditional mean follows
theta_1 by G, that line has no noise when C is quadratic.

I. Murray, Z. Ghahramani and D. MacKay, UAI 2006, arXiv:1206.6848.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from inference.kernels.exchange.kernel import ExchangeKernel, Proposal
from inference.kernels.exchange.state import ExchangeState, Tuning
from inference.moves.density import log_first, log_joint, log_second, share
from inference.moves.reference_hmc import integrate, kinetic_energy

_NUM_FORCE_STEPS = 8


class TransportedExchange(ExchangeKernel):
    """HMC on theta_2, transported exchange on theta_1.

    Parameters are those of :class:`~inference.kernels.exchange.kernel.ExchangeKernel`.

    Examples
    --------
    >>> import jax, generative
    >>> from numpyro.infer import MCMC
    >>> model = generative.problems.get("double_well").model
    >>> mcmc = MCMC(TransportedExchange(model), num_warmup=50, num_samples=50, progress_bar=False)
    >>> mcmc.run(jax.random.key(0))
    >>> mcmc.get_samples()["theta_1"].shape
    (50, 1)
    """

    def _sweep(self, state: ExchangeState) -> ExchangeState:
        rng_key, key_2, key_1 = jax.random.split(state.rng_key, 3)
        state = state._replace(rng_key=rng_key)
        if self.model.moving_2.any():
            state = self._move_second(key_2, state)
        if self.model.moving_1.any():
            state = self._move_first(key_1, state)
        return self._describe(state._replace(i=state.i + 1))

    def _move_first(self, key: jax.Array, state: ExchangeState) -> ExchangeState:
        key_propose, key_settle = jax.random.split(key)
        theta_2 = state.z["theta_2"]
        proposed_1, log_proposal = self._propose(
            key_propose, state.tuning, state.z["theta_1"], theta_2
        )
        proposed_2 = share(self.model, proposed_1, theta_2)
        return self._settle(key_settle, state, Proposal(proposed_1, proposed_2, log_proposal))

    def _propose(
        self, key: jax.Array, tuning: Tuning, theta_1: Array, theta_2: Array
    ) -> tuple[Array, Array]:
        """Propose theta_1 by a rotation around its reference, with kicks where that is not exact.

        Returns the proposal and the log of the reverse over the forward proposal density.
        """
        reference = tuning.reference_1
        mean = reference.mean(theta_2)
        # Constants stay; shared coordinates are centred at the initialisation.
        velocity = reference.fluctuation(key)
        angle = tuning.step_1.value
        if self._is_conjugate:
            centred = theta_1 - mean
            position = mean + jnp.cos(angle) * centred + jnp.sin(angle) * velocity
            final = jnp.cos(angle) * velocity - jnp.sin(angle) * centred
        else:
            end = integrate(
                self._force(tuning, theta_2),
                theta_1,
                velocity,
                mean,
                reference.covariance,
                angle / _NUM_FORCE_STEPS,
                jnp.asarray(_NUM_FORCE_STEPS),
            )
            position, final = end.position, end.velocity
        position = jnp.where(self.model.moving_1, position, theta_1)
        return position, kinetic_energy(reference, velocity) - kinetic_energy(reference, final)

    @property
    def _is_conjugate(self) -> bool:
        """Whether theta_1 given theta_2 is Gaussian once log Z is the surrogate's."""
        model = self.model
        is_gaussian = model.first_stage.is_gaussian and model.second_stage.is_gaussian
        return is_gaussian and not (model.moving_1 & ~model.moving_2).any()

    def _force(self, tuning: Tuning, theta_2: Array) -> Callable[[Array], tuple[Array, Array]]:
        """Return the field that kicks follow; with it, an (unused) value."""
        model = self.model

        def log_density(theta_1: Array) -> Array:
            if (model.moving_1 & ~model.moving_2).any():
                return log_joint(model, theta_1, share(model, theta_1, theta_2))
            return log_first(model, theta_1) + log_second(model, theta_1, theta_2)

        def force(theta_1: Array) -> tuple[Array, Array]:
            value, gradient = jax.value_and_grad(log_density)(theta_1)
            return value, gradient - tuning.normalizer.score(model, theta_1)

        return force
