"""The same data under other generative assumptions, for comparisons of evidence."""

from typing import Literal, get_args

from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from generative.errors import InvalidInput
from generative.model import TwoStageModel

Setup = Literal["two-stages", "one-stage", "z-omitted"]


def check_setup(setup: str) -> None:
    """Refuse an unknown set-up.

    Raises
    ------
    InvalidInput
    """
    if setup not in get_args(Setup):
        raise InvalidInput("setup", repr(setup), ", ".join(get_args(Setup)))


def set_up(model: TwoStageModel, setup: Setup) -> TwoStageModel:
    """Return a model of the same data under another set-up.

    Parameters
    ----------
    model : TwoStageModel
    setup : {"two-stages", "one-stage", "z-omitted"}
        `two-stages` is the model itself. `one-stage` never asks the heads to agree (lambda = 0), so
        that theta_2 is theta_1 and one more step. `z-omitted` is a mistake with a name: agreement
        as a likelihood, exp(L - lambda C), which leaves out -log Z(theta_1). Its evidence is no
        probability of the data, and lies below that of `one-stage`.

    Raises
    ------
    InvalidInput
        If the set-up is unknown.
    """
    check_setup(setup)
    if setup == "two-stages":
        return model
    if setup == "one-stage":
        return model.replace(agreement_strength=0.0)
    penalised = Partial(_penalised, model)
    return model.replace(agreement_strength=0.0, log_likelihood=penalised, observation=None)


def _penalised(model: TwoStageModel, theta: PyTree) -> Array:
    return model.log_likelihood(theta) + model.agreement.log_factor(model.space.vector(theta))
