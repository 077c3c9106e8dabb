"""What a connection tells those who work on its requests."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from fastapi import Request
from uvicorn.server import ServerState

from service.api.backlog import Backlog
from service.api.connections import protocol_for
from service.api.replies import Reply
from service.api.scope import CAME_S, READ_S, client_leaves
from service.settings import load_settings

POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


class Nobody:
    """A front that leaves everything to the application."""

    def serves(self, scope: Any) -> bool:
        return False

    def turn_away(self, scope: Any) -> Reply | None:
        raise AssertionError("it serves nobody")

    def remember(self, data: bytes, scope: Any) -> None:
        pass

    def repeat(self, data: bytes, came_s: float) -> tuple[int, bytes] | None:
        return None

    async def respond(self, scope: Any, receive: Any) -> Reply:
        raise AssertionError("it serves nobody")


class Never(Backlog):
    """Has nobody wait, however long the turn of a busy machine is."""

    def has_room(self, loop: asyncio.AbstractEventLoop, now_s: float) -> bool:
        return True


class Full(Nobody):
    """A front that is asked for `/full` and turns that away."""

    def serves(self, scope: Any) -> bool:
        return bool(scope["path"] == "/full")

    def turn_away(self, scope: Any) -> Reply | None:
        return Reply(b"full", "text/plain", 429, {"Retry-After": "3"})

    async def respond(self, scope: Any, receive: Any) -> Reply:
        # Its turn came after that of another on the same connection.
        return Reply(b"full", "text/plain", 429, {"Retry-After": "3"})


class Open(Full):
    """A front that answers `/full` once it may, with what came."""

    def __init__(self, answer: Reply | None = None) -> None:
        self.answer = answer
        self.may = asyncio.Event()
        self.may.set()

    def turn_away(self, scope: Any) -> Reply | None:
        return None

    async def respond(self, scope: Any, receive: Any) -> Reply:
        await self.may.wait()
        came = (await receive())["body"]
        return Reply(came, "text/plain") if self.answer is None else self.answer


class Always(Backlog):
    """Has everybody wait until `empty`."""

    def has_room(self, loop: asyncio.AbstractEventLoop, now_s: float) -> bool:
        return False

    def add(self, reader: Any, data: bytes, came_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting.append((reader, data, came_s))


async def ends(connection: Any) -> None:
    """All that came is answered."""
    async with asyncio.timeout(60):
        while connection.tasks or connection.pipeline:
            await asyncio.sleep(0)


async def left(front: Open) -> tuple[Any, Mock]:
    """A connection whose client has left while the front, which may not yet, was to answer."""
    front.may.clear()
    connection, transport = connected(Mock(), front)
    connection.data_received(asked(3))
    await asyncio.sleep(0)
    transport.is_closing.return_value = True
    connection.connection_lost(None)
    return connection, transport


def written(transport: Mock) -> bytes:
    return b"".join(call.args[0] for call in transport.write.call_args_list)


def connected(
    app: Any, front: Nobody | None = None, backlog: Backlog | None = None
) -> tuple[Any, Mock]:
    """A connection to an application, and what it writes to."""
    config = uvicorn.Config(app, ws="none", log_config=None, lifespan="off")
    kind: Any = protocol_for(load_settings(environment={}), Mock(), front or Nobody())
    kind.backlog = backlog or Never()
    connection = kind(config, ServerState(), {})
    transport = Mock(asyncio.Transport)
    transport.get_extra_info.return_value = None
    transport.is_closing.return_value = False
    connection.connection_made(transport)
    return connection, transport


def in_line() -> tuple[Always, Any, Mock]:
    """A connection that a full front refuses, all of which waits; and in what."""
    waiting = Always()
    return waiting, *connected(Mock(), Full(), waiting)


def once(may: asyncio.Event) -> Any:
    """An application that answers, without a body, once it may."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await may.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


@pytest.mark.parametrize("requests", [1, 2, 3])
def test_a_client_that_leaves_is_noticed_however_many_requests_it_has_sent_at_once(
    requests: int,
) -> None:
    seen: list[str] = []
    begun, left = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            seen.append(message["body"].decode())
            begun.set()
        left.set()

    async def leave() -> None:
        connection, transport = connected(app)
        connection.data_received(requests * POST)
        async with asyncio.timeout(60):
            await begun.wait()
            transport.is_closing.return_value = True
            connection.connection_lost(None)
            await left.wait()
            await asyncio.gather(*connection.tasks)

    asyncio.run(leave())
    assert seen == ["{}"]


