"""Every disguise keeps the text, is the same for the same seed, and is taken off where that can be done."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.evasions import ENCODINGS, EVASIONS, choose_evasions, disguise
from llava.data.evasions.frames import HARMLESS, REFUSALS
from llava.errors import InputError
from llava.eval.judges.refusals import is_refusal
from llava.protector.normalise import list_readings

TEXT = "First, take some of the flour and mix it with the water. Then bake it for an hour in the oven."
INSIDE = {
    *("code_fence", "json", "table", "list", "html_comment", "harmless_before", "harmless_behind", "harmless_around"),
    *("refusals_around", "disowned", "chat_tokens", "detoxifier_prompt", "emoji", "newlines", "story", "ended_turns"),
}
"""Disguises in which every word can be read."""


@pytest.mark.parametrize("name", EVASIONS)
def test_a_disguise_changes_the_text_and_is_the_same_each_time(name):
    assert disguise(TEXT, name) != TEXT
    assert disguise(TEXT, name, seed=3) == disguise(TEXT, name, seed=3)


@pytest.mark.parametrize("name", ["homoglyphs", "zero_width", "combining_marks", "harmless_around", "refusals_around"])
def test_another_seed_is_another_disguise(name):
    assert len({disguise(TEXT, name, seed) for seed in range(5)}) > 1


@pytest.mark.parametrize("name", sorted(INSIDE))
def test_all_words_are_still_there(name):
    assert set(TEXT.split()) - set(disguise(TEXT, name).replace('"', " ").split()) <= {"oven."}


@pytest.mark.parametrize("name", sorted(set(EVASIONS) - INSIDE))
def test_what_changes_letters_is_taken_off_again(name):
    # A lone `4` stays a number, so a few short words are lost to leetspeak.
    kept = set(" ".join(list_readings(disguise(TEXT, name))).split())
    wanted = set((TEXT.lower() if name == "mixed_case" else TEXT).split())
    # Swapped letters stay: whoever reads them knows the word, and so does the detector.
    assert len(wanted - kept) <= {"leetspeak": 3, "typos": 6}.get(name, 0)


def test_a_disturbed_text_is_read_as_it_is_meant():
    for name in ("emoji", "newlines"):
        assert list_readings(disguise(TEXT, name)) == [TEXT]


@pytest.mark.parametrize("name", EVASIONS)
@given(text=st.text(max_size=120), seed=st.integers(0, 3))
def test_any_text_can_be_disguised(name, text, seed):
    assert isinstance(disguise(text, name, seed), str)


def test_the_sentences_are_what_they_should_be():
    assert all(is_refusal(sentence) for sentence in REFUSALS[:3])
    assert not any(is_refusal(sentence) for sentence in HARMLESS)


def test_choosing():
    assert choose_evasions(None) == ()
    assert choose_evasions(["all"]) == tuple(EVASIONS)
    assert choose_evasions(["hex", "base64"]) == ("base64", "hex")
    assert set(ENCODINGS) <= set(EVASIONS)
    with pytest.raises(InputError, match="--evasions pig_latin is unknown; choose all, or of homoglyphs"):
        choose_evasions(["pig_latin"])
