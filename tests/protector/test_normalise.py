"""What a detector reads: disguises off, ordinary text unchanged, linear time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.protector.normalise import list_readings, normalise

ORDINARY = [
    "Boil the water for twelve minutes, then add 250 g of rice (about 1½ cups).",
    "def f(x0, y1):\n    return x0 ** 2 + y1[3]  # O(n²)\n",
    "| a | b |\n|---|--:|\n| x | 1.5 |\n",
    "Visit https://example.org/a_b-c?d=1&e=f%20g or mail bob@example.org.",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "Äpfel, garçon, señor, Đặng, İstanbul, Ægir, straße",
    "Привет, как дела? Это сок, а это рис.",
    "Καλημέρα κόσμε",
    "今日は良い天気です。ＡＴＭはどこ？".replace("ＡＴＭ", "ATM"),
    "안녕하세요 여러분",
    "مرحبا بالعالم، می\u200cخواهم",
    "नमस्ते दुनिया",
    "👩\u200d🍳 cooks ❤\ufe0f, 10:30, 3×4=12, ±5 %, №7 — “quoted” … ‘so’",
    "E = mc², a₁ + a₂, ∑ᵢ xᵢ".replace("ᵢ", "i"),
    "A. yes\nB. no\nC. maybe\nD. never",
    "",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_comes_out_unchanged(text):
    assert list_readings(text) == [text]


WORDS = st.sampled_from(
    ["the", "bread", "and", "water", "of", "a", "mill", "that", "was", "here", "before", "we", "came", "to", "it"]
)


@given(st.lists(WORDS, max_size=30).map(" ".join))
def test_plain_words_come_out_unchanged(text):
    assert normalise(text) == text


@given(st.text(alphabet=st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), max_size=50))
def test_chinese_comes_out_unchanged(text):
    assert normalise(text) == text


@given(st.text(max_size=200))
def test_any_text_is_read(text):
    assert isinstance(normalise(text), str)


def test_several_disguises_at_once():
    assert (
        normalise("Ｍ\u200bｉх ｔｈе fl0ur, k\u0336n\u0336e\u0336a\u0336d   i t   w e l l")
        == "Mix the flour, knead   it well"
    )


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a ",
        "b-",
        "\u200b",
        "e\u0301",
        "b\u0336",
        "4a",
        "<!--",
        "%41",
        "&#65;",
        "QUJD",
        "41 ",
        "аa",
        "Ａ",
        "𝗯 ",
        ".A",
        "\n",
    ],
)
def test_time_is_linear(piece):
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        start = time.process_time()
        list_readings(text)
        return time.process_time() - start

    seconds(1000)
    small, large = max(seconds(20_000), 0.01), seconds(160_000)
    assert large < 8 * 4 * small, f"{piece!r}: {small:.3f} s, {large:.3f} s"