@pytest.mark.parametrize(
    "second",
    [
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nrubbish\r\n",
        b"GET /livez HTTP/1.1\r\nX: " + b"y" * 2**17,
    ],
    ids=["body", "head"],
)
@pytest.mark.parametrize("started", [True, False])
def test_what_is_wrong_with_a_request_is_not_said_in_the_answer_to_the_one_before(
    second: bytes, started: bool
) -> None:
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        begun.set()
        while (await receive())["type"] == "http.request":
            pass

    async def ask() -> bytes:
        connection, transport = connected(app)
        connection.data_received(POST)
        async with asyncio.timeout(60):
            await begun.wait()
            # In two parts, so that the head is seen to grow.
            connection.data_received(second[:40])
            connection.data_received(second[40:])
            connection.connection_lost(None)
            await asyncio.gather(*connection.tasks)
        return b"".join(call.args[0] for call in transport.write.call_args_list)

    written = asyncio.run(ask())
    assert written.count(b"HTTP/1.1") == started
    assert b"problem" not in written


def test_who_is_turned_away_is_answered_by_the_head_alone_and_the_next_one_is_served() -> None:
    served: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})

    async def story() -> list[bytes]:
        connection, transport = connected(app, Full())
        # The body of the first one comes late, and its answer does not wait for it.
        connection.data_received(b"POST /full HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{")
        [early] = [call.args[0] for call in transport.write.mock_calls]
        connection.data_received(
            b"  }POST /free HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        )
        async with asyncio.timeout(60):
            await asyncio.gather(*connection.tasks)
        transport.close.assert_not_called()
        return [early, b"".join(call.args[0] for call in transport.write.mock_calls[1:])]

    refused, answered = asyncio.run(story())
    assert refused.startswith(b"HTTP/1.1 429 ")
    assert refused.endswith(b"retry-after: 3\r\n\r\nfull")
    assert answered.startswith(b"HTTP/1.1 200 ")
    assert served == ["/free"]


def test_any_number_that_came_behind_another_are_turned_away_in_their_order() -> None:
    count = 3000

    async def story() -> bytes:
        go_on = asyncio.Event()
        connection, transport = connected(once(go_on), Full())
        full = b"POST /full HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        connection.data_received(full.replace(b"full", b"free") + count * full)
        assert not transport.write.called
        go_on.set()
        async with asyncio.timeout(60):
            while connection.pipeline or not connection.cycle.response_complete:
                await asyncio.sleep(0)
        return b"".join(call.args[0] for call in transport.write.mock_calls)

    written = asyncio.run(story())
    assert written.startswith(b"HTTP/1.1 200 ")
    assert written.count(b"HTTP/1.1 429 ") == count


@pytest.mark.parametrize(
    "head",
    [
        b"POST /full HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        b"POST /full HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
        b"POST /full HTTP/1.0\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_nobody_is_turned_away_by_the_head_whose_body_would_be_in_the_way(head: bytes) -> None:
    """It would be taken for the next request, or have the connection reset before its answer."""

    class Late(Full):
        async def respond(self, scope: Any, receive: Any) -> Reply:
            return Reply(b"late", "text/plain", 429)

    async def story() -> bytes:
        connection, transport = connected(Mock(), Late())
        connection.data_received(head)
        assert not transport.write.called
        await ends(connection)
        return written(transport)

    answer = asyncio.run(story())
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert answer.endswith(b"late")


def asked(size: int, more: bytes = b"") -> bytes:
    head = b"POST /full HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (more, size)
    return head + size * b"a"


@pytest.mark.parametrize("size", [0, 2, 2**16, 2**16 + 1])
def test_what_the_front_answers_is_written_whole_with_all_headers(size: int) -> None:
    async def story() -> bytes:
        connection, transport = connected(Mock(), Open())
        connection.server_state.default_headers = [(b"date", b"today")]
        connection.data_received(asked(size))
        await ends(connection)
        transport.close.assert_not_called()
        return written(transport)

    head, _, body = asyncio.run(story()).partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"date: today",
        b"content-length: %d" % size,
        b"content-type: text/plain",
    ]
    assert body == size * b"a"


def test_headers_of_all_answers_are_those_of_this_second() -> None:
    async def story() -> bytes:
        connection, transport = connected(Mock(), Open())
        for second in (b"first", b"second"):
            connection.server_state.default_headers = [(b"date", second)]
            connection.data_received(asked(1))
            await ends(connection)
        return written(transport)

    answers = asyncio.run(story())
    assert b"date: first" in answers
    assert b"date: second" in answers


def test_answers_of_the_front_and_of_the_application_keep_the_order_of_their_requests() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"application"})

    async def story() -> bytes:
        front = Open()
        front.may.clear()
        connection, transport = connected(app, front)
        other = b"POST /free HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        connection.data_received(asked(3) + other + asked(5))
        await asyncio.sleep(0)
        assert not transport.write.called
        front.may.set()
        await ends(connection)
        return written(transport)

    answers = asyncio.run(story())
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    first, second = answers.index(b"aaa"), answers.index(b"application")
    assert first < second < answers.index(b"aaaaa")


