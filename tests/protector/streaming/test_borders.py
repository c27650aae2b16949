"""Places where a text is cut depend on nothing but its characters."""

from hypothesis import given
from hypothesis import strategies as st

from llava.protector.streaming.borders import LONGEST_WORD, MOST_MARKS, find_border, find_earlier_border

TEXTS = st.text(st.sampled_from("ab \n水e\u0301\u200d😀\ufe0f"), max_size=150)


@given(TEXTS, st.integers(1, 60))
def test_a_border_stays_where_it_is_however_much_follows(text, place):
    first = next((at for at in range(len(text) + 1) if find_border(text[:at], place) is not None), None)
    if first is None:
        assert find_border(text, place) is None
        assert len(text) <= place + LONGEST_WORD + MOST_MARKS
    else:
        found = find_border(text[:first], place)
        assert place <= found <= place + LONGEST_WORD + MOST_MARKS
        assert {find_border(text[:at], place) for at in range(first, len(text) + 1)} == {found}


@given(TEXTS, st.integers(1, 60))
def test_an_earlier_border_is_earlier(text, place):
    place = min(place, len(text))
    found = find_earlier_border(text, place)
    assert 0 <= found < max(1, place)
    assert found == 0 or text[found].isspace() or place > LONGEST_WORD


def test_a_letter_keeps_its_marks():
    marked = "x" * 20 + "e" + "\u0301" * 9 + "x"
    assert find_border(marked, 5) == 30
    assert find_border("x" * 20 + "\u0301" * 90, 5) is not None
    assert find_earlier_border(marked, 30) == 20
