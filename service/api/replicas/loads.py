"""The loads of a replica, by what doors know of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from service.api.workers.messages import write_model
from service.registry.loading import LoadedModel
from service.registry.registry import Registry

HELD_S = 5.0
"""What serves no more is held so long after a door last asked for it: a door asked which version
serves, and sends what that one is to compute."""


@dataclass(slots=True)
class _Held:
    model: LoadedModel
    asked_s: float


class Loads:
    """Versions of this process, by a digest of all that a door knows of one.

    Two replicas that loaded the same give it the same digest, and may each answer for the other.

    Args:
        registry: of this process.
        clock: in seconds.
    """

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._known: dict[int, tuple[str, str]] = {}

    def note(self, model: LoadedModel) -> tuple[str, str]:
        """The digest of a version that serves, and all that a door has to know of it."""
        known = self._known.get(model.generation)
        if known is None:
            written = write_model(model)
            known = self._known[model.generation] = _digest(written), written
        self._held[known[0]] = _Held(model, self._clock())
        return known

    def look(self) -> None:
        """Note all that serves now, before something else takes its place."""
        for model in self._serving():
            if model.generation not in self._known:
                self.note(model)

    def find(self, digest: str) -> LoadedModel | None:
        """The version of that digest; None where this process has none."""
        held = self._held.get(digest)
        if held is None:
            self.look()
            held = self._held.get(digest)
        if held is None:
            return None
        held.asked_s = self._clock()
        return held.model

    def hold(self) -> None:
        """Keep all for a while more, as if it had been asked for."""
        for held in self._held.values():
            held.asked_s = self._clock()

    def let_go(self) -> None:
        """Versions that serve no more and that nobody asked for lately may leave the memory."""
        serving = {model.generation for model in self._serving()}
        until_s = self._clock() - HELD_S
        for digest, held in [*self._held.items()]:
            if held.model.generation not in serving and held.asked_s < until_s:
                del self._held[digest]
        kept = serving | {held.model.generation for held in self._held.values()}
        self._known = {number: own for number, own in self._known.items() if number in kept}

    def _serving(self) -> list[LoadedModel]:
        return [
            version.model
            for model in self._registry.models()
            for version in [*model.versions.values()]
            if version.model is not None
        ]


def _digest(written: str) -> str:
    """Without which of its process's loads it is: another's number of the same is another."""
    content = orjson.loads(written)
    del content["generation"]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
