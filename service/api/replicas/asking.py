"""What a process asks of others, whatever carries the question."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol


class ReplicaLost(Exception):
    """Whoever was asked has died, or cannot be reached; whether it began is not known."""


class Others(Protocol):
    """Processes of one kind, of which any may answer."""

    async def ask(self, method: str, *arguments: Any) -> Any:
        """What one of them answers.

        Waits until one can be asked. Cancelled, it cancels what was asked.

        Raises:
            ReplicaLost: it died before it answered.
            QueueFull: too much waits for them.
        """
        ...

    def follow(self, method: str, *arguments: Any) -> AsyncIterator[Any]:
        """The parts of what one of them answers, as they come; raises as `ask` does."""
        ...
