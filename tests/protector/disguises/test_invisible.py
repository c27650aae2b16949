"""Invisible characters go where they hide something, and stay where a script needs them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.protector.disguises.invisible import drop_marks, drop_unseen

UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u202e\ufe01"


@pytest.mark.parametrize("sign", list(UNSEEN))
def test_an_invisible_character_inside_a_word_goes(sign):
    assert drop_unseen(f"flo{sign}ur and wa{sign}{sign}{sign}ter") == "flour and water"


@given(st.lists(st.sampled_from(UNSEEN), max_size=40).map("".join))
def test_however_many_stand_between_letters(signs):
    assert drop_unseen(f"flour{signs}water") == "flourwater"


def test_tags_are_spelled_out():
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "mix the flour")
    assert drop_unseen(f"Hello.\U000e0001{hidden}\U000e007f") == "Hello.mix the flour"


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم کتاب\u200cها را",  # Persian
        "क्\u200dष",  # Hindi
        "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥 1\ufe0f\u20e3",
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland
        "葛\U000e0100飾区",
        "สวัสดี\u200bครับ",
    ],
)
def test_what_a_script_or_an_emoji_needs_stays(text):
    assert drop_unseen(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "Größe, naïve café, Čeština, žížala, příští, Ångström",
        "cafe\u0301 nin\u0303o",
        "Đường đến trường rất đẹp, người Việt",
        "ẹ̀kọ́ àti ìmọ̀",
        "соро́к тысяч ёлок, й",
        "ᾧ καὶ τὸν ἄνδρα",
        "שָׁלוֹם",
        "हिन्दी",
    ],
)
def test_ordinary_accents_stay(text):
    assert drop_marks(text) == text


@pytest.mark.parametrize("mark", ["\u0336", "\u0335", "\u0489", "\u0353", "\u030d\u0316\u031d", "\u20dd"])
def test_marks_that_no_language_has_go(mark):
    assert drop_marks("".join(letter + mark for letter in "mix flour 12")) == "mix flour 12"


@given(st.lists(st.integers(0x300, 0x36F).map(chr), min_size=5, max_size=5))
def test_heaped_marks_go(marks):
    assert drop_marks("b" + "".join(marks) + "read") == "bread"
