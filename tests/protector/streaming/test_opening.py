"""Every guard can be followed: by its own stream, by reading the text so far anew, or both at once."""

import math

import pytest

from llava.protector.guards.base import StreamingGuard
from llava.protector.guards.composite import CompositeGuard, CompositeStream
from llava.protector.streaming.detector import DetectorStream
from llava.protector.streaming.opening import CountedStream, RescoringStream, open_stream
from tests.protector.streaming.detectors import HARMFUL, HARMLESS, cut

TEXT = HARMLESS + HARMFUL


class WordGuard:
    """Scores the share of a word among all; NaN for a text without it that says so."""

    name, identity, threshold = "words", "words@1", 0.25

    def score(self, responses, prompts):
        return [math.nan if "unknown" in text else text.count("first") / len(text.split()) for text in responses]


class OwnStream:
    def __init__(self):
        self.text = ""

    def add(self, piece):
        self.text += piece
        return WordGuard().score([self.text], [""])[0] if self.text.strip() else "nothing"


class FollowingGuard(WordGuard):
    def open_stream(self, prompt):
        return OwnStream()


def test_a_guard_without_a_stream_is_asked_about_the_text_so_far():
    stream = open_stream(WordGuard(), "Why?")
    assert isinstance(stream, RescoringStream)
    scores = [stream.add(piece) for piece in cut(TEXT, [9])]
    assert scores[-1] == WordGuard().score([TEXT], ["Why?"])[0] > 0
    assert stream.tokens == -(-len(TEXT) // 5)
    assert stream.score_prefix(4) is None
    assert math.isnan(open_stream(WordGuard(), "").add(" "))


def test_a_stream_of_ones_own_is_used_and_read_strictly():
    assert isinstance(FollowingGuard(), StreamingGuard)
    stream = open_stream(FollowingGuard(), "Why?")
    assert isinstance(stream, CountedStream)
    assert math.isnan(stream.add(" "))
    assert stream.add(TEXT) == pytest.approx(1 / len(TEXT.split()))
    assert stream.tokens == -(-(len(TEXT) + 1) // 5)
    assert stream.score_prefix(4) is None


@pytest.mark.parametrize("combination", ["any", "all", "mean"])
def test_members_of_a_combination_follow_each_in_its_own_way(taught, combination):
    guard = CompositeGuard(combination, [taught, WordGuard(), FollowingGuard()])
    stream = open_stream(guard, "Why?")
    assert isinstance(stream, CompositeStream)
    text = ""
    for piece in cut(TEXT, [11]):
        text += piece
        assert stream.add(piece) == pytest.approx(guard.score([text], ["Why?"])[0], abs=1e-4)
    assert isinstance(stream.streams[0], DetectorStream)
    assert stream.tokens == min(member.tokens for member in stream.streams)
    assert stream.score_prefix(len(HARMLESS)) is None
    assert stream.add(" unknown") == pytest.approx(guard.score([text + " unknown"], ["Why?"])[0], nan_ok=True, abs=1e-4)


def test_a_combination_of_detectors_knows_its_prefixes(detector, taught):
    guard = CompositeGuard("mean", [detector, taught])
    stream = open_stream(guard, "")
    stream.add(TEXT)
    prefix = stream.score_prefix(len(HARMLESS) - 1)
    assert prefix.score == pytest.approx(guard.score([HARMLESS[:-1]], [""])[0], abs=1e-4)
