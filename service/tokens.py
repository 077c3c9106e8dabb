"""Tokens: random words that say who asks and what that may do; settings hold only their hashes.

A token of `make_token` has 256 bits of chance. Nobody finds it by trying, however fast the hash,
so one round of SHA-256 is right: a slow hash guards passwords, which people choose and others
guess, and would cost every request what a prediction does.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SCOPES = {
    "predict": "predictions, selections, models, their reports and metrics",
    "label": "kept samples: reading and labelling them; what models there are",
    "metrics": "/metrics alone",
    "admin": "everything, and alone what changes models or deletes samples",
}

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Token:
    """One of the server's tokens: its name, what it may, and its hash (sha256:...)."""

    name: str
    scopes: tuple[str, ...]
    hash: str

    @classmethod
    def of(cls, value: Any) -> Token:
        """From NAME:SCOPE+SCOPE:HASH, or a table with the keys name, scopes and hash.

        Raises:
            ValueError: it is neither; the message does not hold what may be a token.
        """
        if isinstance(value, Token):
            return value
        if isinstance(value, str):
            name, listed, hashed = (*value.strip().split(":", 2), "", "")[:3]
            return cls._checked(name, listed.split("+"), hashed)
        if not isinstance(value, dict) or value.keys() != {"name", "scopes", "hash"}:
            raise ValueError("a token is a table with name, scopes and hash")
        scopes: Any = value["scopes"]
        if isinstance(scopes, str):
            scopes = scopes.split("+")
        if not isinstance(scopes, list | tuple):
            scopes = [scopes]
        return cls._checked(value["name"], scopes, value["hash"])

    @classmethod
    def _checked(cls, name: Any, scopes: Sequence[Any], hashed: Any) -> Token:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                "each token is NAME:SCOPES:HASH, its name made of letters, digits and _ . @ -"
            )
        unknown = [each for each in scopes if not isinstance(each, str) or each not in SCOPES]
        if unknown or not scopes:
            raise ValueError(
                f"the scopes of the token {name} are to be of {', '.join(SCOPES)}, with + between"
            )
        if not isinstance(hashed, str) or not _HASH.fullmatch(hashed):
            raise ValueError(
                f"the hash of the token {name} is to be sha256: and 64 hexadecimal digits, as "
                "`candor token` prints it"
            )
        return cls(name, tuple(sorted(set(scopes))), hashed)

    def __str__(self) -> str:
        return f"{self.name}:{'+'.join(self.scopes)}:{self.hash}"


def make_token() -> str:
    """A new random one."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def hash_of(token: str) -> str:
    """As settings hold it: sha256:HEX. What is such a hash already stays."""
    if _HASH.fullmatch(token):
        return token
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def find(tokens: Sequence[Token], given: bytes) -> Token | None:
    """The token that was given.

    It is compared with every one there is, each in constant time: how long that takes says nothing.
    """
    hashed = b"sha256:" + hashlib.sha256(given).hexdigest().encode()
    found = None
    for token in tokens:
        if hmac.compare_digest(hashed, token.hash.encode()):
            found = token
    return found
