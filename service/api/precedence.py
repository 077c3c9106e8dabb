"""While requests are refused, computing goes before refusing."""

from __future__ import annotations

import asyncio
import sys
import time

_SWITCH_S = 0.00002
"""After which a thread that runs Python has to let another on."""

_LASTS_S = 1.0


class Precedence:
    """Has the engine get the interpreter's lock at once while requests are refused.

    The engine asks for it after every operation of torch. An event loop that has nothing but
    refusals to write does not pause, and would keep it for Python's usual five milliseconds each
    time: the more were refused, the fewer were answered. It is not always so because then a
    loop that is hardly busy would be interrupted for nothing.
    """

    def __init__(self) -> None:
        self._usual_s: float | None = None
        self._refused_s = 0.0

    def refused(self) -> None:
        """A request was; call from the event loop."""
        self._refused_s = time.monotonic()
        if self._usual_s is None:
            self._usual_s = sys.getswitchinterval()
            sys.setswitchinterval(_SWITCH_S)
            asyncio.get_running_loop().call_later(_LASTS_S, self._look)

    def _look(self) -> None:
        left_s = self._refused_s + _LASTS_S - time.monotonic()
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._look)
        elif self._usual_s is not None:
            sys.setswitchinterval(self._usual_s)
            self._usual_s = None
