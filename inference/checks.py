"""Checks that a run must pass before its result is called converged."""

from dataclasses import dataclass

import arviz as az
import numpy as np

MAX_RHAT = 1.01
MIN_ESS = 400.0
MAX_DIVERGENCE_RATE = 0.001


@dataclass(frozen=True)
class Check:
    """One check: what was found, and whether that is good enough.

    Attributes
    ----------
    name : str
    passed : bool
    message : str
    """

    name: str
    passed: bool
    message: str


def check_chains(quantities: dict[str, np.ndarray]) -> list[Check]:
    """Check finiteness, variance, rank-normalised R-hat and effective sample size.

    Parameters
    ----------
    quantities : dict
        Arrays of shape (chain, draw, ...).

    Notes
    -----
    Finiteness and variance come first: R-hat and ESS of NaN or constant draws are NaN or
    meaninglessly good. A NaN R-hat is a failure. A. Vehtari et al., Bayesian Analysis 16 (2021),
    doi:10.1214/20-BA1221.
    """
    finite = [name for name, x in quantities.items() if np.all(np.isfinite(x))]
    bad = sorted(set(quantities) - set(finite))
    checks = [Check("finite", not bad, f"not finite: {', '.join(bad)}" if bad else "all finite")]
    # One value in all draws of all chains is an answer (C on a plateau); a chain that stays at a
    # value of its own is stuck.
    varying = [name for name in finite if np.any(_spread(quantities[name]) > 0)]
    stuck = [name for name in varying if np.any(_is_stuck(name, quantities[name]))]
    message = f"a chain never moved: {', '.join(stuck)}" if stuck else "every chain moved"
    checks.append(Check("variance", not stuck, message))
    usable = {name: quantities[name] for name in varying if name not in stuck}
    if bad or stuck or not usable:
        return checks
    rhat = {name: _worst(az.rhat, x, np.max) for name, x in usable.items()}
    bulk = {name: _worst(az.ess, x, np.min) for name, x in usable.items()}
    tail = {name: _worst(_tail_ess, x, np.min) for name, x in usable.items()}
    worst = max(rhat, key=lambda name: np.nan_to_num(rhat[name], nan=np.inf))
    passed = bool(rhat[worst] < MAX_RHAT)
    checks.append(
        Check(
            "rhat",
            passed,
            f"largest R-hat {rhat[worst]:.4f} ({worst}), below {MAX_RHAT}; it needs two chains",
        )
    )
    for name, ess in (("ess_bulk", bulk), ("ess_tail", tail)):
        least = min(ess, key=lambda key: np.nan_to_num(ess[key], nan=-np.inf))
        passed = bool(ess[least] > MIN_ESS)
        checks.append(
            Check(name, passed, f"smallest {name} {ess[least]:.0f} ({least}), above {MIN_ESS:.0f}")
        )
    return checks


def check_divergences(diverging: np.ndarray) -> Check:
    """Check the share of divergent trajectories."""
    rate = float(np.mean(diverging))
    message = f"{int(np.sum(diverging))} divergences, rate at most {MAX_DIVERGENCE_RATE}"
    return Check("divergences", rate <= MAX_DIVERGENCE_RATE, message)


def _tail_ess(x: np.ndarray) -> np.ndarray:
    return az.ess(x, method="tail", prob=(0.05, 0.95))


def _spread(x: np.ndarray) -> np.ndarray:
    return np.ptp(x, axis=(0, 1))


def _is_stuck(name: str, x: np.ndarray) -> np.ndarray:
    """Per element: does a chain never move although the element varies overall?

    A parameter must move in every chain; a functional may take a rare value in some chains only.
    """
    constant = np.ptp(x, axis=1) == 0
    still = constant.any(axis=0) if name.startswith("theta") else constant.all(axis=0)
    return still & (_spread(x) > 0)


def _worst(statistic, x: np.ndarray, reduce) -> float:  # noqa: ANN001 - two callables
    flat = x.reshape(*x.shape[:2], -1)
    flat = flat[..., _spread(flat) > 0]
    return float(reduce([np.asarray(statistic(flat[..., j])) for j in range(flat.shape[-1])]))
