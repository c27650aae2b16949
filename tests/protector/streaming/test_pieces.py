"""Characters cut in half come out whole, and what is no text is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.protector.streaming.pieces import PieceJoiner
from tests.protector.streaming.detectors import cut

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SIZES = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@given(TEXTS, SIZES)
def test_bytes_cut_anywhere(text, sizes):
    joiner, data, found = PieceJoiner(), text.encode(), []
    start = 0
    for i in range(len(data)):
        size = sizes[i % len(sizes)]
        found.append(joiner.take(data[start : start + size]))
        start += size
    assert "".join(found) + joiner.finish() == text


@given(TEXTS, SIZES)
def test_surrogates_cut_anywhere(text, sizes):
    units = text.encode("utf-16-le")
    halves = "".join(chr(int.from_bytes(units[i : i + 2], "little")) for i in range(0, len(units), 2))
    joiner = PieceJoiner()
    found = [joiner.take(piece) for piece in cut(halves, sizes)]
    assert "".join(found) + joiner.finish() == text
    assert not any("\ud800" <= character <= "\udfff" for piece in found for character in piece)


def test_what_is_no_text():
    for piece in (None, 7, ["a"], bytearray(b"a")):
        with pytest.raises(TypeError, match=f"no text but {type(piece).__name__}"):
            PieceJoiner().take(piece)
    with pytest.raises(UnicodeDecodeError):
        PieceJoiner().take(b"\xff")
    joiner = PieceJoiner()
    assert joiner.take(b"na\xc3") == "na"
    with pytest.raises(UnicodeDecodeError):
        joiner.take("text amid a character")
    joiner = PieceJoiner()
    joiner.take(b"\xc3")
    with pytest.raises(UnicodeDecodeError):
        joiner.finish()


def test_a_half_that_stays_alone_is_handed_on():
    joiner = PieceJoiner()
    assert joiner.take("a\ud83d") == "a"
    assert joiner.finish() == "\ud83d"
    assert PieceJoiner().take("\ude00a") == "\ude00a"