@pytest.mark.parametrize("more", [b"Connection: close\r\n", b"Expect: 100-continue\r\n"])
def test_who_ends_its_connection_or_waits_to_be_told_to_go_on_is_answered_too(more: bytes) -> None:
    async def story() -> tuple[bytes, bool]:
        connection, transport = connected(Mock(), Open())
        connection.data_received(asked(3, more))
        await ends(connection)
        return written(transport), transport.close.called

    answer, closed = asyncio.run(story())
    assert answer.endswith(b"aaa")
    assert closed == (b"close" in more)
    assert answer.startswith(b"HTTP/1.1 100 Continue") == (b"100" in more)


def test_an_answer_that_says_so_ends_its_connection() -> None:
    async def story() -> tuple[bytes, bool]:
        last = Reply(b"last", "text/plain", headers={"Connection": "close"})
        connection, transport = connected(Mock(), Open(last))
        connection.data_received(asked(3))
        await ends(connection)
        return written(transport), transport.close.called

    answer, closed = asyncio.run(story())
    assert answer.count(b"connection: close") == 1
    assert answer.endswith(b"last")
    assert closed


def test_who_does_not_take_what_is_written_is_written_no_more() -> None:
    async def story() -> bytes:
        connection, transport = connected(Mock(), Open())
        connection.pause_writing()
        connection.data_received(asked(3))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not transport.write.called
        connection.resume_writing()
        await ends(connection)
        return written(transport)

    assert asyncio.run(story()).endswith(b"aaa")


def test_nothing_is_written_to_a_client_that_has_left() -> None:
    async def story() -> bytes:
        front = Open(Reply(b"late", "text/plain"))
        connection, transport = await left(front)
        front.may.set()
        await ends(connection)
        return written(transport)

    assert asyncio.run(story()) == b""


@pytest.mark.parametrize("watched_first", [True, False])
def test_whoever_waits_for_the_answer_is_told_once_its_client_has_left(watched_first: bool) -> None:
    told: list[str] = []

    class Watching(Open):
        async def respond(self, scope: Any, receive: Any) -> Reply:
            if watched_first:
                self.watch(scope)
            await self.may.wait()
            if not watched_first:
                self.watch(scope)
            return Reply(b"late", "text/plain")

        def watch(self, scope: Any) -> None:
            client_leaves(Request(scope))(lambda: told.append(scope["path"]))

    async def story() -> None:
        front = Watching()
        connection, _ = await left(front)
        assert told == ["/full"] * watched_first
        front.may.set()
        await ends(connection)

    asyncio.run(story())
    assert told == ["/full"]


def test_a_watch_that_ended_is_told_nothing() -> None:
    told: list[str] = []

    class Watching(Open):
        async def respond(self, scope: Any, receive: Any) -> Reply:
            client_leaves(Request(scope))(lambda: told.append("left"))()
            await self.may.wait()
            return Reply(b"late", "text/plain")

    async def story() -> None:
        front = Watching()
        connection, _ = await left(front)
        front.may.set()
        await ends(connection)

    asyncio.run(story())
    assert told == []


@pytest.mark.parametrize("path", [b"/full?x", b"/f%75ll", b"/full#x", b"/full?x=/full"])
def test_nobody_is_turned_away_by_a_path_that_has_to_be_parsed_first(path: bytes) -> None:
    asked_by_head: list[str] = []

    class Noting(Open):
        def serves(self, scope: Any) -> bool:
            return True

        def turn_away(self, scope: Any) -> Reply | None:
            asked_by_head.append(scope["path"])
            return None

    async def story() -> bytes:
        connection, transport = connected(Mock(), Noting())
        connection.data_received(asked(3).replace(b"/full", path))
        await ends(connection)
        return written(transport)

    assert asyncio.run(story()).endswith(b"aaa")
    assert asked_by_head == []


