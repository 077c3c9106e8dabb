"""Messages arrive whole and in their order, however the bytes come."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.api.workers.channel import Channel, Head, pack, unpack

Message = tuple[Head, list[bytes]]

texts = st.text(max_size=20)
heads = st.dictionaries(
    texts.filter(lambda key: key != "sizes"), st.integers(-(2**53), 2**53) | texts
)
sent_messages = st.lists(
    st.tuples(heads, st.lists(st.binary(max_size=100), max_size=3)), max_size=6
)


class Written(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.content = b""

    def writelines(self, list_of_data: Any) -> None:
        self.content += b"".join(list_of_data)

    def is_closing(self) -> bool:
        return False


def written(messages: list[Message]) -> bytes:
    transport = Written()
    channel = Channel(lambda *_: None, lambda: None)
    channel.connection_made(transport)
    for head, buffers in messages:
        channel.send(dict(head), buffers)
    return transport.content


@given(sent_messages, st.lists(st.integers(1, 60), min_size=1))
def test_messages_are_those_that_were_sent_however_the_bytes_are_cut(
    messages: list[Message], cuts: list[int]
) -> None:
    content = written(messages)
    received: list[Message] = []
    channel = Channel(
        lambda head, buffers: received.append((head, [bytes(b) for b in buffers])), lambda: None
    )
    start, turn = 0, 0
    while start < len(content):
        size = cuts[turn % len(cuts)]
        channel.data_received(content[start : start + size])
        start, turn = start + size, turn + 1
    assert received == messages


@given(
    st.dictionaries(
        texts,
        st.none()
        | arrays.arrays(
            st.sampled_from(["<f4", "<f8", "<i8", "|u1", "|b1"]),
            arrays.array_shapes(min_dims=0, min_side=0, max_dims=3),
        ),
        max_size=4,
    )
)
def test_arrays_keep_their_values_their_type_and_their_shape(
    given_arrays: dict[str, Any],
) -> None:
    head, buffers = pack(given_arrays)
    found = unpack(head, [bytearray(buffer) for buffer in buffers])
    assert found.keys() == given_arrays.keys()
    for name, array in given_arrays.items():
        if array is None:
            assert found[name] is None
        else:
            other = found[name]
            assert other is not None
            assert other.dtype == array.dtype
            np.testing.assert_array_equal(other, array)


def test_nothing_is_sent_to_an_end_that_is_gone() -> None:
    lost = []
    channel = Channel(lambda *_: None, lambda: lost.append(True))
    transport = Written()
    channel.connection_made(transport)
    channel.connection_lost(None)
    channel.send({"kind": "draining"})
    assert lost == [True]
    assert transport.content == b""


def test_what_comes_in_may_be_written_to() -> None:
    """PyTorch warns of arrays that may not."""
    head, buffers = pack({"inputs": np.ones((2, 3), np.float32)})
    found = unpack(head, [bytearray(buffer) for buffer in buffers])["inputs"]
    assert found is not None
    assert found.flags.writeable


@pytest.mark.parametrize("size", [2**20, 5 * 2**20 + 1])
def test_a_large_message_crosses_a_socket(size: int) -> None:
    async def cross() -> Message:
        loop = asyncio.get_running_loop()
        got: asyncio.Future[Message] = loop.create_future()
        ends = socket.socketpair()

        def end() -> Channel:
            return Channel(
                lambda head, buffers: got.set_result((head, [*map(bytes, buffers)])), lambda: None
            )

        channels = [(await loop.create_connection(end, sock=one))[1] for one in ends]
        channels[0].send({"kind": "compute"}, [np.full(size, 7, np.uint8).data])
        try:
            return await got
        finally:
            for channel in channels:
                channel.close()
            await asyncio.sleep(0)

    head, buffers = asyncio.run(cross())
    assert head == {"kind": "compute"}
    assert buffers == [b"\x07" * size]
