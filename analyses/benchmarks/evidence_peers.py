"""Log evidence by others, out of the box, on models whose log Z is known to them."""

import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC, NUTS
from scipy.special import logsumexp as numpy_logsumexp
from scipy.stats import multivariate_normal, norm

from analyses.benchmarks.peers import Peer, run_dynesty, run_nss
from generative import TwoStageModel, two_stage
from generative.problems import Problem

_DYNESTY_SECONDS = 60.0  # ten times too few beyond joint dimension 20
_BRIDGE_DRAWS, _BRIDGE_ITERATIONS = 4000, 200


def _truth(problem: Problem) -> float:
    assert problem.truth.log_evidence is not None
    return problem.truth.log_evidence


def _log_prior(model: TwoStageModel) -> Callable[[jax.Array], jax.Array]:
    """Log density of the two-stage prior at a vector (2 d,), with its exact log Z."""
    log_z = model.agreement.log_normalizer
    assert log_z is not None

    def log_prior(both: jax.Array) -> jax.Array:
        theta_1, theta_2 = jnp.split(both, 2)
        first = model.first_stage.around(model.theta_0).log_prob(theta_1)
        second = model.second_stage.around(theta_1).log_prob(theta_2)
        return first + second + model.agreement.log_factor(theta_2) - log_z(theta_1)

    return log_prior


def _prior_draws(model: TwoStageModel, key: jax.Array, number: int) -> jax.Array:
    law = model.agreement.closed_form
    assert law is not None
    key_1, key_2 = jax.random.split(key)
    theta_1 = model.first_stage.around(model.theta_0).sample(key_1, (number,))
    theta_2 = jax.vmap(law.sample)(jax.random.split(key_2, number), theta_1)
    return jnp.concatenate([theta_1, theta_2], axis=1)


def blackjax_nss(problem: Problem, limit: float) -> Peer:
    """BlackJAX nested slice sampling of (theta_1, theta_2)."""
    model = problem.model

    def log_likelihood(both: jax.Array) -> jax.Array:
        return model.log_likelihood(jnp.split(both, 2)[1])

    draws = partial(_prior_draws, model)
    return run_nss(_log_prior(model), log_likelihood, draws, _truth(problem), limit)


def dynesty_rslice(problem: Problem, limit: float) -> Peer:
    """Dynesty's static nested sampler, with random slices and the exact prior transform."""
    model = problem.model
    law = model.agreement.closed_form
    assert law is not None
    d = model.dimension
    # theta_2 given theta_1 is N(G theta_1 + g, Sq): a Cholesky factor maps normals to it.
    identity = jnp.eye(d)
    root = np.linalg.cholesky(np.asarray(jax.vmap(law.covariance)(identity)))
    gain = np.asarray(jax.vmap(law.gain)(identity)).T
    shift = np.asarray(law.mean(jnp.zeros(d)))
    scale, origin = np.asarray(model.first_stage.scale), np.asarray(model.space.origin)
    log_l = jax.jit(model.log_likelihood)

    def transform(u: np.ndarray) -> np.ndarray:
        first, second = np.split(norm.ppf(u), 2)
        theta_1 = origin + scale * first
        return np.concatenate([theta_1, gain @ theta_1 + shift + root @ second])

    def log_likelihood(both: np.ndarray) -> float:
        return float(log_l(both[d:]))

    limit = min(limit, _DYNESTY_SECONDS)
    return run_dynesty(transform, log_likelihood, 2 * d, _truth(problem), limit)


def nuts_bridge(problem: Problem, limit: float) -> Peer:
    """NumPyro's NUTS, then bridge sampling from a Gaussian fitted to half of each chain's draws.

    X.-L. Meng and W. H. Wong, Statistica Sinica 6 (1996). Each of four chains gives an estimate.
    """
    model = problem.model
    mcmc = MCMC(
        NUTS(two_stage),
        num_warmup=500,
        num_samples=1000,
        num_chains=4,
        chain_method="sequential",  # vectorized chains cannot run twice in numpyro 0.22
        progress_bar=False,
    )
    log_prior = _log_prior(model)
    log_density = jax.jit(
        jax.vmap(lambda both: log_prior(both) + model.log_likelihood(jnp.split(both, 2)[1]))
    )
    for seed in (0, 1):  # the first run compiles
        start = time.perf_counter()
        mcmc.run(jax.random.key(seed), model)
        found = mcmc.get_samples(group_by_chain=True)
        chains = np.concatenate([found["theta_1"], found["theta_2"]], axis=-1)
        values = [_bridge(chain, log_density, index) for index, chain in enumerate(chains)]
        seconds = time.perf_counter() - start
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return Peer(abs(float(np.mean(values)) - _truth(problem)), error, seconds, True)


def _bridge(draws: np.ndarray, log_density: Callable[[np.ndarray], jax.Array], seed: int) -> float:
    half = len(draws) // 2
    fitted, kept = draws[:half], draws[half:]
    proposal = multivariate_normal(fitted.mean(axis=0), np.cov(fitted.T), allow_singular=True)
    fresh = proposal.rvs(_BRIDGE_DRAWS, random_state=seed)
    ratio_kept = np.asarray(log_density(kept)) - proposal.logpdf(kept)
    ratio_fresh = np.asarray(log_density(fresh)) - proposal.logpdf(fresh)
    share = np.log(len(kept)), np.log(len(fresh))
    value = float(np.median(ratio_kept))
    for _ in range(_BRIDGE_ITERATIONS):
        below = np.logaddexp(share[0] + ratio_fresh, share[1] + value)
        above = np.logaddexp(share[0] + ratio_kept, share[1] + value)
        numerator = numpy_logsumexp(ratio_fresh - below) - share[1]
        denominator = numpy_logsumexp(-above) - share[0]
        value, old = float(numerator - denominator), value
        if abs(value - old) < 1e-10:
            break
    return value


PEERS: dict[str, Callable[[Problem, float], Peer]] = {
    "BlackJAX nss": blackjax_nss,
    "dynesty rslice": dynesty_rslice,
    "NUTS, bridge": nuts_bridge,
}
