"""Who has connected is let in, however many do at once."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from service.api import listening
from service.api.listening import _AT_ONCE, Entrance
from tests.certificates import Certificate, write_certificate

MOST_TURNS = 10
uvloop = pytest.importorskip("uvloop")
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


class Greeting(asyncio.Protocol):
    """Says hello and goodbye, and counts."""

    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).made += 1
        # With TLS uvloop's is one by its methods alone.
        cast(asyncio.Transport, transport).write(b"hello")
        transport.close()


def greeting() -> type[Greeting]:
    return type("Own", (Greeting,), {"made": 0})


def clients(address: Any, count: int) -> list[socket.socket]:
    return [socket.create_connection(address, timeout=60) for _ in range(count)]


def run(story: Callable[[], Any], factory: Callable[[], asyncio.AbstractEventLoop]) -> Any:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(story())


def plenty() -> int:
    """Of room."""
    return 10**6


def bound() -> socket.socket:
    own = socket.socket()
    own.bind(("127.0.0.1", 0))
    return own


def proving(files: Certificate) -> ssl.SSLContext:
    """Of a server with this certificate."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.key)
    return tls


async def until(holds: Callable[[], bool]) -> int:
    """Turns of the loop that it takes."""
    turns = 0
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0)
            turns += 1
    return turns


@pytest.mark.parametrize("factory", LOOPS)
def test_as_many_as_wait_are_let_in_within_a_few_turns(factory: Any) -> None:
    """uvloop's own server takes a turn for each."""
    count = 5 * _AT_ONCE

    async def story() -> int:
        kind, own = greeting(), bound()
        entrance = Entrance(own, kind, 2 * count, plenty)
        waiting = clients(own.getsockname(), count)
        turns = await until(lambda: kind.made == count)
        entrance.close()
        await entrance.wait_closed()
        for client in waiting:
            assert client.recv(5) == b"hello"
            client.close()
        return turns

    assert run(story, factory) <= count / _AT_ONCE + MOST_TURNS


@pytest.mark.parametrize("factory", LOOPS)
def test_who_is_there_already_has_a_turn_between_those_that_are_let_in(factory: Any) -> None:
    count = 3 * _AT_ONCE

    async def story() -> list[int]:
        kind, own = greeting(), bound()
        entrance = Entrance(own, kind, 2 * count, plenty)
        waiting = clients(own.getsockname(), count)
        seen = [0]

        def note() -> None:
            seen.append(kind.made)
            if kind.made < count:
                asyncio.get_running_loop().call_soon(note)

        note()
        await until(lambda: kind.made == count)
        entrance.close()
        for client in waiting:
            client.close()
        return [after - before for before, after in itertools.pairwise(seen)]

    assert max(run(story, factory)) <= _AT_ONCE


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EPROTO])
def test_where_nobody_can_be_let_in_it_is_tried_again_and_said(
    factory: Any, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "_TRY_AGAIN_S", 0.01)

    class Exhausted(socket.socket):
        left = 2

        def accept(self) -> tuple[socket.socket, Any]:
            if self.left:
                self.left -= 1
                raise OSError(number, "none left")
            return super().accept()

    async def story() -> None:
        kind, own = greeting(), Exhausted()
        own.bind(("127.0.0.1", 0))
        entrance = Entrance(own, kind, 100, plenty)
        [client] = clients(own.getsockname(), 1)
        await until(lambda: kind.made == 1)
        assert client.recv(5) == b"hello"
        client.close()
        entrance.close()

    run(story, factory)
    assert caplog.text.count("none left") == 2


@pytest.mark.parametrize("factory", LOOPS)
def test_nobody_is_let_in_once_it_is_closed(factory: Any) -> None:
    async def story() -> None:
        kind, own = greeting(), bound()
        entrance = Entrance(own, kind, 100, plenty)
        address = own.getsockname()
        entrance.close()
        entrance.close()
        await entrance.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            clients(address, 1)
        assert kind.made == 0

    run(story, factory)


@pytest.mark.parametrize("factory", LOOPS)
def test_who_speaks_no_tls_keeps_nobody_else_out(factory: Any, tmp_path: Path) -> None:
    files = write_certificate(tmp_path, "own")

    async def story() -> bytes:
        kind, own = greeting(), bound()
        entrance = Entrance(own, kind, 100, plenty, proving(files))
        [rude] = clients(own.getsockname(), 1)
        with closing(rude):
            rude.sendall(b"GET / HTTP/1.1\r\n\r\n")
            trusting = ssl.create_default_context(cafile=str(files.certificate))
            host, port = own.getsockname()
            reader, writer = await asyncio.open_connection(
                host, port, ssl=trusting, server_hostname="localhost"
            )
            said = await reader.read(5)
            writer.close()
            await entrance.wait_closed()
            # Its connection was closed, and it was never let in.
            while await asyncio.to_thread(rude.recv, 100):
                pass
        entrance.close()
        assert kind.made == 1
        return said

    assert run(story, factory) == b"hello"


@pytest.mark.parametrize("factory", LOOPS)
def test_who_does_not_begin_with_tls_does_not_keep_a_server_from_ending(
    factory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_LAST_LOOK_S", 0.01)
    files = write_certificate(tmp_path, "own")

    async def story() -> None:
        kind, own = greeting(), bound()
        entrance = Entrance(own, kind, 100, plenty, proving(files))
        [silent] = clients(own.getsockname(), 1)
        with closing(silent):
            await until(lambda: bool(entrance._coming))
            entrance.close()
            await entrance.wait_closed()
            await until(lambda: not entrance._coming)
            assert await asyncio.to_thread(silent.recv, 1) == b""
        assert kind.made == 0

    run(story, factory)


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize(("room", "at_once"), [(-3, 1), (0, 1), (1, 1), (5, 5)])
def test_no_more_are_let_in_at_once_than_there_is_room_for_but_one_for_which_others_go(
    factory: Any, room: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was let in a moment ago is not idle because nothing of it was read yet."""
    seen: list[int] = []
    let_in = Entrance._let_in

    def counting(self: Entrance) -> None:
        before = len(self._coming)
        let_in(self)
        seen.append(len(self._coming) - before)

    monkeypatch.setattr(Entrance, "_let_in", counting)

    async def story() -> None:
        kind, own = greeting(), bound()
        entrance = Entrance(own, kind, 100, lambda: room)
        waiting = clients(own.getsockname(), 10)
        await until(lambda: kind.made == 10)
        entrance.close()
        for client in waiting:
            client.close()

    run(story, factory)
    assert max(seen) == at_once
