"""For what happens by itself, and nobody tells of."""

from __future__ import annotations

import time
from collections.abc import Callable

_LOOK_S = 0.05


def wait_for(
    holds: Callable[[], bool],
    patience_s: float = 60.0,
    otherwise: Callable[[], object] = lambda: None,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Returns as soon as something holds.

    Args:
        holds: asked again and again.
        patience_s: seconds after which it fails.
        otherwise: says what there is instead.
        pause: waits so many seconds before it is asked again.
    """
    until_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < until_s, otherwise()
        pause(_LOOK_S)