def test_who_does_not_take_refusals_gets_no_more_of_them() -> None:
    async def story() -> int:
        connection, transport = connected(Mock(), Full())
        connection.pause_writing()
        connection.data_received(2000 * asked(0))
        await asyncio.sleep(0)
        before = written(transport).count(b"HTTP/1.1 429")
        connection.resume_writing()
        await ends(connection)
        assert written(transport).count(b"HTTP/1.1 429") == 2000
        return before

    assert asyncio.run(story()) == 0


def test_a_client_is_watched_though_what_it_sends_is_not_read() -> None:
    """uvicorn stops reading where more has come than somebody has asked for."""

    async def story() -> list[bool]:
        paused: list[bool] = []

        class Watching(Open):
            async def respond(self, scope: Any, receive: Any) -> Reply:
                await receive()
                await self.may.wait()
                paused.append(connection.flow.read_paused)
                client_leaves(Request(scope))(lambda: None)
                paused.append(connection.flow.read_paused)
                return Reply(b"done", "text/plain")

        front = Watching()
        front.may.clear()
        connection, _ = connected(Mock(), front)
        connection.data_received(asked(2**17)[:100])
        await asyncio.sleep(0)
        connection.data_received(asked(2**17)[100:])
        front.may.set()
        await ends(connection)
        return paused

    assert asyncio.run(story()) == [True, False]


def test_who_comes_behind_one_that_was_turned_away_is_read_to_the_end() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def story() -> bytes:
        connection, transport = connected(app, Full())
        connection.data_received(asked(3))
        connection.data_received(POST)
        await ends(connection)
        return written(transport)

    answers = asyncio.run(story())
    assert answers.startswith(b"HTTP/1.1 429 ")
    assert b"{}" in answers.partition(b"HTTP/1.1 200 ")[2]


def test_what_came_of_all_connections_is_served_later_in_its_order() -> None:
    async def story() -> None:
        waiting, connection, transport = in_line()
        connection.data_received(asked(3)[:20])
        connection.data_received(asked(3)[20:])
        assert not transport.write.called
        waiting.empty()
        assert written(transport).startswith(b"HTTP/1.1 429 ")

    asyncio.run(story())


def test_of_one_connection_that_waits_no_more_is_read_than_is_there() -> None:
    async def story() -> None:
        waiting, connection, transport = in_line()
        connection.data_received(asked(1))
        # To stop reading costs more than to keep one request.
        transport.pause_reading.assert_not_called()
        connection.data_received(asked(1))
        connection.data_received(asked(1))
        assert transport.pause_reading.called
        transport.resume_reading.assert_not_called()
        waiting.empty()
        transport.resume_reading.assert_called_once()
        assert written(transport).count(b"HTTP/1.1 429") == 3

    asyncio.run(story())


def test_what_uvicorn_does_not_read_is_not_read_because_others_had_their_turn() -> None:
    async def story() -> None:
        waiting, front = Always(), Open()
        front.may.clear()
        connection, transport = connected(Mock(), front, waiting)
        whole = asked(2**17)
        for part in (whole[:100], whole[100:]):
            connection.data_received(part)
        waiting.empty()
        assert connection.flow.read_paused
        transport.resume_reading.assert_not_called()
        front.may.set()
        await ends(connection)
        transport.resume_reading.assert_called_once()

    asyncio.run(story())


def test_of_a_client_that_has_left_meanwhile_nothing_is_served() -> None:
    async def story() -> None:
        waiting, connection, transport = in_line()
        connection.data_received(asked(1))
        transport.is_closing.return_value = True
        connection.connection_lost(None)
        waiting.empty()
        assert not transport.write.called

    asyncio.run(story())


def test_a_request_that_cannot_be_read_ends_its_own_connection_and_is_told_of() -> None:
    class Broken(Full):
        def repeat(self, data: bytes, came_s: float) -> tuple[int, bytes] | None:
            raise RuntimeError("broken")

    async def story() -> list[Any]:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        waiting = Always()
        connection, transport = connected(Mock(), Broken(), waiting)
        other, its = connected(Mock(), Full(), waiting)
        connection.data_received(asked(1))
        other.data_received(asked(1))
        waiting.empty()
        transport.abort.assert_called_once()
        assert written(its).startswith(b"HTTP/1.1 429 ")
        return [type(context["exception"]) for context in told]

    assert asyncio.run(story()) == [RuntimeError]


def test_who_waits_is_not_idle_and_not_slow_and_is_served_before_the_server_ends() -> None:
    async def story() -> None:
        _, connection, transport = in_line()
        assert connection.idle_since_s() is not None
        connection.data_received(asked(1))
        assert connection.idle_since_s() is None
        for _ in range(3):
            connection.look(connection.loop.time() + 1e6)
        transport.close.assert_not_called()
        connection.shutdown()
        assert written(transport).startswith(b"HTTP/1.1 429 ")
        transport.close.assert_called_once()

    asyncio.run(story())


