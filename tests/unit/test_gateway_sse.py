"""The parser of server-sent events: what it reads, however it is cut, and what it refuses to hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import ProviderResponseInvalid
from kit.provider_decoding import cut
from provider_gateway.adapters.http.sse import SseEvent, SseParser

pytestmark = pytest.mark.feature("P6")


def parse(*pieces: bytes, limit: int = 10_000) -> list[tuple[bytes, bytes]]:
    parser = SseParser(limit)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return [tuple(event) for event in [*events, *parser.end()]]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"data:a\n\n", [(b"", b"a")]),
        (b"data:  a\n\n", [(b"", b" a")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"data\ndata\n\n", [(b"", b"\n")]),
        (b"data:\n\n", [(b"", b"")]),
        (b"event: ping\ndata: a\n\ndata: b\n\n", [(b"ping", b"a"), (b"", b"b")]),
        (b"event: ping\n\ndata: b\n\n", [(b"", b"b")]),
        (b": comment\ndata: a\n: more\n\n", [(b"", b"a")]),
        (b":\n\n\n\ndata: a\n\n", [(b"", b"a")]),
        (b"id: 1\nretry: 5\nfoo: bar\nfoo\ndata: a\n\n", [(b"", b"a")]),
        (b"datax: a\n data: b\ndata: c\n\n", [(b"", b"c")]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [(b"", b"a"), (b"", b"b"), (b"", b"c")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"", b"a")]),
        (b"data: a", [(b"", b"a")]),
        (b"data: a\n", [(b"", b"a")]),
        (b"data: a\r", [(b"", b"a")]),
        (b"data: [DONE]\n\n", [(b"", b"[DONE]")]),
        (b"", []),
        (b"\xef\xbb", []),
        (b"\n", []),
    ],
)
def test_reads_what_the_standard_says_however_it_is_cut(stream: bytes, events: list[tuple[bytes, bytes]]) -> None:
    assert parse(stream) == events
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == events
    for place in range(1, len(stream)):
        assert parse(*cut(stream, [place])) == events


lines = st.one_of(
    st.text(max_size=12).map(lambda text: "data: " + text.replace("\r", "").replace("\n", "")),
    st.sampled_from(["", "", "event: x", ": hush", "data", "data:", "id: 3", "né:ü"]),
)


@given(lines=st.lists(lines, max_size=12), ending=st.sampled_from(["\n", "\r\n", "\r"]), places=st.lists(st.integers(0, 200), max_size=8))
def test_any_stream_in_any_pieces_reads_as_it_does_whole(lines: list[str], ending: str, places: list[int]) -> None:
    plain = "\n".join(lines).encode()
    stream = ending.join(lines).encode()
    assert parse(*cut(stream, places)) == parse(stream) == parse(plain)


def test_an_event_is_given_as_soon_as_its_blank_line_is_there() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\n") == [SseEvent(b"", b"a")]
    assert parser.feed(b"data: b\r\r") == [SseEvent(b"", b"b")]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 90, b"data: 12345\n" * 12, b": " + b"x" * 90], ids=["line", "lines", "comment"])
def test_an_event_beyond_the_bound_is_refused_by_name(piece: bytes) -> None:
    parser = SseParser(max_event_bytes=50)
    with pytest.raises(ProviderResponseInvalid, match="more than 50 bytes"):
        for place in range(0, len(piece), 7):
            parser.feed(piece[place : place + 7])


def test_many_small_events_never_reach_the_bound() -> None:
    parser = SseParser(max_event_bytes=50)
    assert sum(len(parser.feed(b"data: 12345\n\n: x\n")) for _ in range(1000)) == 1000
