"""The table of look-alikes: each one letter, each for one Latin letter, none of them Latin itself."""

from llava.data.lookalikes import ALL, LOOSE, STRICT, STYLED, WIDE


def test_doubles_are_single_letters_for_ascii_ones():
    for double, latin in ALL.items():
        assert (len(double), len(latin)) == (1, 1)
        assert latin.isascii()
        assert latin.isalpha()
        assert not double.isascii()


def test_no_letter_is_strict_and_loose():
    assert not set(STRICT) & set(LOOSE)


def test_styled_and_wide_forms():
    assert (STYLED[0x1D41B], STYLED[0xFF22], STYLED[0x24D1]) == ("b", "B", "b")
    assert (WIDE[0xFF0C], WIDE[0x3000]) == (",", " ")
