"""A head is known that differs from one that was read in nothing but values that do not matter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.api import known_heads
from service.api.known_heads import Facts, Known, KnownHeads
from service.types import Priority

FACTS = Facts("/predict", "/predict", Priority.NORMAL, b"")
FIRST = [
    (b"Host", b"here"),
    (b"Content-Type", b"application/json"),
    (b"X-Request-Timeout", b"1.5"),
    (b"Authorization", b"Bearer secret"),
    (b"X-Request-ID", b"mine"),
    (b"traceparent", b"00-1-2-03"),
    (b"Content-Length", b"2"),
]

Pairs = list[tuple[bytes, bytes]]


def sent(pairs: Pairs, body: bytes = b"{}", line: bytes = b"POST /predict HTTP/1.1") -> bytes:
    return b"\r\n".join([line, *(b"%b: %b" % pair for pair in pairs), b"", body])


def parsed(pairs: Pairs) -> Pairs:
    """As the parser gives them."""
    return [(name.lower(), value) for name, value in pairs]


def knowing(pairs: Pairs, longest_bytes: int = 10_000, body: bytes = b"{}") -> KnownHeads:
    heads = KnownHeads(longest_bytes)
    heads.note(sent(pairs, body), parsed(pairs), FACTS)
    return heads


def other(name: bytes, value: bytes, pairs: Pairs = FIRST) -> Pairs:
    return [(found, value if found == name else old) for found, old in pairs]


visible = st.binary(min_size=1, max_size=40).map(
    lambda data: bytes(0x21 + byte % 94 for byte in data)
)


@given(timeout=visible, number=visible, trace=visible, body=st.binary(max_size=3000))
def test_a_head_with_other_values_is_known_and_they_are_read(
    timeout: bytes, number: bytes, trace: bytes, body: bytes
) -> None:
    pairs = other(b"X-Request-Timeout", timeout)
    pairs = other(b"X-Request-ID", number, pairs)
    pairs = other(b"traceparent", trace, pairs)
    pairs = other(b"Content-Length", b"%d" % len(body), pairs)
    assert knowing(FIRST).read(sent(pairs, body)) == Known(FACTS, timeout, number)


def test_a_head_that_gives_no_deadline_and_no_id_is_known() -> None:
    pairs = [FIRST[0], FIRST[-1]]
    assert knowing(pairs).read(sent(pairs)) == Known(FACTS, None, None)


@given(st.data())
def test_a_head_that_differs_in_any_other_byte_is_not_known(data: st.DataObject) -> None:
    came = bytearray(sent(FIRST))
    place = data.draw(st.integers(0, len(came) - 3))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != came[place]))
    heads = knowing(FIRST)
    # Of what may differ.
    values = [b"1.5", b"mine", b"00-1-2-03", b"2"]
    for value in values:
        start = came.rindex(b": " + value + b"\r") + 2
        if start <= place < start + len(value):
            return
    came[place] = byte
    assert heads.read(bytes(came)) is None


def test_a_head_that_has_more_or_less_or_another_order_is_not_known() -> None:
    heads = knowing(FIRST)
    for pairs in (
        [*FIRST, (b"X-More", b"1")],
        [*FIRST, (b"X-Request-Timeout", b"2")],
        [*FIRST, (b"Transfer-Encoding", b"chunked")],
        FIRST[1:],
        [FIRST[0], *FIRST[3:]],
        FIRST[::-1],
    ):
        assert heads.read(sent(pairs)) is None
    assert heads.read(sent(FIRST, line=b"POST /eval HTTP/1.1")) is None
    assert heads.read(sent(other(b"Authorization", b"Bearer others"))) is None


def test_what_is_not_one_whole_request_is_not_known() -> None:
    heads = knowing(FIRST)
    whole = sent(FIRST)
    assert heads.read(whole) is not None
    assert heads.read(whole + whole) is None
    assert heads.read(whole + b"x") is None
    assert heads.read(b"\r\n" + whole) is None
    for end in range(len(whole)):
        assert heads.read(whole[:end]) is None


def test_a_length_is_known_as_a_plain_number_only() -> None:
    heads = knowing(FIRST)
    for length in (b"02", b"+2", b"2,2", b"0x2", b"1", b"3"):
        assert heads.read(sent(other(b"Content-Length", length))) is None


def test_a_value_that_could_be_read_in_more_than_one_way_is_not_known() -> None:
    heads = knowing(FIRST)
    for value in (b"1.5 ", b" 1.5", b"1.5\t", b"1 5", b"", b"1\n5", b"1.5\0"):
        assert heads.read(sent(other(b"X-Request-Timeout", value))) is None


def test_a_zero_in_place_of_what_parts_the_values_makes_no_other_head_known() -> None:
    joined = b"POST /predict HTTP/1.1\0Content-Length\0\r\n\r\n{}"
    assert knowing([FIRST[-1]]).read(joined) is None


def test_nothing_is_remembered_whose_end_depends_on_who_reads_it() -> None:
    for pairs in (
        FIRST[:-1],
        [*FIRST, (b"Transfer-Encoding", b"chunked")],
        [*FIRST, (b"Upgrade", b"h2c")],
        [*FIRST, (b"Content-Length", b"2")],
        [*FIRST, (b"X-Request-Timeout", b"2")],
        other(b"Content-Length", b"2 "),
        [*FIRST, (b"X-Zero", b"\0")],
    ):
        assert knowing(pairs).read(sent(pairs)) is None


def test_a_head_that_is_too_long_is_not_remembered_or_known() -> None:
    head_bytes = len(sent(FIRST)) - len(b"\r\n\r\n{}")
    assert knowing(FIRST, head_bytes).read(sent(FIRST)) is not None
    assert knowing(FIRST, head_bytes - 1).read(sent(FIRST)) is None
    assert knowing(FIRST, head_bytes).read(sent(other(b"X-Request-ID", b"mine5"))) is None
    long = [*FIRST, (b"X-More", 3000 * b"x")]
    assert knowing(long).read(sent(long)) is None


def test_heads_that_anybody_makes_up_do_not_fill_the_memory_and_no_token_is_kept() -> None:
    heads = knowing(FIRST)
    for number in range(known_heads._MOST):
        pairs = [*FIRST, (b"X-Made-Up", b"%d" % number)]
        heads.note(sent(pairs), parsed(pairs), FACTS)
    assert len(heads._patterns) <= known_heads._MOST
    assert b"secret" not in repr(heads._patterns).encode()


def test_of_two_that_came_together_nothing_is_remembered() -> None:
    """The head is that of the first, and what was read of it that of the second."""
    heads = KnownHeads(10_000)
    second = other(b"Host", b"elsewhere")
    heads.note(sent(FIRST) + sent(second), parsed(second), FACTS)
    assert heads.read(sent(FIRST)) is None
    assert heads.read(sent(second)) is None
