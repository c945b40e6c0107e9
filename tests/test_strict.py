"""No silent promotion: programs are traced where mixed dtypes are errors.

Nothing is computed, since promotion is a matter of dtypes and shapes alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from generative import GaussianStage, LaplaceStage, TwoStageModel
from generative.agreement import AgreementConditioned
from inference.annealing.anneal import anneal
from inference.annealing.bidirectional import forward_work
from inference.annealing.conditional_smc import conditional_sweep
from inference.annealing.path import Path
from inference.gaussians.surrogate import flat
from inference.kernels.annealed_negative import AnnealedNegative
from inference.kernels.exchange.constrained import ConstrainedHMC
from inference.kernels.exchange.hmc import ExchangeHMC
from inference.kernels.exchange.transported import TransportedExchange
from inference.kernels.langevin.ascent import Ascent
from inference.kernels.langevin.dynamics import LangevinTuning
from inference.kernels.langevin.steps import Langevin
from inference.kernels.langevin.tuning import diagonal_metric, flat_metric
from inference.kernels.negative import (
    PersistentNegative,
    ReferenceNegative,
    RejectionNegative,
)
from inference.kernels.rejection_gibbs import RejectionGibbsKernel
from inference.moves.density import describe, log_joint
from inference.normalizer.score import score

D = 3
MATRIX = np.linspace(-1, 1, 2 * D).reshape(2, D)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def residuals(matrix, theta):
    return jnp.tanh(matrix @ theta)


def log_likelihood(matrix, theta):
    return -jnp.sum((matrix @ theta - 1) ** 2)


def squares(theta):
    return jnp.sum(theta**2)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(params=[GaussianStage, LaplaceStage], ids=["gaussian", "laplace"])
def model(request, dtype):
    matrix = jnp.asarray(MATRIX, dtype)
    with jax.numpy_dtype_promotion("standard"):
        return TwoStageModel(
            theta_0=jnp.zeros(D, dtype),
            first_stage=request.param(1.0),
            second_stage=request.param(jnp.asarray([0.5, 0.3, 0.0])),
            residuals=Partial(residuals, matrix),
            agreement_strength=5.0,
            log_likelihood=Partial(log_likelihood, matrix),
        )


def point(model):
    return model.space.origin


KEY = jax.random.key(0)


def kept(model, found):
    """Floats keep the model's dtype, or are accumulated in double precision."""
    for leaf in jax.tree.leaves(found):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert leaf.dtype in (model.space.origin.dtype, jnp.float64)


def densities(model):
    x = point(model)
    conditioned = AgreementConditioned(model.second_stage.around(x), model.agreement)
    return (
        describe(model, x, x),
        log_joint(model, x, x),
        conditioned.unnormalized_log_prob(x),
        conditioned.sample(KEY),
    )


def sweep_of(kernel):
    def run(model):
        chosen = kernel(model)
        state = chosen.init(jax.random.split(KEY, 2), jnp.asarray(5))
        return chosen.sample(state)

    return run


def constrained(model):
    floor = jnp.asarray(-100.0)
    return ConstrainedHMC(model, PersistentNegative(), 8, floor, jnp.asarray(0.5))


def negative_of(sampler):
    def run(model):
        x = point(model)
        return sampler(KEY, model, x, x, flat(model), jnp.asarray(0.1, x.dtype), jnp.asarray(8))

    return run


def annealed(model):
    steps = jnp.full(9, 0.1)
    return AnnealedNegative(jnp.linspace(0, 1, 9), steps, num_particles=8)


def dynamics_of(kind, metric):
    def run(model):
        x, kernel = point(model), kind(model)
        size = jnp.asarray(0.1, x.dtype)
        tuning = LangevinTuning(metric(model), size, size, jnp.asarray(2))
        state = kernel.init(x, x, jnp.stack([x, x]))
        return kernel.step(KEY, state, tuning, jnp.ones((), x.dtype)), kernel.read(
            KEY, state, tuning
        )

    return run


def estimators(model):
    path = Path(model, point(model), flat(model))
    run = anneal(KEY, model, point(model), 8)
    along = forward_work(KEY, path, run.schedule, 4)
    moved = conditional_sweep(KEY, path, run.schedule, point(model), 8, 1000)
    return run, along, moved, score(model, point(model), run.particles)


PROGRAMS = {
    "densities": densities,
    "transported": sweep_of(TransportedExchange),
    "joint": sweep_of(ExchangeHMC),
    "constrained": sweep_of(constrained),
    "rejection_gibbs": sweep_of(RejectionGibbsKernel),
    "langevin": dynamics_of(Langevin, flat_metric),
    "langevin_diagonal": dynamics_of(Langevin, diagonal_metric),
    "ascent": dynamics_of(lambda m: Ascent(Langevin(m)), flat_metric),
    "persistent": negative_of(PersistentNegative()),
    "annealed": lambda model: negative_of(annealed(model))(model),
    "reference": negative_of(ReferenceNegative()),
    "rejection": negative_of(RejectionNegative()),
    "estimators": estimators,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_promote_nothing(name, model):
    kept(model, jax.eval_shape(PROGRAMS[name], model))
