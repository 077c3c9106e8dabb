"""How long a model's steps take, learnt from those before."""

from __future__ import annotations

import math

_KEPT = 0.9
"""Share of what was measured before that still counts after another step."""

_SPREAD = 0.1
"""Relative spread of the steps' sizes from which on the parts of their time can be told apart."""

_LEAST = 0.05
"""Share of a step's time that grows with its size at least: noise must not make steps endless."""

_INSTANT_S = 1e-9

_TRUSTED = 3.0
"""Times what was expected of a step that one measurement may say at most. A pause of the machine is
of none of the steps to come; what is slower from now on is soon known from several."""


class Pace:
    """A step takes a fixed time and a time for each row × pass: least squares, forgetting.

    Both parts matter. Where a pass costs the same for one row as for fifty, a limit by the mean
    time of a row would keep requests apart for good just because the first ones came alone.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._cost = 0.0
        self._seconds = 0.0
        self._cost_squared = 0.0
        self._cost_seconds = 0.0
        self._mean_cost = 0.0
        self._mean_s = 0.0
        self._fixed_s: float | None = None

    def learn(self, cost: int, seconds: float) -> None:
        """A step of `cost` rows × passes took so long."""
        if self._weight:
            # A larger one than any before may well take as much longer as it is larger.
            most_s = max(self.seconds(cost), self._mean_s * cost / self._mean_cost)
            seconds = min(seconds, _TRUSTED * max(most_s, _INSTANT_S))
        self._weight = _KEPT * self._weight + 1.0
        self._cost = _KEPT * self._cost + cost
        self._seconds = _KEPT * self._seconds + seconds
        self._cost_squared = _KEPT * self._cost_squared + cost * cost
        self._cost_seconds = _KEPT * self._cost_seconds + cost * seconds
        mean_cost = self._mean_cost = self._cost / self._weight
        mean_s = self._mean_s = self._seconds / self._weight
        variance = self._cost_squared / self._weight - mean_cost**2
        if variance > (_SPREAD * mean_cost) ** 2:
            slope = (self._cost_seconds / self._weight - mean_cost * mean_s) / variance
            whole = mean_s / mean_cost
            self._fixed_s = mean_s - min(max(slope, _LEAST * whole), whole) * mean_cost

    def seconds(self, cost: float, steps: float = 1.0) -> float:
        """What so many rows × passes take in so many steps; 0 before the first step.

        Until steps of different sizes were seen, the least that it may be: a larger step takes as
        long as those that were seen, a smaller one less in proportion. What is refused by this
        estimate should not have been served.
        """
        if not self._weight:
            return 0.0
        mean_cost, mean_s = self._mean_cost, self._mean_s
        if self._fixed_s is None:
            return min(steps, cost / mean_cost) * mean_s
        fixed_s = min(self._fixed_s, (1.0 - _LEAST) * mean_s)
        return steps * fixed_s + cost * (mean_s - fixed_s) / mean_cost

    def cost_within(self, seconds: float) -> float:
        """Rows × passes that take so long, or twice the fixed time where that is longer.

        There is no limit before the first step. Until steps of different sizes were seen, twice the
        usual size: the way to see one.
        """
        if not self._weight:
            return math.inf
        mean_cost, mean_s = self._mean_cost, self._mean_s
        if mean_s < _INSTANT_S:
            return math.inf
        if self._fixed_s is None:
            return max(2.0, seconds / mean_s) * mean_cost
        fixed_s = min(self._fixed_s, (1.0 - _LEAST) * mean_s)
        return max(seconds - fixed_s, fixed_s) * mean_cost / (mean_s - fixed_s)
