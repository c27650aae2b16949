import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.serve.chat.sse import MOST_EVENT_BYTES, EventParser, LongEventError, render_event


def parse(stream: bytes, cuts: list[int]) -> list[str]:
    """Return the events of a stream that is cut at the given places."""
    parser = EventParser()
    places = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    events = []
    for start, end in itertools.pairwise(places):
        events += parser.feed(stream[start:end])
    return events + parser.finish()


# A text of several lines is several lines of data; other line breaks of Unicode are letters like any other.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12)
EVENTS = st.lists(st.lists(TEXTS, min_size=1, max_size=3), max_size=5)
NOISE = st.sampled_from([b"", b": a comment", b":", b"event: delta", b"id: 7", b"retry", b"database: no data"])


@given(
    events=EVENTS,
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    space=st.booleans(),
    mark=st.booleans(),
    noise=st.lists(NOISE, max_size=4),
    cuts=st.lists(st.integers(0, 500), max_size=12),
)
def test_events_are_the_same_under_any_chunking(events, end, space, mark, noise, cuts):
    lines = [b"\xef\xbb\xbf" if mark else b""]
    for place, texts in enumerate(events):
        extra = noise[place % len(noise)] if noise else b""
        lines += [extra + end] if extra else []
        # Without a blank after the colon, one at the start of the text would be taken for it.
        blank = b" " if space or any(text.startswith(" ") for text in texts) else b""
        lines += [b"data:" + blank + text.encode() + end for text in texts]
        lines += [end]
    stream = b"".join(lines)
    assert parse(stream, cuts) == ["\n".join(texts) for texts in events]
    assert parse(stream, list(range(len(stream)))) == ["\n".join(texts) for texts in events]


@given(content=st.none() | st.text() | st.dictionaries(st.text(max_size=5), st.text(), max_size=3))
def test_what_is_written_is_read(content):
    event = {"content": content}
    (data,) = parse(render_event(event), [])
    assert json.loads(data) == json.loads(json.dumps(event).encode("utf-8", "replace"))


def test_a_last_event_without_a_blank_line_counts():
    assert parse(b"data: [DONE]", []) == ["[DONE]"]
    assert parse(b"data\n\n", []) == [""]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_an_endless_event_is_refused(end):
    parser = EventParser()
    piece = b"data: " + b"x" * (1 << 20) + end
    for _ in range(MOST_EVENT_BYTES // len(piece)):
        assert parser.feed(piece) == []
    with pytest.raises(LongEventError, match="8 MiB"):
        parser.feed(piece)
