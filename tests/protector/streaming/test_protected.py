"""What is released of a stream, and what takes the place of the rest."""

import math
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llava import Protector
from llava.constants import REFUSAL, WITHHELD
from llava.data.schema import Action
from llava.errors import InputError
from llava.protector.streaming.protected import ProtectedStream
from tests.protector.streaming.detectors import HARMFUL, HARMLESS, LONGEST_STREAM, cut, vary

ENDLESS = {"patience": LONGEST_STREAM}


def run(protector, pieces, **options):
    """Return a finished stream and what each piece released."""
    stream = protector.open_stream("Why?", **options)
    outs = [stream.add(piece) for piece in pieces]
    outs.append(stream.finish())
    return stream, outs


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([HARMLESS, HARMLESS, HARMLESS, HARMFUL, "naïve 😀 ", "\n\n- "]), min_size=1, max_size=9),
    st.floats(0.1, 0.95),
    st.integers(0, 30),
    st.integers(1, 40),
    st.lists(st.integers(1, 50), min_size=1, max_size=3),
    st.sampled_from([{}, {"normalise": True}, {"stretches": ()}, {"pooling": "last", "stretches": ()}]),
)
@example([HARMLESS] * 4 + [HARMFUL] * 3, 0.5, 0, 1, [1], {})
def test_what_is_released_scores_below_the_threshold(taught, parts, threshold, look_ahead, stride, sizes, form):
    detector, text = vary(taught, **form), "".join(parts)
    protector = Protector(detector, threshold=threshold, trim=False)  # a stream is not trimmed
    options = {"look_ahead": look_ahead, "stride": stride, **ENDLESS}
    stream, outs = run(protector, cut(text, sizes), **options)
    assert "".join(outs) == stream.released
    assert text.startswith(stream.released)
    prefixes = sorted({"".join(outs[: i + 1]) for i in range(len(outs))} - {""})
    assert all(score < threshold for score in detector.score(prefixes, ["Why?"] * len(prefixes)))

    whole = run(protector, [text], **options)[0]
    assert (whole.released, whole.result) == (stream.released, stream.result)

    (expected,) = protector.guard(["Why?"], [text])
    result = stream.result
    assert (result.flagged, result.action) == (expected.flagged, expected.action)
    assert result.harm_score == pytest.approx(expected.harm_score, abs=1e-4)
    assert result.original_text == text
    assert stream.stopped is expected.flagged
    if expected.flagged:
        assert result.text == stream.released + ("\n\n" if stream.released else "") + REFUSAL
        assert stream.replacement == REFUSAL
    else:
        assert stream.released == result.text == text
        assert stream.replacement == ""


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(4, 40), st.integers(1, 40), st.integers(1, 60))
def test_harm_at_a_known_place_stays_inside(taught, before, look_ahead, stride, size):
    """With a look-ahead of several tokens not one of the harmful sentence's words leaves."""
    text = HARMLESS * before + HARMFUL * 4
    pieces = iter(cut(text + HARMLESS * 50, [size]))
    stream = Protector(taught, threshold=0.5).open_stream("", look_ahead=look_ahead, stride=stride, patience=0)
    for piece in pieces:
        assert not stream.stopped
        stream.add(piece)
        if stream.stopped:
            break
    assert stream.stopped
    assert (HARMLESS * before).startswith(stream.released.removesuffix(HARMFUL[:4]))
    assert next(pieces, None) is not None  # long before the end
    assert [stream.add(HARMLESS), stream.finish()] == ["", ""]
    assert stream.result.harm_score >= 0.5


def test_text_has_the_look_ahead_behind_it(taught):
    protector, look_ahead = Protector(taught, threshold=0.9), 20
    stream = protector.open_stream("", look_ahead=look_ahead, stride=8)
    released = ""
    count = lambda text: len(taught.tokenizer(text)["input_ids"])  # noqa: E731
    for character in HARMLESS * 8:
        released += stream.add(character)
        assert not released or count(stream.text) - count(released) >= look_ahead
    assert count(HARMLESS * 8) - count(released) < look_ahead + 3 * 8 + 6  # three strides and a word more at most
    assert released + stream.finish() == HARMLESS * 8


def test_the_first_text_comes_early(taught):
    stream = Protector(taught, threshold=0.9).open_stream("", look_ahead=16, stride=64)
    came = next(i for i, character in enumerate(HARMLESS * 20) if stream.add(character))
    assert came < len(HARMLESS) * 4
    assert len(stream.released) > 8


def test_patience(taught):
    """A score that comes down again lets the text go; one that stays up stops the stream."""
    mean = vary(taught, stretches=(), max_length=512)
    text = HARMFUL + HARMLESS * 12
    last, early = mean.score([text, HARMFUL + HARMLESS])
    assert last < early - 0.1
    protector = Protector(mean, threshold=(last + early) / 2)
    options = {"look_ahead": 0, "stride": 4}
    patient, outs = run(protector, cut(text, [10]), patience=200, **options)
    assert patient.released == text
    assert outs[4] == ""
    for patience in (0, 8):
        hasty, _ = run(protector, cut(text, [10]), patience=patience, **options)
        assert (hasty.stopped, hasty.released, hasty.result.action) == (True, "", Action.REFUSED)
        assert len(hasty.text) < len(text)


