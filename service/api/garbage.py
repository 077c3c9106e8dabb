"""When Python looks for garbage: what refers to itself in circles, and is not freed at once."""

from __future__ import annotations

import gc

_NEW_OBJECTS = 10_000
_LOOKS_BEFORE_OLDER = (20, 50)


def look_rarely() -> None:
    """Have it look after ten thousand new objects, not seven hundred.

    Answered or refused, a request leaves none (`tests/api/test_garbage.py`), and those that wait
    are looked through in vain: under much more load than can be served that took an eighth of the
    time of a process that speaks HTTP.
    """
    gc.set_threshold(_NEW_OBJECTS, *_LOOKS_BEFORE_OLDER)
