"""Fewer passes while others wait: off unless it is switched on, and always said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from service.types import SamplePlan


@dataclass(frozen=True, slots=True)
class Degrading:
    """The rule: from a wait of `after_s` on, passes shrink as the wait grows.

    Args:
        after_s: expected wait, in seconds, that is still no reason; None switches it off.
        min_passes: are never gone below.
    """

    after_s: float | None = None
    min_passes: int = 2

    def plan(self, plan: SamplePlan, wait_s: float, members: int = 1) -> SamplePlan:
        """The plan to follow instead.

        Args:
            plan: of a request that left its passes to the model.
            wait_s: that it expects.
            members: of the model; each is asked equally often, and at least once.
        """
        if self.after_s is None or wait_s <= self.after_s or plan.tolerance is not None:
            return plan
        passes = max(self.min_passes, ceil(plan.passes * self.after_s / wait_s))
        passes = members * ceil(passes / members)
        return replace(plan, passes=passes) if passes < plan.passes else plan
