"""A first posterior on real data: what do the two heads answer, and how many bits were saved?"""

from pathlib import Path

from analyses.figures import forest
from analyses.functionals import right_answers
from analyses.summary import summarize
from generative import InvalidInput, problems
from inference import HMC, infer

# Far from quadratic, the cheaper sweeps of `exchange` win. The log evidence, which takes longer
# than the chains here, is left to `concord run digits --backend smc`.
BACKEND = HMC(
    kernel="exchange",
    num_warmup=600,
    num_draws=1000,
    num_chains=4,
    max_doublings=1,
    evidence_particles=0,
)


def main(out: Path, seed: int) -> int:
    """Sample the posterior of `digits`, print its table and draw its figure."""
    figure = out.with_suffix(".png")
    if figure.exists():
        raise InvalidInput("out", f"{figure} exists", "a new name")
    problem = problems.get("digits")
    run = infer(
        problem.model, BACKEND, seed=seed, directory=out, provenance={"problem": problem.name}
    )
    print(summarize(run))
    right = right_answers(run.tree)
    if right is not None:
        forest({"posterior": right}, figure, "Probability of the true answer")
    print(f"run folder: {out}\nfigure: {figure}")
    return 0 if run.result.is_usable else 1
