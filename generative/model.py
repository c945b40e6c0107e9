"""The two-stage model: two stages, an agreement, and data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, ArrayLike, Float, Int, Int8, PyTree
from numpyro import handlers

from generative.agreement import Agreement
from generative.errors import InvalidInput
from generative.observation import Observation
from generative.parameters import ParameterSpace
from generative.parts import Column, Data, Mask, Named, Parts
from generative.questions import check_mappings, check_questions
from generative.reflections import signs_of
from generative.stage import Stage
from generative.user_code import blame, require_callable, require_scalar
from generative.values import require_mapping


class TwoStageModel(Data):
    """theta_1 around theta_0; theta_2 around theta_1 given agreement; data from theta_2.

    Parameters
    ----------
    theta_0 : pytree of float arrays
        The initialisation; d numbers when ravelled.
    first_stage, second_stage : Stage
        Where theta_1 and theta_2 come from. A scale of 0 fixes a block in that stage.
    disagreement : callable, optional
        C(theta) >= 0 of one theta, scalar. Give this or `residuals`.
    residuals : callable or LinearResiduals, optional
        r(theta) of one theta, shape (m,), with C = |r|^2 / 2 (say in its docstring whether that
        is a mean or a sum over questions). Residuals let Gauss-Newton algebra help; linear
        ones under a Gaussian second stage give closed forms.
    agreement_strength : float
        lambda >= 0, nats per unit of C.
    log_likelihood : callable, optional
        L(theta) of one theta, nats, scalar. Give this or `observation`, or neither (null data).
    observation : callable, optional
        A NumPyro program of one theta, and of the inputs if there are any, whose sample sites are
        the data.
    data : mapping from site name to array, optional
        Observed values of the sites of `observation`.
    inputs : pytree, optional
        One entry per answer along the leading axes; then `observation` is called with
        (theta, inputs), and its answers, independent given theta, can be had in mini-batches.
    heads : callable, optional
        (theta, inputs) -> array of shape (2, question, ...): what the first and the second head
        answer. Functionals, predictions and convergence in function space follow from it. Needs
        `questions`.
    questions : mapping from name to inputs, optional
        Sets of inputs whose answers are kept with every run.
    labels : mapping from name to array, optional
        True answers of sets in `questions`, 0 or 1, to tell how often each head is right; an answer
        is one number then, the probability of yes.
    columns : mapping from name to columns, optional
        What else is known about each question of a set, one array per column, such as `bob_label`,
        the human's answer; kept with every run.
    reflections : iterable of pytrees like theta_0, or array of shape (g, d), optional
        Changes of signs, 1 or -1, each of which leaves both stages, C, L and answers as they are
        if it is made in theta_1 and theta_2: those of all weights of a hidden unit of tanh, say.
        theta_0 must be 0 there. Chains then need not go from one of these modes to the other.

    Raises
    ------
    InvalidInput
        If a value cannot be used; nothing has been compiled then.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from generative import GaussianStage
    >>> model = TwoStageModel(
    ...     theta_0={"intended": jnp.zeros(1), "instrumental": jnp.zeros(1)},
    ...     first_stage=GaussianStage(1.0),
    ...     second_stage=GaussianStage(0.5),
    ...     disagreement=lambda t: jnp.sum((t["intended"] - t["instrumental"]) ** 2),
    ...     agreement_strength=20.0,
    ...     log_likelihood=lambda t: -2.0 * (t["intended"][0] - 1.0) ** 2,
    ... )
    >>> model.space.names
    ['instrumental[0]', 'intended[0]']
    >>> float(model.agreement.disagreement(jnp.array([1.0, 3.0])))
    4.0
    """

    space: ParameterSpace
    first_stage: Stage
    second_stage: Stage
    agreement: Agreement
    observation: Observation | None
    _log_likelihood: Parts | None
    _power: Float[Array, ""] | None
    _ignores_data: bool = eqx.field(static=True)
    _heads: Parts | None
    _questions: Named
    _labels: Named
    _columns: Named
    _reflected: Mask

    def __init__(
        self,
        theta_0: PyTree,
        first_stage: Stage,
        second_stage: Stage,
        *,
        disagreement: Callable[[PyTree], Array] | None = None,
        residuals: Callable[[PyTree], Array] | None = None,
        agreement_strength: float = 1.0,
        log_likelihood: Callable[[PyTree], Array] | None = None,
        observation: Callable[..., Any] | None = None,
        data: Mapping[str, ArrayLike | Sequence] | None = None,
        inputs: PyTree = None,
        heads: Callable[[PyTree, Any], Array] | None = None,
        questions: Mapping[str, Any] | None = None,
        labels: Mapping[str, ArrayLike | Sequence] | None = None,
        columns: Mapping[str, Mapping[str, ArrayLike | Sequence]] | None = None,
        reflections: Iterable[PyTree] = (),
    ):
        self.space = ParameterSpace(theta_0)
        self.first_stage = _bound(first_stage, self.space, "first_stage")
        self.second_stage = _bound(second_stage, self.space, "second_stage")
        self.agreement = Agreement(
            self.space, self.second_stage, disagreement, residuals, agreement_strength
        )
        if log_likelihood is not None and observation is not None:
            raise InvalidInput(
                "log_likelihood", "observation as well", "one of log_likelihood and observation"
            )
        if observation is None and (data or inputs is not None):
            found = f"sites {sorted(data)}" if data else "inputs"
            raise InvalidInput("data", found, "none without observation")
        self.observation = None
        if observation is not None:
            require_callable("observation", observation, "theta -> NumPyro sample statements")
            require_mapping("data", data or {})
            self.observation = Observation(observation, data or {}, inputs)
        self._log_likelihood = None if log_likelihood is None else Parts(log_likelihood)
        self._power, self._ignores_data = None, False
        check_mappings(questions, labels, columns)
        self._heads = None if heads is None else Parts(heads)
        self._questions = Named(questions or {}, Parts)
        self._labels = Named(labels or {}, Column)
        self._columns = Named(columns or {}, lambda given: Named(given, Column))
        signs = signs_of(reflections, self.space)
        if (signs < 0)[:, (np.asarray(self.space.origin) != 0)].any():
            raise InvalidInput("reflections", "a change of sign where theta_0 is not 0", "none")
        self._reflected = Mask((signs < 0).ravel())
        self._check_data()

    @property
    def theta_0(self) -> PyTree:
        """The initialisation of the network."""
        return self.space.theta_0

    @property
    def heads(self) -> Callable[[PyTree, Any], Array] | None:
        """What both heads answer, of a theta and inputs; None if that is not known."""
        return None if self._heads is None else self._heads.whole

    @property
    def questions(self) -> dict[str, Any]:
        """Inputs of every set of questions."""
        return {name: inputs.whole for name, inputs in self._questions.items()}

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """True answers of sets of questions, shape (question,)."""
        return {name: label.values for name, label in self._labels.items()}

    @property
    def labelled(self) -> tuple[str, ...]:
        """Names of the sets with labels."""
        return self._labels.names

    @property
    def columns(self) -> dict[str, dict[str, np.ndarray]]:
        """What else is known about each question of a set, by set and column."""
        return {
            name: {column: values.values for column, values in given.items()}
            for name, given in self._columns.items()
        }

    @property
    def reflections(self) -> Int8[np.ndarray, "g d"]:
        """Changes of signs that leave the model as it is, 1 or -1; none where g is 0."""
        return 1 - 2 * self._reflected.values.reshape(-1, self.dimension).astype(np.int8)

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.space.dimension

    @property
    def data(self) -> dict[str, Array]:
        """Observed values of the sites of `observation`."""
        return {} if self.observation is None else self.observation.data

    @property
    def num_answers(self) -> int | None:
        """Number of answers that mini-batches are drawn from; None if they cannot be."""
        if self.observation is None or not self.data:
            return None
        return self.observation.num_answers

    @property
    def is_null(self) -> bool:
        """Whether there is no data, so that L = 0."""
        return self._log_likelihood is None and not self.data

    @property
    def moving_1(self) -> np.ndarray:
        """Mask of the coordinates of theta_1 that are not constants, shape (d,)."""
        return self.first_stage.free

    @property
    def moving_2(self) -> np.ndarray:
        """Mask of the coordinates of theta_2 that are not those of theta_1, shape (d,)."""
        return self.second_stage.free

    def disagreement(self, theta: PyTree) -> Float[Array, ""]:
        """C of one theta, a pytree or a vector of shape (d,)."""
        return self.agreement.disagreement(self.space.vector(theta))

    def log_likelihood(self, theta: PyTree) -> Float[Array, ""]:
        """L of one theta, a pytree or a vector of shape (d,), nats."""
        if self._log_likelihood is not None:
            return self._tempered(self._log_likelihood.whole, theta)
        if self.observation is None or not self.data:
            return jnp.zeros((), self.space.origin.dtype)
        return self._tempered(self.observation.log_likelihood, theta)

    def batch_log_likelihood(self, theta: PyTree, chosen: Int[Array, " n"]) -> Float[Array, ""]:
        """L of one theta estimated from some of the answers, scaled to all of them, nats."""
        assert self.observation is not None  # as all that has a number of answers
        estimate = self.observation.batch_log_likelihood
        return self._tempered(lambda t: estimate(t, chosen), theta)

    def _tempered(self, log_likelihood: Callable[[PyTree], Array], theta: PyTree) -> Array:
        dtype = self.space.origin.dtype
        if self._ignores_data:
            return jnp.zeros((), dtype)
        theta = self.space.unravel(self.space.vector(theta))
        return self.tempered(jnp.asarray(log_likelihood(theta), dtype))

    def tempered(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return what values of L of the whole model, nats, are at this model's power."""
        if self._ignores_data:
            return jnp.zeros_like(value)
        if self._power is None:
            return value
        # L may be -infinity, which power 0 must make 0.
        return self._power * jnp.where(self._power > 0, value, 0)

    def shard_data(self, sharding: jax.sharding.Sharding) -> "TwoStageModel":
        """Return this model with its answers laid out over devices, along their leading axis."""
        assert self.observation is not None  # as all that has answers
        return self._with(observation=self.observation.shard(sharding))

    def temper(self, power: Float[ArrayLike, ""]) -> "TwoStageModel":
        """Return this model with L multiplied by a power, which may be traced.

        At power 0 the posterior is the two-stage prior. `answer_log_likelihood` stays as it is.
        """
        if isinstance(power, float) and power == 0:
            return self._with(_ignores_data=True)
        return self._with(_power=jnp.asarray(power, self.space.origin.dtype), _ignores_data=False)

    def _with(self, **changes: Any) -> "TwoStageModel":
        """Return a copy with some fields changed, which needs no checks."""
        copy = object.__new__(TwoStageModel)
        for field in fields(self):
            object.__setattr__(copy, field.name, changes.get(field.name, getattr(self, field.name)))
        return copy

    def answer_log_likelihood(self, theta: PyTree) -> dict[str, Array]:
        """Log likelihood of each observed answer, by site, nats; empty for a bare L."""
        if self.observation is None or not self.data:
            return {}
        return self.observation.answer_log_likelihood(self.space.unravel(self.space.vector(theta)))

    def observe(self, theta_2: Float[Array | np.ndarray, " d"]) -> None:
        """Make the data's sample statements, given theta_2 (part of :func:`two_stage`)."""
        if not self.moving_2.all():
            # The support of theta_2 moves with theta_1 then; a deterministic site makes NumPyro
            # replay the program instead of reusing the support of the first trace.
            numpyro.deterministic("theta_2_fixed", theta_2[..., ~self.moving_2])
        if self._log_likelihood is not None:
            # A function that runs a program of its own would leave that one's sites in this.
            with handlers.block():
                value = self.log_likelihood(theta_2)
            numpyro.factor("log_likelihood", value)
        elif self.observation is not None:
            self.observation(self.space.unravel(theta_2))

    def answers(self, theta: PyTree, inputs: Any) -> Array:
        """Both heads' answers of one theta, shape (2, question, ...).

        Raises
        ------
        InvalidInput
            If the model was given no `heads`.
        """
        if self.heads is None:
            raise InvalidInput("heads", "None", "a callable (theta, inputs) -> (2, question, ...)")
        return self.heads(self.space.unravel(self.space.vector(theta)), inputs)

    def replace(self, **changes: Any) -> "TwoStageModel":
        """Return a copy with some constructor arguments changed.

        Without its `observation` a model has no `data` or `inputs` either. A power of L, and the
        layout of data over devices, are not kept.

        Raises
        ------
        InvalidInput
            If there is no such argument, or its value cannot be used.
        """
        arguments = {
            "theta_0": self.theta_0,
            "first_stage": self.first_stage,
            "second_stage": self.second_stage,
            "disagreement": self.agreement.given.get("disagreement"),
            "residuals": self.agreement.given.get("residuals"),
            "agreement_strength": float(self.agreement.strength),
            "log_likelihood": self._log_likelihood and self._log_likelihood.whole,
            "observation": None if self.observation is None else self.observation.program,
            "data": self.data,
            "inputs": None if self.observation is None else self.observation.inputs,
            "heads": self.heads,
            "questions": self.questions,
            "labels": self.labels,
            "columns": self.columns,
            "reflections": self.reflections,
        }
        for name in changes.keys() - arguments.keys():
            raise InvalidInput(name, "an unknown argument", ", ".join(arguments))
        if changes.get("observation", self.observation) is None:
            arguments |= {"data": None, "inputs": None}
        return TwoStageModel(**(arguments | changes))

    def _check_data(self) -> None:
        if self._log_likelihood is not None:
            given = self._log_likelihood.whole
            require_callable("log_likelihood", given, "theta -> nats, a scalar")
            require_scalar("log_likelihood", given, self.theta_0)
        sites: set[str] = set()
        if self.observation is not None:
            with blame("observation", "a NumPyro program of theta, and of inputs where given"):
                sites = self.observation.check(self.theta_0)
        check_questions(self, sites)
        name = "observation" if self._log_likelihood is None else "log_likelihood"
        with blame(name, "a function of theta"):
            value = np.asarray(_log_likelihood(self, self.space.origin))
        if np.isnan(value):
            raise InvalidInput("log_likelihood", "NaN at theta_0", "a number of nats")


_log_likelihood = jax.jit(TwoStageModel.log_likelihood)


def _bound(stage: Stage, space: ParameterSpace, name: str) -> Stage:
    if not isinstance(stage, Stage) or type(stage) is Stage:
        raise InvalidInput(name, type(stage).__name__, "a stage, such as GaussianStage(1.0)")
    return stage.bind(space, f"{name}.scale")
