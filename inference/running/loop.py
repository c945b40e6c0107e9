"""The one loop: chunks of iterations, progress, checkpoints, and a stop on non-finite states."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree

from inference.running.progress import SILENT, Monitor

_CHUNK, _MAX_NUMBERS = 100, 2**24


class NonFiniteState(RuntimeError):
    """A chain's log density was NaN or infinite."""


class Loop:
    """Runs one transition kernel, compiled once for its structure, for any number of iterations.

    Parameters
    ----------
    step : Partial
        state -> state, for all chains at once; the arrays that it was given are arguments of the
        program, and the function at its heart must be one and the same for equal programs.
    collect : Partial
        state -> {name: array of shape (chain, ...)}; `lp` must be among them.
    thinning : int
        Steps per collected draw.
    monitor : Monitor
    describe : callable, optional
        state -> str, shown beside the bar.
    check : callable, optional
        (values of shape (iteration, chain, ...), iterations before them, label); raises
        NonFiniteState in place of the check of `lp`.
    """

    def __init__(
        self,
        step: Partial,
        collect: Partial,
        thinning: int = 1,
        monitor: Monitor = SILENT,
        describe: Callable[[PyTree], str] | None = None,
        check: Callable[[dict[str, np.ndarray], int, str], None] | None = None,
    ):
        self._step, self._collect = step, collect
        self._check = check or _check_density
        self._describe = describe or (lambda state: "")
        self._monitor = monitor
        self.seconds = 0.0  # wall time of the last run
        self.thinning = thinning

    def run(
        self, state: PyTree, num_iterations: int, label: str
    ) -> tuple[PyTree, dict[str, np.ndarray]]:
        """Advance all chains.

        Returns
        -------
        state : pytree
        draws : dict
            Collected values, shape (chain, iteration, ...).

        Raises
        ------
        NonFiniteState
            If the log joint density of a chain became NaN or infinite.
        """
        started = time.perf_counter()
        section = self._monitor.section(label)
        chunks, done = [], section.count
        shapes = jax.eval_shape(self._collect, state)
        state, values = section.restore((state, dict.fromkeys(shapes, np.zeros(0))))
        if done:
            chunks.append(values)
        with self._monitor.bar(num_iterations, label, "draw", done) as bar:
            while done < num_iterations:
                length = min(_chunk(shapes), num_iterations - done)
                numbers = map(np.asarray, (length, self.thinning))
                state, buffer = _run_chunk(self._step, self._collect, state, *numbers)
                chunk = {name: np.asarray(value[:length]) for name, value in buffer.items()}
                self._check(chunk, done, label)
                chunks.append(chunk)
                done += length
                bar.update(length)
                bar.set_postfix_str(self._describe(state))
                if done == num_iterations or section.is_due:
                    chunks = [_joined(chunks)]
                    section.save((state, chunks[0]), done)
        self.seconds = time.perf_counter() - started
        joined = _joined(chunks) if chunks else {}
        return state, {name: np.swapaxes(value, 0, 1) for name, value in joined.items()}


@jax.jit
def _run_chunk(
    step: Partial, collect: Partial, state: PyTree, length: jax.Array, thinning: jax.Array
) -> tuple[PyTree, PyTree]:
    def body(index: jax.Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        state, buffer = carry
        state = jax.lax.fori_loop(0, thinning, lambda _, s: step(s), state)
        values = collect(state)
        return state, jax.tree.map(lambda b, v: b.at[index].set(v), buffer, values)

    shapes = jax.eval_shape(collect, state)
    size = _chunk(shapes)
    buffer = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), shapes)
    # Lengths are traced, so that a short last chunk compiles nothing anew.
    return jax.lax.fori_loop(0, length, body, (state, buffer))


def _check_density(values: dict[str, np.ndarray], done: int, label: str) -> None:
    lp = values["lp"]
    bad = np.argwhere(~np.isfinite(lp))
    if len(bad):
        iteration, chain = bad[0]
        raise NonFiniteState(
            f"chain {chain} has log density {lp[iteration, chain]} at {label} iteration "
            f"{done + iteration + 1}: check that C and L are finite wherever the prior reaches"
        )


def _joined(chunks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _chunk(shapes: PyTree) -> int:
    """Return how many draws the buffer holds."""
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    return max(1, min(_CHUNK, _MAX_NUMBERS // size))
