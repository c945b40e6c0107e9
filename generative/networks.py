"""A network with a world model and two heads that answer from it."""

from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from generative.errors import InvalidInput
from generative.values import as_jax

Setting = Literal["uniform", "split", "intended-fixed"]


class WorldModel(eqx.Module):
    """What happened (`scene`), and how a human would see it (`human`)."""

    scene: eqx.nn.Linear
    human: eqx.nn.Linear

    def __call__(self, x: Float[Array, " in"]) -> tuple[Array, Array]:
        """Return features of the scene and of the human's view of it."""
        scene = jnp.tanh(self.scene(x))
        return scene, jnp.tanh(self.human(scene))


class IntendedHead(eqx.Module):
    """Translate the scene itself into an answer; the costlier head."""

    hidden: eqx.nn.Linear
    answer: eqx.nn.Linear

    def __call__(self, scene: Float[Array, " h"]) -> Float[Array, ""]:
        """Logit of the answer yes."""
        return self.answer(jnp.tanh(self.hidden(scene)))[0]


class TwoHeadedNetwork(eqx.Module):
    """World model, intended head and instrumental head, with logits for yes-or-no questions.

    Parameters
    ----------
    world : WorldModel
    intended : IntendedHead
        Reads the scene.
    instrumental : eqx.nn.Linear
        Reads the human part of the world model; the cheaper head.
    """

    world: WorldModel
    intended: IntendedHead
    instrumental: eqx.nn.Linear

    @classmethod
    def zeros(cls, inputs: int, scene: int, human: int, hidden: int) -> "TwoHeadedNetwork":
        """Return the network with all parameters 0, the initialisation theta_0.

        Parameters
        ----------
        inputs, scene, human, hidden : int
            Sizes of the input, the scene, the human part and the intended head's hidden layer.
        """
        sizes = {"inputs": inputs, "scene": scene, "human": human, "hidden": hidden}
        for name, size in sizes.items():
            if size < 1:
                raise InvalidInput(name, size, "an integer >= 1")
        return cls(
            WorldModel(_zeros(inputs, scene), _zeros(scene, human)),
            IntendedHead(_zeros(scene, hidden), _zeros(hidden, 1)),
            _zeros(human, 1),
        )

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, "2"]:
        """Logits of the intended and of the instrumental head, for one input."""
        scene, human = self.world(x)
        return jnp.stack([self.intended(scene), self.instrumental(human)[0]])

    def reflections(self) -> list["TwoHeadedNetwork"]:
        """Changes of signs that leave both heads' answers as they are: one per hidden unit.

        tanh is odd, so that a unit's incoming weights and bias and its outgoing weights may change
        their signs together.
        """
        layers = (self.world.scene, self.world.human, self.intended.hidden)
        sizes = [layer.weight.shape[0] for layer in layers]
        turned = 1 - 2 * np.eye(sum(sizes))
        return [self._signs(*np.split(units, np.cumsum(sizes)[:-1])) for units in turned]

    def _signs(
        self,
        scene: Float[np.ndarray, " s"],
        human: Float[np.ndarray, " h"],
        hidden: Float[np.ndarray, " i"],
    ) -> "TwoHeadedNetwork":
        """Signs of the parameters, given those of the units; input and output keep theirs."""
        world, intended = self.world, self.intended
        inputs, output = np.ones(world.scene.weight.shape[1]), np.ones(1)
        return TwoHeadedNetwork(
            WorldModel(_turned(world.scene, inputs, scene), _turned(world.human, scene, human)),
            IntendedHead(
                _turned(intended.hidden, scene, hidden), _turned(intended.answer, hidden, output)
            ),
            _turned(self.instrumental, human, output),
        )


def _turned(
    layer: eqx.nn.Linear, before: Float[np.ndarray, " in"], after: Float[np.ndarray, " out"]
) -> eqx.nn.Linear:
    """Signs of a layer's parameters, given those of what it reads and of what it makes of it."""
    return eqx.tree_at(lambda t: (t.weight, t.bias), layer, (np.outer(after, before), after))


def _zeros(inputs: int, outputs: int) -> eqx.nn.Linear:
    """Return an affine layer with all parameters 0."""
    layer = jax.eval_shape(lambda: eqx.nn.Linear(inputs, outputs, key=jax.random.key(0)))
    return jax.tree.map(lambda leaf: as_jax(np.zeros(leaf.shape)), layer)


