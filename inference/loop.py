"""The one loop: chunks of iterations, a progress bar, and a stop on non-finite states."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from inference.progress import progress_bar

CHUNK = 100

Step = Callable[[PyTree], PyTree]
Collect = Callable[[PyTree], dict[str, jax.Array]]


class NonFiniteState(RuntimeError):
    """A chain's log density was NaN or infinite."""


class Loop:
    """Runs one transition kernel, compiled once, for any number of iterations.

    Parameters
    ----------
    step : callable
        state -> state, for all chains at once.
    collect : callable
        state -> {name: array of shape (chain, ...)}; `lp` must be among them.
    thinning : int
        Steps per collected draw.
    progress : bool
        Whether to show a progress bar.
    describe : callable, optional
        state -> str, shown beside the bar.
    """

    def __init__(
        self,
        step: Step,
        collect: Collect,
        thinning: int = 1,
        progress: bool = False,
        describe: Callable[[PyTree], str] | None = None,
    ):
        self._describe = describe or (lambda state: "")
        self._progress = progress
        self.seconds = 0.0  # wall time of the last run

        def body(index: jax.Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            state, buffer = carry
            state = jax.lax.fori_loop(0, thinning, lambda _, s: step(s), state)
            values = collect(state)
            return state, jax.tree.map(lambda b, v: b.at[index].set(v), buffer, values)

        @jax.jit
        def run_chunk(state: PyTree, length: jax.Array) -> tuple[PyTree, PyTree]:
            shapes = jax.eval_shape(collect, state)
            buffer = jax.tree.map(lambda x: jnp.zeros((CHUNK, *x.shape), x.dtype), shapes)
            # The length is traced, so that a short last chunk compiles nothing anew.
            return jax.lax.fori_loop(0, length, body, (state, buffer))

        self._run_chunk = run_chunk

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
        chunks: list[dict[str, np.ndarray]] = []
        started = time.perf_counter()
        with progress_bar(num_iterations, label, self._progress, unit="draw") as progress:
            done = 0
            while done < num_iterations:
                length = min(CHUNK, num_iterations - done)
                state, buffer = self._run_chunk(state, jnp.asarray(length))
                chunk = {name: np.asarray(value[:length]) for name, value in buffer.items()}
                self._check(chunk["lp"], done, label)
                chunks.append(chunk)
                done += length
                progress.update(length)
                progress.set_postfix_str(self._describe(state))
        self.seconds = time.perf_counter() - started
        joined: dict[str, Any] = {
            name: np.swapaxes(np.concatenate([chunk[name] for chunk in chunks]), 0, 1)
            for name in (chunks[0] if chunks else {})
        }
        return state, joined

    @staticmethod
    def _check(lp: np.ndarray, done: int, label: str) -> None:
        bad = np.argwhere(~np.isfinite(lp))
        if len(bad):
            iteration, chain = bad[0]
            raise NonFiniteState(
                f"chain {chain} has log density {lp[iteration, chain]} at {label} iteration "
                f"{done + iteration + 1}: check that C and L are finite wherever the prior reaches"
            )
