"""Thermodynamic integration: the mean of an energy, integrated over a ladder of powers."""

import numpy as np


def hermite(powers: np.ndarray, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Integrate with Hermite's cubic: a mean's slope is the variance, up to the energy's sign.

    N. Friel, M. Hurn and J. Wyse, Stat. Comput. 24 (2014), doi:10.1007/s11222-013-9397-1.

    Parameters
    ----------
    powers, means, variances : arrays, shape (..., p)
        Means of the derivative of log Z, nats, which increase with the power.

    Returns
    -------
    array, shape (...,)
        Nats, from the first power to the last.
    """
    steps = np.diff(powers, axis=-1)
    trapezoids = 0.5 * steps * (means[..., 1:] + means[..., :-1])
    parts = trapezoids - steps**2 / 12 * np.diff(variances, axis=-1)
    return np.asarray(np.sum(parts, axis=-1))