def logits(network: TwoHeadedNetwork, inputs: Float[Array, "n in"]) -> Float[Array, "2 n"]:
    """Both heads' logits on a batch of inputs."""
    return jax.vmap(network, out_axes=1)(inputs)


def heads(network: TwoHeadedNetwork, inputs: Float[Array, "n in"]) -> Float[Array, "2 n"]:
    """Both heads' probabilities of yes on a batch of inputs."""
    return jax.nn.sigmoid(logits(network, inputs))


def roots_of_probabilities(logit: Float[Array, "*n"]) -> tuple[Array, Array]:
    """Square roots of the probabilities of yes and of no.

    With one exponential for both, of an argument that is never positive: nothing overflows, and
    the derivative is that of the root at every logit, 0 included.
    """
    is_likely = logit >= 0
    # Not jnp.abs, whose derivative at 0 is 0.
    odds_root = jnp.exp(-0.5 * jnp.where(is_likely, logit, -logit))
    larger = jax.lax.rsqrt(1 + odds_root**2)
    smaller = odds_root * larger
    return jnp.where(is_likely, larger, smaller), jnp.where(is_likely, smaller, larger)


def hellinger_residuals(
    network: TwoHeadedNetwork, inputs: Float[Array, "n in"]
) -> Float[Array, " 2*n"]:
    """Residuals with |r|^2 / 2 = the *mean* over questions of the squared Hellinger distance.

    The distance is that between the two heads' answer distributions, in [0, 1]. Square roots of
    probabilities are smooth in the logits and make C a sum of squares, as Gauss-Newton wants.
    """
    first, second = map(roots_of_probabilities, logits(network, inputs))
    difference = jnp.concatenate([x - y for x, y in zip(first, second, strict=True)])
    return difference / inputs.shape[0] ** 0.5


def rescale(scales: PyTree, factor: float) -> PyTree:
    """Return all scales times a factor."""
    return jax.tree.map(lambda s: factor * s, scales)


def stage_scales(
    network: TwoHeadedNetwork,
    first: float,
    second: float,
    setting: Setting = "uniform",
) -> tuple[PyTree, PyTree]:
    """Scales per parameter for both stages, `first` and `second` times fan-in^(-1/2).

    Parameters
    ----------
    network : TwoHeadedNetwork
    first, second : float
        Scales of a parameter with one input.
    setting : {"uniform", "split", "intended-fixed"}
        *uniform*: every parameter moves in both stages. *split*: the heads and half of the
        scene's units are drawn in stage 1, the other half and the human part in stage 2.
        *intended-fixed*: as uniform, but the intended head stays as stage 1 drew it, with the
        total scale of both stages.
    """
    if setting not in get_args(Setting):
        raise InvalidInput("setting", repr(setting), " or ".join(get_args(Setting)))

    def by_fan_in(layer: eqx.nn.Linear) -> eqx.nn.Linear:
        # Plain NumPy: scales are constants of the model, not parameters.
        fan_in = layer.weight.shape[1]
        return jax.tree.map(lambda leaf: np.full(leaf.shape, fan_in**-0.5), layer)

    def is_layer(node: object) -> bool:
        return isinstance(node, eqx.nn.Linear)

    base = jax.tree.map(by_fan_in, network, is_leaf=is_layer)
    if setting == "uniform":
        return rescale(base, first), rescale(base, second)
    if setting == "intended-fixed":
        held = jax.tree.map(np.zeros_like, base.intended)
        moving = eqx.tree_at(lambda t: t.intended, base, held)
        # With the scale of stage 1 alone the head would hardly depend on its inputs.
        full = eqx.tree_at(
            lambda t: t.intended,
            rescale(base, first),
            rescale(base.intended, np.hypot(first, second)),
        )
        return full, rescale(moving, second)
    in_first = jax.tree.map(np.ones_like, base)
    units = network.world.scene.weight.shape[0]
    early = np.arange(units) < units / 2
    in_first = eqx.tree_at(
        lambda t: (t.world.scene.weight, t.world.scene.bias, t.world.human),
        in_first,
        (
            in_first.world.scene.weight * early[:, None],
            1.0 * early,
            jax.tree.map(np.zeros_like, in_first.world.human),
        ),
    )
    return (
        jax.tree.map(lambda s, one: first * s * one, base, in_first),
        jax.tree.map(lambda s, one: second * s * (1 - one), base, in_first),
    )
