import re
from collections import Counter

from llava.data.training.pairs import DetectorRow
from llava.quality.detector_rows import KeyedRow
from llava.train.embedded.selection import (
    EXCERPT_WORDS,
    EXCERPTS,
    HIDDEN,
    LONGEST_PROMPT,
    choose_rows,
    cut_excerpts,
    hide_passages,
    is_long,
)


def row(prompt, response, harmful=False, source="a"):
    return KeyedRow(DetectorRow(prompt, response, harmful, source), prompt)


def test_keys_take_turns():
    rows = [*[row("one", f"1.{i}") for i in range(9)], *[row("two", f"2.{i}") for i in range(2)], row("three", "3")]
    chosen = choose_rows(rows, {("a", False): 6})
    assert Counter(row.prompt for row in chosen) == {"one": 3, "two": 2, "three": 1}
    assert choose_rows(list(reversed(rows)), {("a", False): 6}) == chosen
    assert len(choose_rows(rows, {("a", False): 99})) == 12
    assert choose_rows(rows, {("a", True): 5, ("b", False): 5}) == []


def test_the_same_answer_is_taken_once():
    assert len(choose_rows([row("one", "No."), row("one", " No. "), row("two", "No.")], {("a", False): 9})) == 2


def test_a_very_long_question_is_left_out():
    (long,) = choose_rows([row("x" * (LONGEST_PROMPT + 1), "No.")], {("a", False): 1})
    assert (long.prompt, long.response) == ("", "No.")


def words(letter):
    return " ".join(f"{letter}{i}" for i in range(100))


def test_passages_lie_inside_ordinary_text():
    plain = [DetectorRow(f"p{i}", words(f"plain{i}-"), False, "alpaca_eval") for i in range(5)]
    harmful = [DetectorRow(f"h{i}", words(f"harm{i}-"), True, "jailbreakbench_responses") for i in range(4)]
    ignored = [DetectorRow("m", words("msts"), True, "msts_responses"), DetectorRow("s", "short", True, "gptfuzz")]
    sewn = hide_passages([*plain, *harmful, *ignored], {True: 4, False: 3})
    assert Counter((row.harmful, row.source) for row in sewn) == {(True, HIDDEN): 4, (False, HIDDEN): 3}
    for text in sewn:
        found = Counter(word[:4] for word in text.response.split())
        assert found["harm"] == (40 if text.harmful else 0)
        assert set(found) <= {"harm", "plai"}
        assert found["plai"] >= (35 if text.harmful else 75)
    assert hide_passages(harmful, {True: 4}) == []
    assert is_long(plain[0])
    assert not is_long(ignored[1])


def test_excerpts_are_whole_sentences_from_the_middle():
    sentences = [f"This is sentence number {i} of the answer, with some more words." for i in range(12)]
    rows = [DetectorRow(f"q{i}", " ".join([f"Start {i}.", *sentences]), i % 2 == 0, "a") for i in range(8)]
    cut = cut_excerpts([*rows, DetectorRow("short", "Too short.", True, "a")], {True: 3, False: 2})
    assert Counter((row.harmful, row.source) for row in cut) == {(True, EXCERPTS): 3, (False, EXCERPTS): 2}
    for row in cut:
        assert len(row.response.split()) in EXCERPT_WORDS
        assert set(re.split(r"(?<=\.) ", row.response)) <= set(sentences[2:10])
    assert cut_excerpts(rows, {}) == []
