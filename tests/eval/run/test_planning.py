"""Batches depend on the question list and the batch size alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.schema import ImageType, Question
from llava.errors import InputError
from llava.eval.run.planning import (
    check_texts,
    derive_seed,
    hash_questions,
    order_for_rank,
    plan_batches,
    select_pending,
    split_batch,
)


def build_question(number: int, length: int, with_image: bool) -> Question:
    kind = ImageType.SD if with_image else ImageType.TEXT
    return Question("bench", "A", str(number), kind, "x" * length, image="a.jpg" if with_image else None)


shapes = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=60)
question_lists = shapes.map(lambda rows: [build_question(i, *row) for i, row in enumerate(rows)])


@given(question_lists, st.integers(1, 9))
def test_each_question_is_in_exactly_one_batch(questions, batch_size):
    batches = plan_batches(questions, batch_size)
    assert sorted(place for batch in batches for place in batch.positions) == list(range(len(questions)))
    assert all(1 <= len(batch.positions) <= batch_size for batch in batches)
    assert [batch.index for batch in batches] == list(range(len(batches)))


@given(question_lists, st.integers(1, 9))
def test_batches_never_mix_images_and_text_and_go_from_long_to_short(questions, batch_size):
    order = []
    for batch in plan_batches(questions, batch_size):
        assert len({questions[place].image is None for place in batch.positions}) == 1
        order += batch.positions
    sort_keys = [(questions[place].image is None, -len(questions[place].prompt), place) for place in order]
    assert sort_keys == sorted(sort_keys)


@given(question_lists, st.integers(1, 9), st.data())
def test_a_resume_keeps_every_batch_whole(questions, batch_size, data):
    batches = plan_batches(questions, batch_size)
    done = {question.key for question in questions if data.draw(st.booleans())}
    pending = select_pending(batches, questions, done)
    assert set(pending) <= set(batches)
    covered = done | {questions[place].key for batch in pending for place in batch.positions}
    assert covered == {question.key for question in questions}
    for batch in set(batches) - set(pending):
        assert all(questions[place].key in done for place in batch.positions)
    parts = select_pending(batches, questions, done, whole=False)
    assert [batch.index for batch in parts] == [batch.index for batch in pending]
    open_keys = [questions[place].key for batch in parts for place in batch.positions]
    assert sorted(open_keys) == sorted(question.key for question in questions if question.key not in done)


@given(st.integers(0, 30), st.integers(1, 5))
def test_every_rank_sees_every_batch_and_shares_are_even(count, num_processes):
    batches = plan_batches([build_question(i, 3, False) for i in range(count)], 1)
    shares = []
    for rank in range(num_processes):
        order = order_for_rank(batches, rank, num_processes)
        assert sorted(batch.index for batch in order) == list(range(count))
        own = [batch for batch in order if batch.index % num_processes == rank]
        assert order[: len(own)] == own
        shares.append(len(own))
    assert max(shares) - min(shares) <= 1
    assert sum(shares) == count


@given(st.lists(st.integers(), min_size=2, max_size=20))
def test_halves_keep_the_rows_in_order(positions):
    first, second = split_batch(positions)
    assert [*first, *second] == positions
    assert first
    assert second
    assert 0 <= len(first) - len(second) <= 1


def test_seed_depends_on_run_seed_and_key_only():
    question = build_question(1, 3, False)
    assert derive_seed(0, question.key) == derive_seed(0, replace(question, prompt="other").key)
    assert derive_seed(0, question.key) != derive_seed(1, question.key)
    assert derive_seed(0, question.key) != derive_seed(0, build_question(2, 3, False).key)
    assert 0 <= derive_seed(7, question.key) < 2**63


def test_hash_follows_what_is_asked_and_not_where_the_data_lies():
    question = replace(build_question(1, 3, True), image="/here/imgs/1.jpg")
    assert hash_questions([question]) == hash_questions([replace(question, image="/there/imgs/1.jpg")])
    assert hash_questions([question]) != hash_questions([replace(question, prompt="other")])
    assert hash_questions([question]) != hash_questions([replace(question, image="/here/imgs/2.jpg")])
    assert hash_questions([question]) != hash_questions([replace(question, harmful=False)])


def test_a_text_that_is_no_unicode_is_refused_by_name():
    question = build_question(1, 3, False)
    with pytest.raises(InputError, match="question bench/A/1/TEXT holds half of a surrogate"):
        check_texts([question, replace(question, prompt="\ud800")])
    check_texts([question, replace(question, prompt="日本語 😀")])


def test_batch_size_below_one_is_a_defect():
    with pytest.raises(ValueError, match="at least 1"):
        plan_batches([], 0)