def test_a_response_that_is_flagged_at_its_end_keeps_what_was_released(taught):
    text = HARMLESS * 6 + HARMFUL * 3
    stream, _ = run(Protector(taught, threshold=0.5), [text], stride=8, **ENDLESS)
    assert 0 < len(stream.released) <= len(HARMLESS * 6)
    assert stream.result.text == f"{stream.released}\n\n{REFUSAL}"
    assert stream.result.original_text == text


def test_the_detoxifiers_rewrite_follows(taught, detoxifier):
    protector = Protector(taught, detoxifier)
    text = HARMLESS * 4 + HARMFUL * 4
    actions = set()
    for threshold in (0.3, 0.6, 0.9):
        stream, _ = run(protector, cut(text, [13]), threshold=threshold, max_new_tokens=8, stride=16, **ENDLESS)
        whole = Protector(taught, detoxifier, threshold, trim=False)  # a stream is not trimmed
        (expected,) = whole.guard(["Why?"], [text], max_new_tokens=8)
        assert (stream.replacement, stream.result.action) == (expected.text, expected.action)
        assert (stream.result.reason, stream.result.failure) == (expected.reason, None)
        if stream.result.action is Action.REWRITTEN:
            assert taught.score([stream.replacement])[0] < threshold
        actions.add(stream.result.action)
    assert Action.REWRITTEN in actions


def test_pieces_in_pieces_out(taught):
    taken = []

    def write():
        for piece in cut(HARMLESS * 6 + HARMFUL * 30, [9]):
            taken.append(piece)
            yield piece

    protector = Protector(taught, threshold=0.5)
    outs = list(protector.guard_stream("Why?", write(), stride=8, patience=0))
    assert outs[-1] == "\n\n" + REFUSAL
    assert HARMLESS.startswith("".join(outs[:-1])[: len(HARMLESS)])
    assert len("".join(taken)) < len(HARMLESS * 6 + HARMFUL * 6)  # the model is not asked for more
    assert "".join(protector.guard_stream("Why?", cut(HARMLESS * 9, [5]))) == HARMLESS * 9
    assert list(protector.guard_stream("Why?", [HARMFUL * 3])) == [REFUSAL]
    assert list(protector.guard_stream("Why?", [])) == [WITHHELD]


def test_an_error_of_the_model_passes_through(taught):
    def write():
        yield HARMLESS * 9
        raise ConnectionError("upstream is gone")

    stream = Protector(taught, threshold=0.5).guard_stream("Why?", write())
    assert next(stream)
    with pytest.raises(ConnectionError, match="upstream is gone"):
        next(stream)


@pytest.mark.parametrize("text", ["", "  \n", "\n" * 2000])
def test_an_empty_response_is_withheld_as_by_guard(detector, text):
    stream, outs = run(Protector(detector), cut(text, [7]))
    assert outs == [""] * len(outs)
    assert stream.result == Protector(detector).guard(["Why?"], [text])[0]
    assert (stream.stopped, stream.replacement) == (True, WITHHELD)


def test_blanks_before_the_first_word_change_nothing(taught):
    text = "\n" * 500 + HARMLESS * 9
    assert run(Protector(taught, threshold=0.9), cut(text, [3]))[0].released == text


def test_what_is_no_text_is_withheld(taught):
    protector = Protector(taught, threshold=0.9)
    for piece, reason in ((None, "piece is no text but NoneType"), (b"\xff\xfe", "piece is no UTF-8")):
        stream = protector.open_stream("Why?")
        stream.add(HARMLESS * 9)
        released = stream.released
        assert released
        assert stream.add(piece) == stream.add(HARMLESS) == stream.finish() == ""
        result = stream.result
        assert (result.action, result.reason, result.failure) == (Action.WITHHELD, reason, None)
        assert (result.harm_score, result.flagged) == (None, True)
        assert result.text == f"{released}\n\n{WITHHELD}"
    stream, _ = run(protector, [HARMLESS.encode(), b"\xf0\x9f"])
    assert (stream.result.reason, stream.released) == ("piece is no UTF-8", "")


def test_characters_in_halves_come_out_whole(taught):
    text = "naïve 😀 水を沸かす " * 12
    protector = Protector(taught, threshold=1.0)
    data = text.encode()
    for pieces in ([data[i : i + 1] for i in range(len(data))], [data], cut(text, [1])):
        stream, outs = run(protector, pieces, stride=5, look_ahead=3)
        assert "".join(outs) == text
        assert not any("\ud800" <= character <= "\udfff" for out in outs for character in out)
    stream, _ = run(protector, [HARMLESS * 9, "\ud83d"])
    (expected,) = protector.guard(["Why?"], [HARMLESS * 9 + "\ud83d"])
    assert (stream.result.action, stream.result.failure) == (Action.WITHHELD, expected.failure)
    assert stream.result.failure.part == "detector"


