"""Servers that are forked from a process in which everything is loaded already.

PyTorch, and what its exporter loads when it is first used, take a server three seconds of a core,
the same for each. Here one process loads them for all; a fork of it runs what the command runs,
with arguments, an environment and an output of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.e2e.loaded"])


class Forked:
    """`candor` in a process of its own, with the methods of one of `subprocess`.

    Args:
        words: of the command line, after `candor`.
        environment: all of it.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        reading, writing = _context.Pipe(duplex=False)
        with reading, writing:
            arguments = (list(words), dict(environment), writing)
            self._process = _context.Process(target=_run, args=arguments, daemon=True)
            self._process.start()
            self.stdout = os.fdopen(os.dup(reading.fileno()))

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def send_signal(self, signal: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, signal)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended; of a signal that ended it the negative number."""
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            raise TimeoutError(f"it has not ended within {timeout} seconds")
        return status


def _run(words: list[str], environment: dict[str, str], output: Connection) -> None:
    for number in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(output.fileno(), number)
    output.close()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["candor", *words]
    # What imports it has the settings of a server's process: never the tests' own.
    from tests.e2e.loaded import main

    main()
