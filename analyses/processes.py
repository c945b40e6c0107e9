"""Work in a process of its own, for so long and no longer."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class NoResult(RuntimeError):
    """A process that was stopped, or that died; says which."""


def bounded(work: Callable[..., Any], arguments: tuple, longest: float) -> Any:
    """Return what a function returns in a new process.

    Parameters
    ----------
    work : callable
        Of a module, since the new process imports it.
    arguments : tuple
    longest : float
        Seconds after which the process is stopped.

    Raises
    ------
    NoResult
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments))
    process.start()
    sender.close()  # so that a process that dies is noticed
    try:
        if receiver.poll(longest):
            return receiver.recv()
        raise NoResult(f"stopped after {longest / 60:.0f} minutes")
    except EOFError:
        raise NoResult("no result") from None
    finally:
        process.terminate()
        process.join()


def _send(sender: Connection, work: Callable[..., Any], arguments: tuple) -> None:
    sender.send(work(*arguments))
