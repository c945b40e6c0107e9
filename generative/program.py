"""The generative process as a NumPyro program."""

import numpyro

from generative.agreement import AgreementConditioned
from generative.model import TwoStageModel


def two_stage(model: TwoStageModel) -> None:
    """theta_1 around theta_0, theta_2 around theta_1 given agreement, data from theta_2.

    Parameters
    ----------
    model : TwoStageModel

    Notes
    -----
    ``MCMC(NUTS(two_stage), ...).run(key, model)`` works where log Z(theta_1) has a closed form.
    ``Predictive(two_stage, num_samples=n)(key, model)`` draws from the two-stage prior exactly.
    """
    theta_1 = numpyro.sample("theta_1", model.first_stage.around(model.theta_0))
    theta_2 = numpyro.sample(
        "theta_2", AgreementConditioned(model.second_stage.around(theta_1), model.agreement)
    )
    model.observe(theta_2)
