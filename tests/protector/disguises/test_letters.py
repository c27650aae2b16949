"""Letters that pass for Latin ones are made Latin; other languages and formulas stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.lookalikes import CYRILLIC, STYLED
from llava.protector.disguises.letters import fold_lookalikes, fold_styled

DOUBLES = {latin: letter for letter, latin in CYRILLIC.items()}
PLAIN = "Take some flour and water, then heat it slowly"


@given(st.sets(st.integers(0, len(PLAIN) - 1), max_size=12))
def test_doubles_inside_a_latin_text_are_found(places):
    disguised = "".join(DOUBLES.get(letter, letter) if i in places else letter for i, letter in enumerate(PLAIN))
    assert fold_lookalikes(disguised) == PLAIN


def test_words_wholly_of_doubles_among_latin_ones():
    assert fold_lookalikes("eat сосоа or the reаl рораѕ сосоа now") == "eat cocoa or the real popas cocoa now"


@pytest.mark.parametrize(
    "text",
    [
        "Это обычный русский текст: сорок рас, а в сору нет риса.",
        "В Windows а также в SMSка и PDFка, USB-кабель, iPhoneы",
        "Το ποτάμι είναι κοντά και ο ουρανός",
        "sinα + cosα = β, αx + βy = γ, Δt, λx, πr² and ρ",
        "Հայաստան, Սևան",
        "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ",
        "Größe, ışık, naïve, Łódź",
    ],
)
def test_other_languages_and_formulas_stay(text):
    assert fold_styled(fold_lookalikes(text)) == text


@pytest.mark.parametrize("first", [0x1D400, 0x1D434, 0x1D5D4, 0x1D670, 0x24B6, 0xFF21, 0x1F130, 0x1F150])
def test_every_alphabet_of_styled_letters(first):
    letters = "".join(chr(first + ord(letter) - ord("A")) for letter in "BREAD")
    assert fold_styled(f"bake {letters} today").upper() == "BAKE BREAD TODAY"


def test_a_whole_text_in_full_width():
    wide = "".join("\u3000" if letter == " " else chr(ord(letter) + 0xFEE0) for letter in PLAIN)
    assert fold_styled(wide) == PLAIN


@pytest.mark.parametrize(
    "text",
    ["今日は、２０２４年！", "価格：１００円（税込）", "x² + H₂O, ℝ and №5, ½ cup, ①②", "🅱 🅿 🇩🇪🇫🇷", "ﾊﾝｶｸ", "10 000 €"],
)
def test_ordinary_signs_stay(text):
    assert fold_styled(text) == text


def test_styled_letters_are_ascii():
    assert all(letter.isascii() for letter in STYLED.values())
