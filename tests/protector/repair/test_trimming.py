import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.constants import REFUSAL
from llava.data.schema import Action, GuardResult
from llava.protector.repair import trimming
from llava.protector.repair.trimming import LONGEST_TEXT, LOOKS, TRIES, trim_responses
from tests.protector.repair.words import WordDetector

BEFORE, BEHIND = "Boil the water and salt it well. ", "Serve it warm with a little butter on top."
HARM = "Then stir the poison in. "
TEXT = BEFORE + HARM + BEHIND
CHINESE = (
    "先把水烧开，然后慢慢地加入一点盐和油。再加 poison 搅拌。"
    "最后把面条放进去，煮十分钟左右，盛到碗里，撒上一些葱花就可以吃了。"
)


def trim(text, guard=None, threshold=0.5):
    (found,) = trim_responses(guard or WordDetector(), threshold, ["How?"], [text])
    return found


def rebuild(text, removed):
    """Return a text without the removed spans, each of which must be what stands there."""
    kept, place = [], 0
    for span in removed:
        assert place <= span.start < span.end
        assert text[span.start : span.end] == span.text
        kept.append(text[place : span.start])
        place = span.end
    return "".join([*kept, text[place:]])


def test_the_harmful_sentence_goes_and_the_others_stay():
    result = trim(TEXT).result
    assert (result.text, result.action, result.flagged) == (BEFORE + BEHIND, Action.TRIMMED, True)
    assert [tuple(span) for span in result.removed] == [(len(BEFORE), len(BEFORE + HARM), HARM)]
    assert GuardResult.from_dict(result.to_dict()) == result


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (HARM + BEFORE + BEHIND, BEFORE + BEHIND),
        (BEFORE + BEHIND + " " + HARM, BEFORE + BEHIND + " "),
        (f"Steps:\n1. {BEFORE}\n2. {HARM}\n3. {BEHIND}\n", f"Steps:\n1. {BEFORE}\n3. {BEHIND}\n"),
        (BEFORE + HARM + BEHIND + " " + HARM + BEFORE, BEFORE + BEHIND + " " + BEFORE),
        (f"{BEFORE}\n```\n{HARM}\n```\n{BEHIND}", f"{BEFORE}\n{BEHIND}"),
        (CHINESE, None),
    ],
)
def test_wherever_it_stands(text, left):
    result = trim(text).result
    assert result.action is Action.TRIMMED
    assert result.text == rebuild(text, result.removed)
    assert "poison" not in result.text
    if left is not None:
        assert result.text == left


def test_what_only_stands_behind_harm_is_kept():
    guard = WordDetector(echo=12)
    assert trim(TEXT, guard).result.text == BEFORE + BEHIND
    assert guard.explained == [TEXT, BEFORE + BEHIND]


def test_a_suspicious_sentence_goes_where_it_stands_behind_the_harm():
    tail = "Wait until the guard sleeps. "

    class Wary(WordDetector):
        def explain(self, prompt, response):
            start = response.find(tail)
            return [
                score
                if score.score > 0.5 or not start <= score.start < start + len(tail)
                else score._replace(score=0.3)
                for score in super().explain(prompt, response)
            ]

    assert trim(BEFORE + HARM + tail + BEHIND, Wary()).result.text == BEFORE + BEHIND
    assert trim(BEFORE + tail + BEHIND + " " + HARM, Wary()).result.text == BEFORE + tail + BEHIND + " "


def test_harm_all_over_is_left_to_the_rewrite():
    assert trim((HARM + BEFORE[:12] + ". ") * 6).result is None
    assert trim(HARM).result is None
    assert trim(HARM + "Enjoy it.").result is None  # a scrap


def test_halves_that_are_harmful_together_are_not_shown():
    """With what stood between them gone, two harmless sentences would say what no one may read."""
    text = "Take the first powder from the shelf. " + HARM + "Mix it into the second powder at once. " + BEHIND
    guard = WordDetector(lambda text: 0.9 if "poison" in text or "shelf. Mix" in text else 0.1)
    result = trim(text, guard).result
    assert result is None or "shelf. Mix" not in result.text
    assert any("shelf. Mix" in asked for call in guard.scored for asked in call)


def test_the_question_is_read_with_what_is_left():
    class Asked(WordDetector):
        def score(self, responses, prompts):
            assert prompts == ["How?"]
            return super().score(responses, prompts)

    assert trim(TEXT, Asked()).result.action is Action.TRIMMED


def test_a_score_that_is_none_is_not_shown():
    assert trim(TEXT, WordDetector(lambda text: 0.9 if "poison" in text else math.nan)).result is None


@pytest.mark.parametrize("part", ["score", "explain"])
def test_a_guard_that_fails_means_a_refusal_that_says_so(part):
    def fail(*arguments):
        raise MemoryError("full")

    guard = WordDetector()
    setattr(guard, part, fail)
    result = trim(TEXT, guard).result
    assert (result.text, result.action, result.removed) == (REFUSAL, Action.REFUSED, None)
    assert (result.failure.part, result.failure.error) == ("detector", "MemoryError")


def test_a_guard_that_shows_nothing_is_not_guessed_at():
    class Silent(WordDetector):
        def explain(self, prompt, response):
            return []

    guard = Silent()
    assert trim(TEXT, guard).result is None
    assert guard.scored == []


def test_the_number_of_passes_is_bounded():
    guard = WordDetector(lambda text: 0.9)
    text = " ".join(f"Sentence number {number} is said here." for number in range(500))
    assert trim(text, guard).result is None
    assert len(guard.explained) <= LOOKS
    assert len(guard.scored) <= TRIES


def test_a_text_of_pages_is_not_looked_at(monkeypatch):
    guard = WordDetector()
    assert trim(TEXT + BEHIND * (LONGEST_TEXT // len(BEHIND)), guard).result is None
    assert guard.explained == []


def test_several_are_scored_together():
    guard = WordDetector()
    found = trim_responses(guard, 0.5, ["How?"] * 3, [TEXT, HARM, HARM + BEFORE + BEHIND])
    assert [each.result and each.result.text for each in found] == [BEFORE + BEHIND, None, BEFORE + BEHIND]
    assert [len(call) for call in guard.scored] == [2]


sentences = st.lists(
    st.sampled_from([BEFORE, BEHIND + " ", HARM, "水を沸かす。", "- item\n", "\n\n", "poison"]), max_size=12
)


@given(sentences.map("".join), st.integers(0, 8))
def test_whatever_is_shown_passed(text, echo):
    guard = WordDetector(echo=echo)
    result = trim(text, guard).result
    if result is not None:
        assert result.text == rebuild(text, result.removed)
        assert guard.judge(result.text) < 0.5
        assert any(result.text in call for call in guard.scored)
        assert trimming.count_letters(result.text) >= trimming.LEAST_SHARE * trimming.count_letters(text)
