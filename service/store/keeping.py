"""Which rows of a request are worth keeping: the rule of `CANDOR_KEEP_SAMPLES`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput

WINDOW = 1000
"""Last rows of a model among which a quantile is taken."""

FEWEST = 50
"""Rows below which there is no quantile yet, and nothing is uncertain; and after so many new ones
it is taken again, since that costs more than all else here."""

_RANDOM = re.compile(r"random:(0?\.\d+|[01](\.0*)?)")
_EXPECTED = "off, uncertain, random:SHARE or all; or one for each model: digits=uncertain,co2=all"


class Kind(StrEnum):
    """What a rule looks at."""

    OFF = "off"
    UNCERTAIN = "uncertain"
    RANDOM = "random"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is kept of a model. `share` is of all rows, for `random`."""

    kind: Kind = Kind.OFF
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Rules:
    """A rule for each model that is named, and one for the others."""

    others: Rule
    named: Mapping[str, Rule]

    def of(self, model: str) -> Rule:
        """The rule of a model."""
        return self.named.get(model, self.others)

    @property
    def off(self) -> bool:
        """Whether nothing is kept of anything."""
        return all(rule.kind is Kind.OFF for rule in (self.others, *self.named.values()))


def read_rules(text: str) -> Rules:
    """The setting's value.

    Raises:
        InvalidInput: it is none.
    """
    others, named = Rule(), {}
    for part in text.split(","):
        name, given, rule = part.strip().rpartition("=")
        if given:
            named[name] = _rule(rule, text)
        elif "," in text:
            raise _wrong(text)
        else:
            others = _rule(rule, text)
    return Rules(others, named)


class Keeper:
    """Chooses rows by a rule; remembers the last scores for its quantile.

    Args:
        rule: of the model.
        quantile: of the last rows' scores, above which a row is uncertain where no threshold was
            calibrated.
        seed: of the share that is kept at random.
    """

    def __init__(self, rule: Rule, quantile: float, seed: int | None = None) -> None:
        self._rule = rule
        self._quantile = quantile
        self._random = np.random.default_rng(seed)
        self._last = np.empty(WINDOW)
        self._seen = self._seen_at_quantile = 0
        self._above = float("inf")

    def choose(
        self, scores_B: NDArray[np.float64], flagged_B: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """Places of the rows to keep, [K].

        Args:
            scores_B: of the rows.
            flagged_B: those above a calibrated threshold; None: by the quantile of the last rows.
        """
        rows = len(scores_B)
        if self._rule.kind is Kind.OFF:
            return np.empty(0, dtype=np.int64)
        if self._rule.kind is Kind.ALL:
            return np.arange(rows)
        if self._rule.kind is Kind.RANDOM:
            return np.flatnonzero(self._random.random(rows) < self._rule.share)
        if flagged_B is None:
            flagged_B = scores_B > self._above
            self._remember(scores_B[np.isfinite(scores_B)])
        return np.flatnonzero(flagged_B)

    def _remember(self, scores_B: NDArray[np.float64]) -> None:
        last = scores_B[-WINDOW:]
        self._last[(self._seen + np.arange(len(last))) % WINDOW] = last
        self._seen += len(last)
        if self._seen >= self._seen_at_quantile + FEWEST:
            self._seen_at_quantile = self._seen
            self._above = float(np.quantile(self._last[: self._seen], self._quantile))


def _rule(text: str, whole: str) -> Rule:
    if text in (Kind.OFF, Kind.UNCERTAIN, Kind.ALL):
        return Rule(Kind(text))
    if _RANDOM.fullmatch(text):
        share = float(text.partition(":")[2])
        if 0 < share <= 1:
            return Rule(Kind.RANDOM, share)
    raise _wrong(whole)


def _wrong(text: str) -> InvalidInput:
    return InvalidInput(
        f"CANDOR_KEEP_SAMPLES is {text!r}; expected {_EXPECTED}",
        field="keep_samples",
        expected=_EXPECTED,
        received=text,
    )
