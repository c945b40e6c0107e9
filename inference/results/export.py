"""Handing runs to other packages, where they are installed."""

from typing import Any

import numpy as np

from generative import InvalidInput
from inference.results.run import Run


def to_anesthetic(run: Run) -> Any:
    """Return the points of a nested-sampling run as `anesthetic.NestedSamples`.

    Columns are `theta_1` and `theta_2` by parameter; L is in nats, with ties broken below 1e-6. All
    independent runs are merged into one.

    Parameters
    ----------
    run : Run
        Of the nested backend.

    Raises
    ------
    InvalidInput
        If the run has no dead points, or anesthetic is not installed.

    Notes
    -----
    W. Handley, *anesthetic*, J. Open Source Softw. 4 (2019), doi:10.21105/joss.01414.
    """
    statistics = run.tree.children.get("weighted_sample_stats")
    if statistics is None or "birth" not in statistics:
        raise InvalidInput("run", "no points with their births", "a run of the nested backend")
    try:
        from anesthetic import NestedSamples
    except ModuleNotFoundError:
        raise InvalidInput("to_anesthetic", "anesthetic is not installed", "anesthetic") from None
    posterior = run.tree["weighted_posterior"]
    names = [f"{site}[{p}]" for site in ("theta_1", "theta_2") for p in posterior.parameter.values]
    both = np.concatenate([posterior["theta_1"].values, posterior["theta_2"].values], axis=1)
    return NestedSamples(
        data=both,
        columns=names,
        logL=statistics["log_likelihood"].values,
        logL_birth=statistics["birth"].values,
    )