class Scripted:
    """A guard that does as it is told at a text of so many characters."""

    name, identity, threshold = "scripted", "scripted@1", 0.5

    def __init__(self, at, act):
        self.at, self.act = at, act

    def score(self, responses, prompts):
        return [self.act() if len(text) >= self.at else 0.1 for text in responses]


def lose():
    raise MemoryError("out of memory\nat last")


@pytest.mark.parametrize(
    ("act", "failure"), [(lose, ("detector", "MemoryError", "out of memory at last")), (lambda: math.nan, None)]
)
@pytest.mark.parametrize("size", [1, 64, 10**4])
@pytest.mark.parametrize("at", [10, 500])
def test_a_failing_detector_lets_nothing_more_out(act, failure, size, at):
    guard = Scripted(at, act)
    protector = Protector(guard)
    stream, _ = run(protector, cut(HARMLESS * 20, [size]), stride=16)
    result = stream.result
    assert stream.stopped
    assert result.action is Action.WITHHELD
    assert result.harm_score is None
    assert len(stream.released) < at
    assert bool(stream.released) == (at == 500)
    assert stream.replacement == WITHHELD
    found = result.failure and (result.failure.part, result.failure.error, result.failure.message)
    assert found == failure
    assert result.reason == (f"detector failed: {failure[1]}" if failure else "no finite harm score")


def test_scores_that_are_none_are_withheld():
    for value in ("0.1", None, True, 2.0, math.inf):
        stream, _ = run(Protector(Scripted(0, lambda value=value: value)), [HARMLESS * 9])
        assert (stream.result.action, stream.released) == (Action.WITHHELD, "")


class FailingStream:
    tokens = 40

    def add(self, piece):
        return 0.1

    def score_prefix(self, length):
        raise ValueError("lost")


class FailingGuard(Scripted):
    def __init__(self, stream):
        super().__init__(0, lambda: 0.1)
        self.stream = stream

    def open_stream(self, prompt):
        if self.stream is None:
            raise RuntimeError("no stream")
        return self.stream


@pytest.mark.parametrize(("stream", "error"), [(None, "RuntimeError"), (FailingStream(), "ValueError")])
def test_a_stream_that_fails_anywhere_is_withheld(stream, error):
    guarded, _ = run(Protector(FailingGuard(stream)), cut(HARMLESS * 9, [20]))
    assert (guarded.released, guarded.result.failure.error) == ("", error)


def test_a_network_that_is_lost_on_the_way(tiny_detector):
    from llava import HarmDetector

    lost = HarmDetector.from_pretrained(tiny_detector, device="cpu", dtype="float32")
    stream = Protector(lost, threshold=1.0).open_stream("Why?")
    stream.add(HARMLESS * 9)
    released = stream.released
    lost.classifier.to("meta")
    assert released
    assert [stream.add(HARMLESS * 9), stream.finish(), stream.released] == ["", "", released]
    assert stream.result.failure.part == "detector"


def test_weights_that_are_no_numbers(tiny_detector):
    import torch

    from llava import HarmDetector

    broken = HarmDetector.from_pretrained(tiny_detector, device="cpu", dtype="float32")
    with torch.no_grad():
        broken.classifier.score.weight.fill_(math.nan)
    stream, _ = run(Protector(broken), cut(HARMLESS * 9, [20]))
    assert (stream.result.action, stream.result.reason) == (Action.WITHHELD, "no finite harm score")


def test_numbers_that_make_no_sense(detector):
    protector = Protector(detector)
    for options in ({"look_ahead": -1}, {"stride": 0}, {"patience": -1}):
        with pytest.raises(ValueError, match="give at least 0, 1, 0"):
            protector.open_stream("Why?", **options)
    with pytest.raises(InputError, match="threshold"):
        protector.open_stream("Why?", threshold=0.0)
    assert isinstance(protector.open_stream(None), ProtectedStream)


def test_a_score_next_to_the_threshold_is_settled_by_the_detector(taught):
    """Whatever the rounding, the stream decides as `guard` does."""
    text = HARMLESS * 5
    (score,) = taught.score([text])
    for threshold in (math.nextafter(score, 0), score, math.nextafter(score, 1)):
        stream, _ = run(Protector(taught, threshold=threshold), cut(text, [4]), **ENDLESS)
        assert stream.stopped is (score >= threshold)


def test_random_orders_of_many_streams_at_once(taught):
    """Streams that take turns know nothing of each other."""
    protector = Protector(taught, threshold=0.5)
    generator = random.Random(0)
    texts = ["".join(generator.choices([HARMLESS, HARMLESS, HARMFUL], k=8)) for _ in range(6)]
    alone = [run(protector, cut(text, [9]), stride=16)[0].result for text in texts]
    streams = [(protector.open_stream("Why?", stride=16), iter(cut(text, [9]))) for text in texts]
    left = list(streams)
    while left:
        stream, pieces = generator.choice(left)
        piece = next(pieces, None)
        if piece is None:
            stream.finish()
            left.remove((stream, pieces))
        else:
            stream.add(piece)
    assert [stream.result for stream, _ in streams] == alone
