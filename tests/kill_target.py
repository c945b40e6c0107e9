"""A small run of one backend, to be killed and resumed: `python -m tests.kill_target NAME DIR`."""

import sys
from pathlib import Path

import jax

from generative import TwoStageModel, problems
from inference import (
    HMC,
    SGLD,
    MaximumAPosteriori,
    NestedSampling,
    RejectionGibbs,
    TemperedSMC,
    infer,
)
from inference.backends.base import Backend

BACKENDS: dict[str, Backend] = {
    "nuts": HMC(num_warmup=60, num_draws=300),
    "hmc": HMC(num_warmup=60, num_draws=200, max_doublings=1, evidence_particles=8),
    "rejection-gibbs": RejectionGibbs(num_warmup=60, num_draws=300, evidence_particles=8),
    "map": MaximumAPosteriori(num_warmup=160, num_steps=160, num_starts=2, num_ledger_points=4),
    "sgld": SGLD(num_warmup=160, num_draws=100, max_halvings=1, evidence_particles=8),
    "smc": TemperedSMC(num_particles=16, max_particles=64, num_draws=16, negative="persistent"),
    "nested": NestedSampling(num_live=20, max_live=30, max_doublings=1, negative="persistent"),
}


def model_for(name: str) -> TwoStageModel:
    """NUTS where log Z is known; a problem that needs negative samples elsewhere."""
    if name == "nuts":
        return problems.get("linear_gaussian", d=3).model
    return problems.get("rotated_wells", d=2).model


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", sys.argv[3])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    infer(
        model_for(sys.argv[1]),
        BACKENDS[sys.argv[1]],
        progress=False,
        directory=Path(sys.argv[2]),
        resume=True,
        checkpoint_seconds=0.0,
    )
