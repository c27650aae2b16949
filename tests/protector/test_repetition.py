"""Rewrites that go round in circles end before they do."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.protector.repetition import StopAtRepetition, whole_sentences, without_repetition

TOKENS = st.lists(st.integers(0, 3), max_size=40)


def has_repetition(tokens, run):
    runs = [tuple(tokens[start : start + run]) for start in range(len(tokens) - run + 1)]
    return len(set(runs)) < len(runs)


@given(TOKENS, st.integers(1, 5))
def test_what_is_kept_is_the_longest_beginning_without_a_whole_repetition(tokens, run):
    kept, repeated = without_repetition(tokens, run)
    assert list(kept) == tokens[: len(kept)]
    assert repeated is has_repetition(tokens, run)
    if repeated:
        assert has_repetition(tokens[: len(kept) + run], run)
        assert not has_repetition(tokens[: len(kept) + run - 1], run)
    else:
        assert list(kept) == tokens


@given(st.lists(TOKENS.filter(len), min_size=1, max_size=3), st.integers(1, 5))
def test_writing_stops_at_the_token_that_completes_a_repetition(rows, run):
    length = min(map(len, rows))
    rows = [row[:length] for row in rows]
    prompt = torch.zeros(len(rows), 2, dtype=torch.long)
    stop = StopAtRepetition(2, run)
    for end in range(1, length + 1):
        written = torch.tensor([row[:end] for row in rows])
        ended = stop(torch.cat([prompt, written], dim=1))
        assert ended.dtype == torch.bool
        for row, has_ended in zip(rows, ended.tolist(), strict=True):
            completes = has_repetition(row[:end], run) and not has_repetition(row[: end - 1], run)
            assert has_ended or not completes
            assert not has_ended or has_repetition(row[:end], run)


def test_what_the_prompt_says_may_be_said_again():
    stop = StopAtRepetition(3, run=3)
    assert not stop(torch.tensor([[4, 5, 6, 4, 5, 6]])).any()
    assert stop(torch.tensor([[4, 5, 6, 4, 5, 6, 4, 5, 6]])).all()


@given(st.text(alphabet="ab .!?\n\"')", max_size=30))
def test_whole_sentences_are_a_beginning_of_the_text(text):
    kept = whole_sentences(text)
    assert text.startswith(kept)
    assert whole_sentences(kept) == kept


def test_quotes_and_lists_stay_whole():
    assert whole_sentences('He said "no." And th') == 'He said "no."'
    assert whole_sentences("Pay 3.50 in cash! And 3.5") == "Pay 3.50 in cash!"
