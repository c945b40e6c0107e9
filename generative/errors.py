"""Exceptions: one sentence that names the field, what was found and what is allowed."""

from typing import Any


class InvalidInput(ValueError):
    """A value that cannot be used, found before anything was compiled.

    Parameters
    ----------
    field : str
        The name under which the user gave the value.
    found : Any
        What was found there.
    allowed : str
        What is allowed there.
    """

    def __init__(self, field: str, found: Any, allowed: str):
        words = f"{field}: found {found}; allowed: {allowed}"
        super().__init__(" ".join(words.split()))  # arrays print as several lines
        self.field = field


class IntractableNormalizer(NotImplementedError):
    """The normaliser Z(theta_1) has no closed form for this model."""


class AgreementNotReached(RuntimeError):
    """Rejection sampling hit its cap before the heads agreed."""
