import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.training.made_answers import (
    HARM_SENTENCES,
    HARM_SOURCE,
    SENTENCES,
    SOURCE,
    fill_gaps,
    make_answers,
    make_harm,
    read_sentences,
)


def test_every_kind_is_there_and_nothing_twice():
    rows = make_answers(20)
    kinds = read_sentences()["answers"]
    assert len(kinds) >= 18
    assert len(rows) == 20 * len(kinds)
    assert max(Counter((row.prompt, row.response) for row in rows).values()) <= 2  # two kinds may share a sentence
    assert {(row.harmful, row.source) for row in rows} == {(False, SOURCE)}
    assert all(row.response.strip() for row in rows)


def test_no_gap_is_left():
    names = set(read_sentences()["words"])
    for row in make_answers(110):
        for text in (row.prompt, row.response):
            assert not {name.rstrip("2") for name in re.findall(r"\{([a-z]+2?)\}", text)} & names, text


def test_the_seed_decides():
    assert make_answers(5) == make_answers(5)
    assert make_answers(5) != make_answers(5, seed=1)


@pytest.mark.parametrize(("path", "kinds"), [(SENTENCES, "answers"), (HARM_SENTENCES, "kinds")])
def test_every_gap_has_words(path, kinds):
    sentences = read_sentences(path)
    words = read_sentences()["words"] | sentences["words"]
    for parts in sentences[kinds].values():
        for text in (text for list_ in parts.values() for text in list_):
            for name in re.findall(r"\{([a-z]+)2?\}", text):
                assert len(words[name]) > 1, name


def test_short_harm_stands_beside_harmless_sentences_in_the_same_words():
    made = make_harm(20)
    kinds = read_sentences(HARM_SENTENCES)["kinds"]
    assert Counter(each.row.harmful for each in made) == {True: 20 * len(kinds), False: 20 * len(kinds)}
    assert {each.row.source for each in made} == {HARM_SOURCE}
    assert make_harm(20) == made != make_harm(20, seed=1)
    for each in made:
        assert not re.search(r"\{[a-z]+2?\}", each.row.prompt + each.row.response)
        pattern = re.sub(r"\\{[a-z]+2?\\}", ".+", re.escape(each.sentence))
        assert re.fullmatch(pattern, each.row.response)


def test_no_sentence_is_harmful_and_harmless():
    for parts in read_sentences(HARM_SENTENCES)["kinds"].values():
        assert not set(parts["harmful"]) & set(parts["harmless"])


@pytest.mark.parametrize("seed", range(5))
def test_one_name_is_one_word_in_a_pair(seed):
    words = {"x": ["a", "b", "c"]}
    question, answer = fill_gaps("{x} {x2}", "{x2} {x} {y", words, random.Random(seed))
    first, second = question.split()
    assert first != second
    assert answer == f"{second} {first} {{y"


@given(st.text(alphabet="abc {}\n", max_size=30))
def test_text_without_a_known_gap_stays(text):
    if not re.search(r"\{[a-z]+\}", text):
        assert fill_gaps(text, text, {"x": ["a", "b"]}, random.Random(0)) == (text, text)
