"""What a request carries with it, and the server's parts that its handler may use."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fastapi import Request
from starlette.types import Scope

from service.errors import InvalidInput
from service.metrics import Metrics, Tally
from service.scheduling.attendant import Watch, by_waiting
from service.settings import Settings

if TYPE_CHECKING:
    from service.api.engine import Engine
    from service.registry.loader import Loader
    from service.registry.registry import Registry
    from service.scheduling.aside import Aside
    from service.scheduling.runner import Runner
    from service.store.collector import Collector
    from service.store.samples import SampleStore
    from service.tracing.spans import RequestSpans, Tracing


ValueT = TypeVar("ValueT")

READ_S = "read_s"
"""Of a request's state: when all of it had come, by the monotonic clock."""

CAME_S = "came_s"
"""Of a request's state: when its head had come, by the monotonic clock, where that is known."""

COMING = "coming"
"""Of a request's state: whom to tell once it is given to the engine, or over."""

CLIENT = "client"
"""Of a request's state: its `Client`, where the server around the application has one."""

SPARE_S = "spare_s"
"""Of a request's state: what the event loop is expected to take for its answer."""

_NUMBER = re.compile(r"[0-9]{1,18}")
"""Of a version; more digits, or those of other scripts, are none."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What every process that answers requests has."""

    settings: Settings
    engine: Engine
    tally: Tally
    tracing: Tracing | None


async def no_others() -> None:
    """One process counts for itself."""


@dataclass(frozen=True, slots=True)
class Service(Desk):
    """The parts of one server, in the process that computes."""

    metrics: Metrics
    registry: Registry
    loader: Loader
    runner: Runner
    aside: Aside
    store: SampleStore
    collector: Collector
    gather: Callable[[], Awaitable[None]] = no_others
    """Waits until what other processes counted is counted in `metrics`."""


def desk_of(request: Request) -> Desk:
    """What the process that got this request answers it with."""
    desk: Desk = request.scope["state"]["desk"]
    return desk


def service_of(request: Request) -> Service:
    """The parts of the server. Only for routes that run in the process that computes."""
    return cast("Service", desk_of(request))


def request_id(request: Request) -> str:
    """The caller's X-Request-ID, or one that was made."""
    number: str = request.scope["state"]["request_id"]
    return number


def served_by(request: Request, model: str, version: int | None = None) -> None:
    """Note which model a request is for, once it is known to exist, and which version is chosen.

    Metrics are labelled by them, and the log names them.
    """
    state = request.scope["state"]
    state["model"] = model
    if version is not None:
        state["version"] = version


def hold(request: Request, more_bytes: int) -> None:
    """Count what is held of a request beside the body that came, until it is answered.

    Raises:
        QueueFull: others' bodies leave no room.
    """
    request.scope["state"]["hold"](more_bytes)


def waited_s(request: Request) -> float:
    """Seconds since all of a request had come."""
    return _since_s(request, READ_S)


def behind_s(request: Request) -> float:
    """Seconds since a request's head had come."""
    return _since_s(request, CAME_S)


def _since_s(request: Request, name: str) -> float:
    now_s = time.monotonic()
    then_s: float = request.scope["state"].get(name, now_s)
    return now_s - then_s


def spare_s(request: Request) -> float:
    """Seconds that an answer is expected to need once it is computed."""
    seconds: float = request.scope["state"].get(SPARE_S, 0.0)
    return seconds


def has_come(request: Request) -> None:
    """Note that a request that was let in is given to the engine, or is over."""
    if (note := request.scope["state"].pop(COMING, None)) is not None:
        note()


def trace_of(request: Request) -> RequestSpans | None:
    """The spans of a request; None where it is not traced."""
    trace: RequestSpans | None = request.scope["state"].get("trace")
    return trace


def note_reason(request: Request, reason: str) -> None:
    """Note why a request was refused, for the log."""
    request.scope["state"]["reason"] = reason


def model_and_version(path: Mapping[str, str]) -> tuple[str, int | str | None]:
    """What a path names: a model and, where it does, a version by its number or its label."""
    version = path.get("version")
    return path["name"], None if version is None else number_or_label(version)


def number_or_label(version: str) -> int | str:
    """A version by its number or its label."""
    return int(version) if _NUMBER.fullmatch(version) else version


def header(request: Request, name: bytes) -> str | None:
    """The first header of that name, which is to be in small letters as ASGI gives them."""
    state: dict[str, Any] = request.scope.setdefault("state", {})
    headers: dict[bytes, bytes] | None = state.get("headers")
    if headers is None:
        # Asked for several of them, one look at all is the shortest.
        headers = state["headers"] = dict(reversed(request.scope["headers"]))
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def raw_header(scope: Scope, name: bytes) -> bytes | None:
    """The header of that name; empty, so that it fits nothing, where it stands there twice."""
    found: bytes | None = None
    for key, value in scope["headers"]:
        if key == name:
            found = b"" if found is not None else bytes(value)
    return found


def said_once(request: Request) -> None:
    """Look whether each field of the query stands there once: of two one would be lost.

    Raises:
        InvalidInput: naming the field.
    """
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"`{name}` stands twice in the query", field=name)


class Client:
    """Of a request: tells once that it has left, where the server around the application knows.

    Args:
        listen: has the server read on: what is not read does not tell that it has ended.
    """

    __slots__ = ("_has_left", "_listen", "_tell")

    def __init__(self, listen: Callable[[], None]) -> None:
        self._listen = listen
        self._has_left = False
        self._tell: Callable[[], None] | None = None

    def leaves(self) -> None:
        """It has left, before it was answered."""
        self._has_left = True
        if self._tell is not None:
            self._tell()

    def watch(self, tell: Callable[[], None]) -> Callable[[], object]:
        """See `Watch`."""
        self._tell = tell
        if self._has_left:
            tell()
        else:
            self._listen()
        return self._forget

    def _forget(self) -> None:
        self._tell = None


def client_leaves(request: Request) -> Watch:
    """What watches the client of a request whose body was read."""
    client: Client | None = request.scope["state"].get(CLIENT)
    return by_waiting(lambda: client_left(request)) if client is None else client.watch


async def client_left(request: Request) -> None:
    """Returns once the client of a request whose body was read has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def remembered(request: Request, name: str, read: Callable[[], ValueT]) -> ValueT:
    """What `read` gives, which is asked only once of a request."""
    state = request.scope["state"]
    if name in state:
        known: ValueT = state[name]
        return known
    found = state[name] = read()
    return found
