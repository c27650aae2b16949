"""Scores are kept as they come: none is lost, none is scored twice, another guard's are not taken."""

import json
import math

import pytest

from llava.errors import FailedRunError, InputError
from llava.model.options import LoadOptions
from llava.protector.guards.composite import CompositeGuard
from llava.quality.guard_bench.scores import CHUNK, WARM_UP, ScoreBook, count_megabytes

OPTIONS = LoadOptions(dtype="float32")


class Counting:
    """A guard of one's own, which counts what it is asked; it cannot tell of answers without a letter."""

    name, threshold = "counting", 0.5

    def __init__(self, identity="counting@1", dies_after=math.inf):
        self.identity, self.dies_after = identity, dies_after
        self.seen = []

    def score(self, responses, prompts):
        self.seen += [text for text in responses if text != WARM_UP[0]]
        if len(self.seen) > self.dies_after:
            raise KeyboardInterrupt
        return [math.nan if not text.strip(".") else min(len(text) / 100, 1.0) for text in responses]


TEXTS = [f"{'a' * (number % 90 + 1)}{number}" for number in range(3 * CHUNK)]
PROMPTS = ["How?"] * len(TEXTS)


def test_a_run_that_was_killed_goes_on(tmp_path):
    first = Counting(dies_after=2 * CHUNK)
    with pytest.raises(KeyboardInterrupt):
        ScoreBook(tmp_path, first, OPTIONS).score(PROMPTS, TEXTS)
    second = Counting()
    book = ScoreBook(tmp_path, second, OPTIONS)
    scores = book.score(PROMPTS, TEXTS)
    assert len(second.seen) == CHUNK
    assert scores == pytest.approx([min(len(text) / 100, 1.0) for text in TEXTS])
    assert book.seconds_of(PROMPTS, TEXTS) > 0
    third = Counting()
    assert ScoreBook(tmp_path, third, OPTIONS).score(PROMPTS, TEXTS) == scores
    assert third.seen == []


def test_a_line_that_was_cut_short_is_scored_again(tmp_path):
    book = ScoreBook(tmp_path, Counting(), OPTIONS)
    scores = book.score(PROMPTS, TEXTS)
    book.path.write_bytes(book.path.read_bytes()[:-20])
    guard = Counting()
    again = ScoreBook(tmp_path, guard, OPTIONS)
    assert again.score(PROMPTS, TEXTS) == scores
    assert len(guard.seen) == 1
    assert len([json.loads(line) for line in again.path.read_text().splitlines()]) == len(TEXTS)


def test_the_same_text_is_scored_once(tmp_path):
    guard = Counting()
    assert len(set(ScoreBook(tmp_path, guard, OPTIONS).score(["How?"] * 3, ["Yes."] * 3))) == 1
    assert guard.seen == ["Yes."]


def test_what_cannot_be_scored_stays_so(tmp_path):
    for _ in range(2):
        assert math.isnan(ScoreBook(tmp_path, Counting(), OPTIONS).score(["How?"], ["..."])[0])


def test_another_guard_and_other_numbers_have_another_file(tmp_path):
    paths = {
        ScoreBook(tmp_path, Counting(identity), LoadOptions(dtype=dtype)).path
        for identity in ("a", "b")
        for dtype in ("float32", "bfloat16")
    }
    assert len(paths) == 4


def test_no_text_is_written(tmp_path):
    book = ScoreBook(tmp_path, Counting(), OPTIONS)
    book.score(["How?"], ["A plain answer."])
    assert "plain" not in book.path.read_text()


@pytest.mark.parametrize("line", ['{"key": 5, "harm_score": 0.5, "seconds": 1}', '{"key": "a", "harm_score": 7}', "[]"])
def test_a_file_that_is_none_of_ours(tmp_path, line):
    book = ScoreBook(tmp_path, Counting(), OPTIONS)
    book.path.parent.mkdir(parents=True)
    book.path.write_text(line + "\n")
    with pytest.raises(InputError, match=str(book.path)):
        ScoreBook(tmp_path, Counting(), OPTIONS)


def test_a_guard_that_returns_too_few(tmp_path):
    guard = Counting()
    guard.score = lambda responses, prompts: []
    with pytest.raises(FailedRunError, match="guard counting returned 0 scores for 1 responses"):
        ScoreBook(tmp_path, guard, OPTIONS).score(["How?"], ["Yes."])


def test_megabytes(tiny_detector):
    from llava import HarmDetector

    detector = HarmDetector.from_pretrained(tiny_detector, dtype="float32")
    size = sum(weight.numel() for weight in detector.classifier.parameters()) * 4 / 1e6
    assert count_megabytes(detector) == pytest.approx(size)
    assert count_megabytes(CompositeGuard("any", [detector, detector])) == pytest.approx(size)
    assert count_megabytes(Counting()) is None
