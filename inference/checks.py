"""Checks that a run must pass before its result is called converged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import arviz as az
import numpy as np
from scipy import stats

About = Literal["draws", "evidence", "both"]

FALSE_ALARM_RATE = 1e-3
# A comparison states the shift that it sees with probability 95 %.
_POWER_QUANTILE = float(stats.norm.ppf(0.95))

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
    about : {"draws", "evidence", "both"}
        What must not be used if it fails.
    """

    name: str
    passed: bool
    message: str
    about: About = "draws"


def check_no_shift(
    name: str,
    quantities: dict[str, tuple[float, float, float]],
    what: str,
    degrees: float = np.inf,
    about: About = "draws",
    unit: str = "sd",
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> Check:
    """Check that no mean differs from zero.

    A check that passes says how sharp it was: the shift, in standard deviations of the quantity,
    that it would have seen with probability 95 %.

    Parameters
    ----------
    name : str
        Of the check.
    quantities : dict
        Name to difference, its standard error, and the standard deviation of the quantity itself.
    what : str
        What was compared, for the message.
    degrees : float
        Of freedom of Student's law, for errors that come from few runs.
    about : {"draws", "evidence", "both"}
    unit : str
        Of the standard deviations.
    false_alarm_rate : float
        Family-wise; 0.1 % by default.
    """
    if not quantities:
        return Check(name, True, f"{what}: nothing varies", about)
    limit = float(stats.t.isf(false_alarm_rate / 2 / len(quantities), degrees))
    scores = {n: z_score(difference, error) for n, (difference, error, _) in quantities.items()}
    worst = max(scores, key=lambda n: abs(scores[n]))
    seen = max(
        (limit + _POWER_QUANTILE) * error / spread if spread > 0 else 0.0
        for _, error, spread in quantities.values()
    )
    passed = all(abs(z) < limit for z in scores.values())
    power = f"; it sees shifts above {seen:.2g} {unit}" if passed else ""
    score = f"largest |z| {abs(scores[worst]):.2f} ({worst}), below {limit:.2f}"
    return Check(name, passed, f"{what}: {score}{power}", about)


def z_score(difference: float, error: float) -> float:
    """Difference over its standard error; 0 for equal constants, infinite where undefined."""
    if difference == 0 and error == 0:
        return 0.0
    if not error > 0 or not np.isfinite(error):
        return np.inf
    return float(np.nan_to_num(difference / error, nan=np.inf))


def mean_and_error(x: np.ndarray) -> tuple[float, float]:
    """Mean, and the larger of the within-chain and the between-chain standard error.

    Parameters
    ----------
    x : array, shape (chain, draw)
    """
    # Chains of fewer than four draws have an error between them only.
    within = float(np.nan_to_num(az.mcse(x))) if np.ptp(x) > 0 else 0.0
    between = float(x.mean(axis=1).std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else 0.0
    return float(x.mean()), max(within, between)


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
    message = f"not finite: {', '.join(bad)}" if bad else "all finite"
    checks = [Check("finite", not bad, message, "both")]
    # One value in all draws of all chains is an answer (C on a plateau); a chain that stays at a
    # value of its own is stuck.
    varying = [name for name in finite if np.any(_spread(quantities[name]) > 0)]
    stuck = [name for name in varying if np.any(_is_stuck(name, quantities[name]))]
    message = f"a chain never moved: {', '.join(stuck)}" if stuck else "every chain moved"
    checks.append(Check("variance", not stuck, message, "both"))
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


def _tail_ess(x: np.ndarray) -> np.ndarray | np.floating:
    return az.ess(x, method="tail", prob=(0.05, 0.95))


def _spread(x: np.ndarray) -> np.ndarray | np.floating:
    return np.ptp(x, axis=(0, 1))


def _is_stuck(name: str, x: np.ndarray) -> np.ndarray | np.bool:
    """Per element: does a chain never move although the element varies overall?

    A parameter must move in every chain; a functional may take a rare value in some chains only.
    """
    constant = np.ptp(x, axis=1) == 0
    still = constant.any(axis=0) if name.startswith("theta") else constant.all(axis=0)
    return still & (_spread(x) > 0)


def _worst(
    statistic: Callable[[np.ndarray], Any], x: np.ndarray, reduce: Callable[[Sequence], Any]
) -> float:
    flat = x.reshape(*x.shape[:2], -1)
    flat = flat[..., _spread(flat) > 0]
    return float(reduce([np.asarray(statistic(flat[..., j])) for j in range(flat.shape[-1])]))
