"""What Ray raises where a process dies or ends, as Candor names it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest
import ray.exceptions

from service.api.replicas.asking import ReplicaLost
from service.errors import ModelNotReady
from service.ray_app import _Processes


class Response:
    """What a handle gives: it can be awaited, or gone through, and cancelled."""

    def __init__(self, outcome: Callable[[], Any], *, never: bool = False) -> None:
        self._outcome = outcome
        self._never = never
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    async def _wait(self) -> Any:
        await (asyncio.Event().wait() if self._never else asyncio.sleep(0))
        return self._outcome()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait().__await__()

    def __aiter__(self) -> Response:
        return self

    async def __anext__(self) -> Any:
        return await self._wait()


class Handle:
    """Of a deployment that answers every call so."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def options(self, **_: Any) -> Handle:
        return self

    def __getattr__(self, _method: str) -> Handle:
        return self

    def remote(self, *_: Any) -> Response:
        return self._response


def raising(error: BaseException) -> Callable[[], Any]:
    def outcome() -> Any:
        raise error

    return outcome


async def both(response: Response) -> list[BaseException]:
    """What asking and following raise."""
    processes = _Processes(Handle(response))  # type: ignore[arg-type]
    found: list[BaseException] = []
    try:
        await processes.ask("compute")
    except BaseException as error:
        found.append(error)
    try:
        async for _ in processes.follow("answer"):
            pass
    except BaseException as error:
        found.append(error)
    return found


@pytest.mark.parametrize(
    "error",
    [
        ray.exceptions.ActorDiedError(),
        ray.exceptions.ActorUnavailableError("gone", b"0" * 16),
        # So Ray tells that the one that was asked has cancelled it.
        asyncio.CancelledError(),
    ],
    ids=["died", "unavailable", "ends"],
)
def test_who_dies_or_ends_is_lost_and_another_may_be_asked(error: BaseException) -> None:
    found = asyncio.run(both(Response(raising(error))))
    assert [type(each) for each in found] == [ReplicaLost] * 2


def test_what_is_not_known_stays_what_it_is() -> None:
    found = asyncio.run(both(Response(raising(KeyError("a bug")))))
    assert [type(each) for each in found] == [KeyError] * 2


def test_what_was_raised_on_purpose_elsewhere_is_raised_here() -> None:
    refused = ModelNotReady("it is loading", retry_after_s=2.0)
    told = ray.exceptions.RayTaskError("resolve", "traceback", refused).as_instanceof_cause()
    for error in asyncio.run(both(Response(raising(told)))):
        assert isinstance(error, ModelNotReady)
        assert error.retry_after_s == 2.0


def test_who_waits_no_more_cancels_what_was_asked_and_asks_no_other() -> None:
    async def run() -> None:
        response = Response(lambda: None, never=True)
        processes = _Processes(Handle(response))  # type: ignore[arg-type]
        asking = asyncio.create_task(processes.ask("compute"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert response.cancelled

    asyncio.run(run())
