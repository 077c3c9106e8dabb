"""The tree of errors is what its drawing says, and every error has its place in HTTP."""

from __future__ import annotations

import re

from service import errors
from service.api.errors import STATUS


def _tree(kind: type[errors.CandorError]) -> dict[str, str]:
    found = {}
    for child in kind.__subclasses__():
        found[child.__name__] = kind.__name__
        found |= _tree(child)
    return found


def test_the_drawing_shows_every_error_below_its_parent() -> None:
    assert errors.__doc__ is not None
    parents: dict[int, str] = {0: "CandorError"}
    drawn = {}
    for line in errors.__doc__.splitlines():
        match = re.match(r"^((?:│   |    )*)[├└]── (\w+)", line)
        if match:
            depth = len(match[1]) // 4
            drawn[match[2]] = parents[depth]
            parents[depth + 1] = match[2]
    assert drawn == _tree(errors.CandorError)


def test_every_error_has_a_status() -> None:
    for name in _tree(errors.CandorError):
        kind = getattr(errors, name)
        assert any(parent in STATUS for parent in kind.__mro__)


def test_an_error_is_found_again_by_its_slug() -> None:
    assert errors.QueueFull.slug() == "queue-full"
    assert errors.error_class("no-stochastic-site") is errors.NoStochasticSite
    assert errors.error_class("something-else") is errors.CandorError
