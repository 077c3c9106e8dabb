"""Heads of requests that say what one said that was read before.

Clients send the same head again and again, but for a few values. Under a load far above what can be
served reading heads is most of what a process does.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple

from service.types import Priority

_END = b"\r\n\r\n"
_MOST = 4096
_LONGEST_BYTES = 2048

_VARIES = re.compile(
    rb"\r\n(content-length|x-request-timeout|x-request-id|traceparent): ?([\x21-\x7e]+)(?=\r)",
    re.IGNORECASE,
)
_REMEMBERED = (b"content-length", b"x-request-timeout", b"x-request-id")
_LENGTH, _TIMEOUT, _NUMBER = _REMEMBERED

_key = secrets.token_bytes(16)


class Facts(NamedTuple):
    """What a head that was read says beside the values that vary.

    Args:
        path: asked for.
        route: that answers it.
        priority: of the request.
        lines: of its answer, beside those that say what the answer is.
    """

    path: str
    route: str
    priority: Priority
    lines: bytes


class Known(NamedTuple):
    """A request of which all has come, by its head.

    Args:
        facts: of all with such a head.
        timeout: that it asks for, as it stands there; None where it asks for none.
        number: the id that it gives itself; None where it gives none.
    """

    facts: Facts
    timeout: bytes | None
    number: bytes | None


class _Pattern(NamedTuple):
    facts: Facts
    values: int
    at: dict[bytes, int]

    def known(self, values: list[bytes], body_bytes: int) -> Known | None:
        """A request by its values; None where its body has another length than it says."""
        facts, count, at = self
        if len(values) != count or values[at[_LENGTH]] != b"%d" % body_bytes:
            return None
        timeout_at, number_at = at.get(_TIMEOUT), at.get(_NUMBER)
        return Known(
            facts,
            None if timeout_at is None else values[timeout_at],
            None if number_at is None else values[number_at],
        )


class KnownHeads:
    """Recognizes them: byte by byte the same as one that the parser has read, but for the length of
    the body, the deadline, and the ids of the request and of its trace.

    So there is nothing that the parser would refuse or take for something else. Of each no more is
    kept than a digest, for there may be a token in it.

    Args:
        longest_bytes: of a head.
    """

    def __init__(self, longest_bytes: int) -> None:
        self._longest_bytes = min(longest_bytes, _LONGEST_BYTES)
        self._patterns: dict[bytes, _Pattern] = {}

    def note(self, data: bytes, headers: Iterable[tuple[bytes, bytes]], facts: Facts) -> None:
        """Remember a head that was read.

        Args:
            data: one request, from its first byte to its last.
            headers: of it, as the parser gave them.
            facts: what it says.
        """
        names = [name for name, _ in headers]
        end = self._end(data)
        if end < 0 or b"\0" in data[:end]:
            return
        if b"transfer-encoding" in names or b"upgrade" in names:
            return
        digest, spelled, values = _parted(data, end)
        varying = [name.lower() for name in spelled]
        # Where one stands twice, or in another form, it depends on the reader which one counts.
        if any(names.count(name) != varying.count(name) for name in _REMEMBERED):
            return
        at = {name: varying.index(name) for name in _REMEMBERED if name in varying}
        if any(varying.count(name) > 1 for name in at) or _LENGTH not in at:
            return
        pattern = _Pattern(facts, len(values), at)
        # Of two that came together this would be the head of one, and the facts of the other.
        if pattern.known(values, len(data) - end - len(_END)) is None:
            return
        if len(self._patterns) >= _MOST:
            self._patterns.clear()
        self._patterns[digest] = pattern

    def _end(self, data: bytes) -> int:
        """Where the head ends; -1 where it does not, or is too long."""
        return data.find(_END, 0, self._longest_bytes + len(_END))

    def read(self, data: bytes) -> Known | None:
        """What came, if it is one request, from its first byte to its last, whose head is known."""
        end = self._end(data)
        if end < 0:
            return None
        digest, _, values = _parted(data, end)
        pattern = self._patterns.get(digest)
        return None if pattern is None else pattern.known(values, len(data) - end - len(_END))


def _parted(data: bytes, end: int) -> tuple[bytes, list[bytes], list[bytes]]:
    """A digest of what does not vary, the names of what does, and its values."""
    parts = _VARIES.split(data[: end + 2])
    values = parts[2::3]
    del parts[2::3]
    digest = hashlib.blake2b(b"\0".join(parts), digest_size=16, key=_key).digest()
    return digest, parts[1::2], values
