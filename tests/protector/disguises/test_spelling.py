"""Words taken apart are put together; choices, formulas, names and numbers stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.protector.disguises.spelling import join_letters, read_leet

WORDS = ["flour", "water", "bread", "knead", "yeast", "butter", "baking", "golden"]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8), st.sampled_from(["", ".", "!"]))
def test_spaced_words_are_joined(words, end):
    text = " ".join(words) + end
    assert join_letters(" ".join(text)) == text


@pytest.mark.parametrize("sign", list("-_.*·|"))
def test_letters_parted_by_signs(sign):
    assert join_letters(f"add {sign.join('flour')} now") == "add flour now"


@pytest.mark.parametrize(
    "text",
    [
        "A B C D E F G",
        "A, B, C or D",
        "C G A F C G A F",
        "a b c x y z",
        "x = a + b * c - d / e",
        "U.S.S.R., U.S.A., e.g., i.e., J. R. R. Tolkien",
        "| a | 1 | x |\n| b | 2 | y |",
        "ATG GCT A C G T T A",
        "1 2 3 4 5 6 7 8",
        "a x b x c x d",
        "我 是 学 生 吗",
        "O X O X O X O",
    ],
)
def test_single_letters_that_are_no_spelling_stay(text):
    assert join_letters(text) == text or not text.isascii()


@pytest.mark.parametrize(
    ("leet", "plain"),
    [
        ("b4k3 br34d w17h y3457 4nd w473r", "bake bread with yeast and water"),
        ("a b0wl of flour", "a bowl of flour"),
        ("Kn34d it", "Knead it"),
        ("b@ke it!", "bake it!"),
    ],
)
def test_leetspeak(leet, plain):
    assert read_leet(leet) == plain


@pytest.mark.parametrize(
    "text",
    [
        "mp3 mp4 H2O CO2 B12 4th 1st 10am 5kg 3D 4K G20 i7 R2D2 a11y log4j neo4j h1n1 w3c",
        "sha256 utf8 base64 x86_64 int32_t conv2d arr[0] x0 y1 f1(x) v1.2.3 python3.11",
        "d41d8cd98f00b204e9800998ecf8427e 3f0a11 0x1f4 1e10 550e8400-e29b-41d4-a716-446655440000",
        "bob@example.com me@home https://ex.am/pl3s?q=1a2b https://h0st.org/p4th",
        "1,234.50 $5 $HOME @user !important 10% 3/4 2024-01-31 12:30",
        "Hello!How are you! Car4Fast GPT4o",
        "for i1 in range(10): total0 += 3",
    ],
)
def test_names_numbers_code_and_addresses_stay(text):
    assert read_leet(text) == text


@given(st.from_regex(r"[0-9]{1,12}([.,:/-][0-9]{1,6}){0,3}", fullmatch=True))
def test_numbers_stay(number):
    assert join_letters(read_leet(f"It costs {number} today")) == f"It costs {number} today"


@given(st.binary(min_size=8, max_size=32))
def test_hashes_stay(digest):
    assert read_leet(f"commit {digest.hex()} is fine") == f"commit {digest.hex()} is fine"
