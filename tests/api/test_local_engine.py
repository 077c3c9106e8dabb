"""The engine in this process, as the endpoints ask it."""

from __future__ import annotations

from unittest.mock import Mock

from service.api.local_engine import LocalEngine
from service.scheduling.runner import Runner
from service.scheduling.scheduler import QueueLimits, Scheduler


def test_a_look_has_what_computes_go_on() -> None:
    runner = Runner(Scheduler(100, 1.0, QueueLimits(100, 10**9)), Mock())
    told: list[str] = []
    turn = Mock(**{"deliver.side_effect": told.append})
    runner._engine._news.append((turn, "over"))  # type: ignore[arg-type]
    LocalEngine(Mock(), runner, Mock(), Mock(), Mock(), 1).look()
    runner.close()
    assert told == ["over"]
