"""Nested sampling and tempered SMC by others, out of the box, on log Z(theta_1)."""

import time
from collections.abc import Callable

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.resampling import systematic
from scipy.stats import norm

from analyses.benchmarks.peers import Peer, run_dynesty, run_nss
from generative import TwoStageModel

_NUM_PARTICLES = 1000


def blackjax_nss(model: TwoStageModel, theta_1: np.ndarray, truth: float, limit: float) -> Peer:
    """BlackJAX nested slice sampling."""
    prior = model.second_stage.around(theta_1)

    def draws(key: jax.Array, number: int) -> jax.Array:
        return prior.sample(key, (number,))

    return run_nss(prior.log_prob, model.agreement.log_factor, draws, truth, limit)


def blackjax_tempered_smc(
    model: TwoStageModel, theta_1: np.ndarray, truth: float, limit: float
) -> Peer:
    """BlackJAX adaptive tempered SMC with HMC; its error is the spread of four runs."""
    prior = model.second_stage.around(theta_1)
    algorithm = blackjax.adaptive_tempered_smc(
        prior.log_prob,
        model.agreement.log_factor,
        blackjax.hmc.build_kernel(),
        blackjax.hmc.init,
        {
            "step_size": jnp.full(1, 0.1),
            "inverse_mass_matrix": jnp.asarray(model.second_stage.reference_variance)[None, :],
            "num_integration_steps": jnp.full(1, 10),
        },
        systematic,
        target_ess=0.5,
        num_mcmc_steps=2,
    )
    step = jax.jit(algorithm.step)
    values, start = [], time.perf_counter()
    for run in range(5):
        key, key_start = jax.random.split(jax.random.key(run))
        state = algorithm.init(prior.sample(key_start, (_NUM_PARTICLES,)))
        total = 0.0
        while float(state.tempering_param) < 1:
            key, key_step = jax.random.split(key)
            state, info = step(key_step, state)
            total += float(info.log_likelihood_increment)
            if time.perf_counter() - start > limit:
                return Peer(np.nan, np.nan, time.perf_counter() - start, False)
        if run == 0:  # compiles
            start = time.perf_counter()
            continue
        values.append(total)
    seconds = (time.perf_counter() - start) / len(values)
    errors = np.abs(np.array(values) - truth)
    return Peer(float(np.median(errors)), float(np.std(values, ddof=1)), seconds, True)


def dynesty_rslice(model: TwoStageModel, theta_1: np.ndarray, truth: float, limit: float) -> Peer:
    """Dynesty's static nested sampler, with random slices."""
    scale = np.asarray(model.second_stage.scale)
    log_factor = jax.jit(model.agreement.log_factor)

    def transform(u: np.ndarray) -> np.ndarray:
        return theta_1 + scale * norm.ppf(u)

    def log_likelihood(theta: np.ndarray) -> float:
        return float(log_factor(theta))

    return run_dynesty(transform, log_likelihood, model.dimension, truth, limit)


PEERS: dict[str, Callable[[TwoStageModel, np.ndarray, float, float], Peer]] = {
    "BlackJAX nss": blackjax_nss,
    "BlackJAX tempered SMC": blackjax_tempered_smc,
    "dynesty rslice": dynesty_rslice,
}
