"""Which versions of a model serve, how they are called, and who gets which. Pure; no torch.

`[serving]` of a `model.toml`:

    versions = "latest 2"                  # or "all", the default, or a list: [1, 3]
    labels = { stable = 1, canary = 2 }    # names that a request may give as its version
    canary_share = 0.05                    # of the requests that name no version

A version with a label serves whatever `versions` says. Requests that name no version get `stable`
where there is that label, otherwise the highest that was verified and is not the canary.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from service.types import LABEL_PATTERN

STABLE = "stable"
CANARY = "canary"

NOT_CHOSEN = "not chosen by the version policy ([serving] in model.toml)"

_LATEST = re.compile(r"latest ([1-9][0-9]{0,5})")
_Number = Annotated[int, Field(ge=1)]
_Label = Annotated[str, Field(pattern=LABEL_PATTERN)]


class Serving(BaseModel):
    """The table `[serving]` of a `model.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    versions: str | Annotated[tuple[_Number, ...], Field(strict=False, min_length=1)] = "all"
    labels: dict[_Label, _Number] = {}
    canary_share: float = Field(0.0, ge=0.0, le=1.0)

    @field_validator("versions")
    @classmethod
    def _known_policy(cls, versions: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if isinstance(versions, str) and versions != "all" and not _LATEST.fullmatch(versions):
            raise ValueError('expected "all", "latest n" or a list of numbers')
        return versions

    @model_validator(mode="after")
    def _share_of_a_canary(self) -> Serving:
        if self.canary_share and CANARY not in self.labels:
            raise ValueError("canary_share needs a version that is labelled: labels = {canary = 2}")
        return self

    def wants(self, number: int, above: int) -> bool:
        """Whether a version is to serve.

        Args:
            number: of the version.
            above: how many higher versions serve.
        """
        if number in self.labels.values() or self.versions == "all":
            return True
        if isinstance(self.versions, str):
            latest = _LATEST.fullmatch(self.versions)
            return latest is not None and above < int(latest.group(1))
        return number in self.versions

    def default(self, ready: Collection[int]) -> int | None:
        """The version of requests that name none; None where it does not serve.

        Args:
            ready: versions that serve.
        """
        if STABLE in self.labels:
            return self.labels[STABLE] if self.labels[STABLE] in ready else None
        return max((n for n in ready if n != self.labels.get(CANARY)), default=None)

    def pick(self, ready: Collection[int], model: str, key: str) -> int | None:
        """The version of a request that names none: the default one, or the canary.

        While the canary does not serve, nobody is sent to it.

        Args:
            ready: versions that serve.
            model: its name.
            key: of the request; equal keys get equal versions.
        """
        canary = self.labels.get(CANARY)
        if canary in ready and _fraction(f"{model}:{key}") < self.canary_share:
            return canary
        return self.default(ready)

    def warnings(self, numbers: Collection[int], ready: Collection[int]) -> tuple[str, ...]:
        """What the table says and cannot be had.

        Args:
            numbers: of the versions that there are.
            ready: those that serve.
        """
        listed = self.versions if isinstance(self.versions, tuple) else ()
        missing = [number for number in listed if number not in numbers]
        found = [
            f"model.toml lists version {number} under `versions`, and there is no such folder"
            for number in missing
        ]
        for label, number in self.labels.items():
            if number not in ready:
                why = "does not serve" if number in numbers else "has no folder"
                found.append(
                    f"version {number}, which model.toml labels {label!r}, {why}: requests for "
                    f"{label!r} are answered 503"
                )
        return tuple(found)


def _fraction(key: str) -> float:
    """Uniform in [0, 1), a function of the key."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
