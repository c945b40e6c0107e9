"""Problems with a two-headed network: what the worlds have in common."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.tree_util import Partial
from jaxtyping import Array, Float

from generative import networks
from generative.errors import InvalidInput
from generative.labelling import Cases, LabelledSets, compare_answers, split_cases
from generative.model import TwoStageModel
from generative.problems.problem import Problem
from generative.stage import Stage
from generative.stages import GaussianStage, LaplaceStage
from generative.values import as_jax, require_kind

# One for every parameter and hidden unit; what convergence is judged on hardly needs them beyond.
_MOST_SIGNS = 10_000_000


@dataclass(frozen=True)
class TwoHeaded:
    """Options of a problem about questions with two labelling processes.

    Parameters
    ----------
    num_small : int
        Size of the small set, where both processes agree; it defines C, the mean over the set of
        the squared Hellinger distance between the heads' answers.
    corrected_fraction : float
        Cases where the complex process corrects the simple one, relative to the small set; both
        together are the large set, which defines L.
    num_held_out : int
        Held-out cases of each kind, at most.
    num_errors : int
        Wrong labels.
    predictable_errors : bool
        Whether they are the human's own errors in additional cases, unnoticed by the complex
        process and predicted by a model of the human; or labels flipped at random.
    num_unclear : int
        Additional cases in the large set that judges are divided about.
    evidence : {"labels", "comparisons", "both"}
        What L is of: labels by majority; confident comparisons of "yes" with "no"; or labels on the
        small set and comparisons on the rest of the large one.
    beta : float
        Rationality of whoever compares. A comparison is explained by the first head's own log
        probabilities u of both answers, as sigmoid(beta (u_a - u_b)).
    confidence : float
        Probability of the likelier choice from which a comparison is used.
    scene, human, hidden : int
        Sizes of the world model's scene and human part and of the intended head.
    first_head : {"intended", "instrumental"}
        Which head has the labels; the other one only agrees.
    setting : {"uniform", "split", "intended-fixed"}
        Which parameters move in which stage.
    stage : {"gaussian", "laplace"}
    first_scale, second_scale : float
        Standard deviation of both stages for a parameter with one input.
    strength_per_question : float
        lambda / size of the small set, nats per unit of squared Hellinger distance in one question.
    seed : int
        Of the split into data sets and the comparisons; in `jevons` also of thresholds, judges and
        sensors, and in `room` of the videos.
    """

    num_small: int = 50
    corrected_fraction: float = 0.1
    num_held_out: int = 60
    num_errors: int = 0
    predictable_errors: bool = True
    num_unclear: int = 0
    evidence: Literal["labels", "comparisons", "both"] = "labels"
    beta: float = 1.0
    confidence: float = 0.85
    scene: int = 4
    human: int = 2
    hidden: int = 3
    first_head: Literal["intended", "instrumental"] = "intended"
    setting: networks.Setting = "uniform"
    stage: Literal["gaussian", "laplace"] = "gaussian"
    first_scale: float = 0.5
    second_scale: float = 2.0
    strength_per_question: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            require_kind(field.name, getattr(self, field.name), field.type)

    def build(self) -> Problem:
        """Build the problem.

        Raises
        ------
        InvalidInput
            If an option cannot be used.
        """
        raise NotImplementedError

    def build_from(
        self,
        name: str,
        description: str,
        cases: Cases,
        pictures: Callable[[np.ndarray], np.ndarray] | None = None,
        hypothetical: Cases | None = None,
    ) -> Problem:
        """Build the problem from a world's cases, which is what `build` of every world ends with.

        Parameters
        ----------
        name, description : str
            Of the problem, the latter in one line.
        cases : Cases
            From which the small, the large and the held-out sets are drawn.
        pictures : callable, optional
            From inputs to grey levels in [0, 1], shape (question, height, width).
        hypothetical : Cases, optional
            From which corrected cases are drawn instead.

        Raises
        ------
        InvalidInput
            If there are too few cases.
        """
        sets = split_cases(
            cases,
            self.num_small,
            self.corrected_fraction,
            self.num_held_out,
            self.seed,
            hypothetical=hypothetical,
            num_errors=self.num_errors,
            predictable=self.predictable_errors,
            num_unclear=self.num_unclear,
        )
        shown = {"small": sets.small, "large": sets.large}
        # A world need not have cases of all kinds.
        shown |= {f"held_out_{kind}": cases for kind, cases in sets.held_out.items() if len(cases)}
        model = self._model(sets, shown)
        return Problem(
            name,
            model,
            description=description,
            pictures={n: pictures(c.inputs) for n, c in shown.items()} if pictures else {},
        )

    def _model(self, sets: LabelledSets, shown: dict[str, Cases]) -> TwoStageModel:
        small = as_jax(sets.small.inputs)
        network = networks.TwoHeadedNetwork.zeros(
            small.shape[1], self.scene, self.human, self.hidden
        )
        answers, inputs = self._data(sets)
        is_swapped = self.first_head == "instrumental"
        first_stage, second_stage = self._stages(network)
        return TwoStageModel(
            theta_0=network,
            first_stage=first_stage,
            second_stage=second_stage,
            residuals=Partial(_residuals, small),
            agreement_strength=self.strength_per_question * len(small),
            observation=Partial(_observation, is_swapped),
            data={"answers": answers},
            inputs=inputs,
            heads=Partial(_heads, is_swapped),
            questions={name: as_jax(cases.inputs) for name, cases in shown.items()},
            labels={name: cases.alice_label for name, cases in shown.items()},
            columns={name: cases.columns() for name, cases in shown.items()},
            reflections=self._reflections(network),
        )

    def _reflections(self, network: networks.TwoHeadedNetwork) -> list[networks.TwoHeadedNetwork]:
        size = sum(leaf.size for leaf in jax.tree.leaves(network))
        is_small = size * (self.scene + self.human + self.hidden) <= _MOST_SIGNS
        return network.reflections() if is_small else []

    def _data(self, sets: LabelledSets) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Answers that were observed, and their questions with the answerer's rationality."""
        large = sets.large
        answers, rationality = large.majority_label, np.ones(len(large))
        used = np.arange(len(large))
        if self.evidence != "labels":
            compared = compare_answers(large, self.beta, self.confidence, self.seed)
            is_labelled = (used < len(sets.small)) & (self.evidence == "both")
            answers = answers.copy()
            chosen = ~is_labelled[compared.question]
            answers[compared.question[chosen]] = compared.prefers_yes[chosen]
            rationality = np.where(is_labelled, 1.0, self.beta)
            used = np.flatnonzero(is_labelled | np.isin(used, compared.question))
            if not len(used):
                raise InvalidInput("confidence", self.confidence, "one that some comparison has")
        return answers[used], (large.inputs[used], rationality[used])

    def _stages(self, network: networks.TwoHeadedNetwork) -> tuple[Stage, Stage]:
        scales = networks.stage_scales(network, self.first_scale, self.second_scale, self.setting)
        if self.stage == "gaussian":
            return GaussianStage(scales[0]), GaussianStage(scales[1])
        # Equal variance: a Laplace scale is its standard deviation over sqrt(2).
        first, second = (LaplaceStage(networks.rescale(s, 0.5**0.5)) for s in scales)
        return first, second


# Arrays and options as arguments: problems of equal shapes then share all programs.
def _residuals(
    questions: Float[Array, "n in"], network: networks.TwoHeadedNetwork
) -> Float[Array, " 2*n"]:
    return networks.hellinger_residuals(network, questions)


def _heads(
    is_swapped: bool, network: networks.TwoHeadedNetwork, questions: Float[Array, "n in"]
) -> Float[Array, "2 n"]:
    answers = networks.heads(network, questions)
    return answers[::-1] if is_swapped else answers


def _observation(
    is_swapped: bool, network: networks.TwoHeadedNetwork, inputs: tuple[Array, Array]
) -> None:
    questions, rationality = inputs
    first = networks.logits(network, questions)[1 if is_swapped else 0]
    numpyro.sample("answers", dist.Bernoulli(logits=rationality * first))
