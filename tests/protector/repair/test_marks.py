import math

from hypothesis import given
from hypothesis import strategies as st

from llava.data.token_scores import TokenScore
from llava.protector.repair.marks import HARM, TAIL, mark_all, mark_parts, mark_tails, rate_parts
from llava.protector.repair.parts import Part

values = st.lists(st.floats(-30, 30) | st.sampled_from([math.inf, -math.inf]), max_size=20)


@given(values)
def test_what_is_marked_has_harm_in_it_or_leads_up_to_it(found):
    marked = mark_parts(found)
    assert bool(marked) == bool(mark_all(found))
    if marked:
        assert max(found) in [found[number] for number in marked] or max(marked) < len(found)
    for number in marked - mark_all(found):
        assert number + 1 in marked
        assert found[number] < HARM


def test_sentences_behind_the_harm_wait_for_another_look():
    assert mark_parts([-4, 1, 4, 3, 2, 1, -3]) == {1, 2}


def test_the_tail_of_harm_goes_where_its_head_was_cut():
    assert mark_tails([TAIL, TAIL, TAIL - 0.1], [False, True, True]) == {1}
    assert mark_tails([-math.inf, math.inf], [True, True]) == {1}


def test_harm_in_several_places_goes_together():
    assert mark_parts([4, -5, 4, -5, 0.5]) == {0, 2, 4}


def test_a_token_without_a_score_is_harmful():
    tokens = [TokenScore(0, 4, math.nan), TokenScore(4, 8, 0.01)]
    found = rate_parts([Part(0, 4), Part(4, 8)], tokens, 0.5)
    assert found[0] == math.inf
    assert mark_parts(found) == {0}


def test_a_token_over_a_border_counts_on_both_sides():
    found = rate_parts([Part(0, 4), Part(4, 8), Part(8, 9)], [TokenScore(2, 6, 0.5)], 0.5)
    assert found == [0.0, 0.0, -math.inf]


def test_scores_are_seen_from_the_threshold():
    tokens = [TokenScore(0, 4, 0.8)]
    assert rate_parts([Part(0, 4)], tokens, 0.8) == [0.0]
    assert rate_parts([Part(0, 4)], tokens, 1.0)[0] < -5
