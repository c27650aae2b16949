import pytest

from llava.protector.disguises.noise import calm_case, drop_emoji, join_lines

ORDINARY = [
    "😀🎉😀🎉😀",
    "★★★★★",
    "Buy:\n"
    + "\n".join(["apples", "pears", "milk", "bread", "salt", "butter", "tea", "rice", "beans", "oil", "jam", "soap"]),
    "Use getUserName(), setUserName(), isUserActive() and toString() of JavaScript's HttpClient.",
    "Your key is aG93IHRvIGJha2UgYnJlYWQ and the other one QmFrZSB0aGUgYnJlYWQ= for sOmE rEaSoN.",
    "✅ Drink a glass of water in the morning.\n✅ Go for a walk with a friend at noon.\n"
    "✅ Sleep for eight hours each night.\n✅ Eat an apple on most days of the week.",
    "NASA AND ESA SAY THAT THE PROBE IS WELL.",
    "McCoy's iPhone, eBay, LaTeX and a PhD in STEM",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text):
    assert calm_case(join_lines(drop_emoji(text))) == text


def test_lines_before_and_behind_stay_apart():
    run = [
        "then",
        "you",
        "take",
        "the",
        "bread",
        "out",
        "of",
        "the",
        "oven",
        "and",
        "let",
        "it",
        "rest",
        "for",
        "a",
        "while",
    ]
    text = "\n".join(["This is how it goes, step by step:", "", *run, "", "And that is all that you do."])
    assert join_lines(text) == "\n".join(
        ["This is how it goes, step by step:", "", " ".join(run), "", "And that is all that you do."]
    )


def test_an_emoji_of_several_characters_goes_as_one():
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    text = f" {family} ".join(["how", "do", "you", "bake", "bread"])
    assert drop_emoji(text) == "how do you bake bread"
