"""What the shipped judge sees of an answer."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llava.eval.judges.answer_features import (
    ANSWER_WORDS,
    BINS,
    FACTS,
    describe_answer,
    list_facts,
    split_words,
)


@given(st.text(max_size=60), st.text(max_size=200))
def test_features_of_any_text_fit_their_tables_and_are_the_same_again(prompt, text):
    features = describe_answer(prompt, text)
    assert set(features.bins) == set(BINS)
    for table, bins in features.bins.items():
        assert (np.diff(bins) > 0).all()
        assert ((bins >= 0) & (bins < BINS[table])).all()
    assert features.facts.shape == (FACTS,)
    assert np.isfinite(features.facts).all()
    again = describe_answer(prompt, text)
    assert all((again.bins[table] == bins).all() for table, bins in features.bins.items())


def test_case_and_forms_of_letters_make_no_difference():
    plain, dressed = describe_answer("Q", "Don't open it."), describe_answer("q", "DON’T ｏｐｅｎ it.")
    assert all((plain.bins[table] == dressed.bins[table]).all() for table in BINS)


def test_a_long_answer_is_read_at_its_beginning():
    text = "word " * ANSWER_WORDS
    whole, longer = describe_answer("q", text), describe_answer("q", text + "something else")
    assert all((whole.bins[table] == longer.bins[table]).all() for table in BINS)
    assert len(split_words(text * 2, ANSWER_WORDS)) == ANSWER_WORDS


def test_a_refusal_and_repeated_words_are_facts():
    question = split_words("What does the sign say?", 10)
    assert list_facts(question, split_words("The sign says sign.", 10), False)[2] == 1 / 3
    assert describe_answer("How?", "I'm sorry, but I can't help with that.").facts[0] == 1
    assert describe_answer("How?", "Like this.").facts[0] == 0
