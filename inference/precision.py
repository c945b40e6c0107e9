"""Evidences and log normalisers are sums that single precision cannot hold."""

import jax

from generative import InvalidInput


def require_float64(quantity: str) -> None:
    """Refuse to compute `quantity` with 64-bit disabled.

    Raises
    ------
    InvalidInput
        With the sentence that enables it.
    """
    if not jax.config.jax_enable_x64:
        raise InvalidInput(
            "jax_enable_x64",
            "False",
            f"True for {quantity}: call jax.config.update('jax_enable_x64', True) first",
        )