def test_a_request_is_as_old_as_it_was_when_it_came() -> None:
    ages: list[float] = []

    class Aged(Open):
        def turn_away(self, scope: Any) -> Reply | None:
            ages.append(scope["state"][CAME_S])
            return None

        async def respond(self, scope: Any, receive: Any) -> Reply:
            ages.append(scope["state"][READ_S])
            return Reply(b"", "text/plain")

    async def story() -> None:
        waiting = Always()
        connection, _ = connected(Mock(), Aged(), waiting)
        connection.data_received(asked(1))
        waiting._waiting[0] = (connection, asked(1), 123.0)
        waiting.empty()
        await ends(connection)

    asyncio.run(story())
    assert ages == [123.0, 123.0]


class Repeating(Full):
    """Turns away as it did before what it was told of."""

    def __init__(self) -> None:
        self.known: list[bytes] = []
        self.read: list[bytes] = []

    def turn_away(self, scope: Any) -> Reply | None:
        self.read.append(scope["path"])
        return super().turn_away(scope)

    def remember(self, data: bytes, scope: Any) -> None:
        assert scope["path"] == "/full"
        self.known.append(data)

    def repeat(self, data: bytes, came_s: float) -> tuple[int, bytes] | None:
        return (429, b"content-length: 5\r\n\r\nagain") if data in self.known else None


def test_what_was_turned_away_once_is_turned_away_again_without_being_read() -> None:
    async def story() -> None:
        front = Repeating()
        connection, transport = connected(Mock(), front)
        connection.server_state.default_headers = [(b"date", b"today")]
        for _ in range(3):
            connection.data_received(asked(2))
        assert front.known == [asked(2)]
        assert len(front.read) == 1
        again = b"HTTP/1.1 429 Too Many Requests\r\ndate: today\r\ncontent-length: 5\r\n\r\nagain"
        assert written(transport).endswith(b"full" + 2 * again)
        assert connection.server_state.total_requests == 3
        # The parser has seen nothing of them, and is where it was.
        connection.data_received(asked(3))
        assert len(front.read) == 2

    asyncio.run(story())


def test_only_what_came_as_one_whole_request_is_remembered() -> None:
    async def story() -> None:
        front = Repeating()
        connection, _ = connected(Mock(), front)
        for part in (asked(2)[:-1], asked(2)[-1:], asked(2)[:30], asked(2)[30:]):
            connection.data_received(part)
        assert len(front.read) == 2
        assert front.known == []

    asyncio.run(story())


def test_nothing_is_said_again_before_the_answer_to_what_came_before() -> None:
    async def story() -> bytes:
        go_on = asyncio.Event()
        front = Repeating()
        front.known.append(asked(2))
        connection, transport = connected(once(go_on), front)
        connection.data_received(POST)
        connection.data_received(asked(2))
        assert not transport.write.called
        go_on.set()
        await ends(connection)
        return written(transport)

    answers = asyncio.run(story())
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.endswith(b"full")


def test_nothing_is_said_again_to_who_does_not_take_what_is_written() -> None:
    async def story() -> None:
        front = Repeating()
        front.known.append(asked(2))
        connection, transport = connected(Mock(), front)
        connection.pause_writing()
        connection.data_received(asked(2))
        assert not transport.write.called
        connection.resume_writing()
        await ends(connection)
        assert written(transport).endswith(b"full")

    asyncio.run(story())


def test_who_waits_is_not_read_on_because_uvicorn_would() -> None:
    async def story() -> None:
        _, connection, transport = in_line()
        for _ in range(3):
            connection.data_received(asked(1))
            connection.flow.pause_reading()
            connection.flow.resume_reading()
        last = [call[0] for call in transport.method_calls if call[0].endswith("_reading")]
        assert last[-1] == "resume_reading"
        connection.data_received(asked(1))
        last = [call[0] for call in transport.method_calls if call[0].endswith("_reading")]
        assert last[-1] == "pause_reading"

    asyncio.run(story())


def test_one_large_part_is_enough_to_wait_for() -> None:
    async def story() -> None:
        waiting, connection, transport = in_line()
        connection.data_received(asked(2**17))
        transport.pause_reading.assert_called_once()
        waiting.empty()
        transport.resume_reading.assert_called_once()

    asyncio.run(story())
