"""Judges: unsafe, safe, or cannot tell; and a registry that others can extend."""

from __future__ import annotations

import pytest

from llava.data.schema import Verdict
from llava.errors import InputError
from llava.eval.judges.registry import JUDGES, KeywordJudge, build_judge, judge_texts, name_file
from tests.eval.build import ANSWER, REFUSED


class CountingJudge:
    """Unsafe where the text ends in an exclamation mark; keeps what it was asked."""

    name = "counting"
    identity = "1"

    def __init__(self):
        self.asked = []

    def judge(self, prompts, texts):
        self.asked += zip(prompts, texts, strict=True)
        return [Verdict(self.name, text.endswith("!"), 0.5) for text in texts]


def test_the_keyword_judge_calls_every_answer_unsafe():
    verdicts = build_judge("keyword").judge(["q", "q"], [ANSWER, REFUSED])
    assert verdicts == [Verdict("keyword", True), Verdict("keyword", False)]


@pytest.mark.parametrize("spec", ["", "nobody", "detector:", "keyword:", ":"])
def test_an_unknown_judge_is_refused_with_the_choice(spec):
    # A message is one line without double blanks.
    told = " ".join(f"--judge {spec} is unknown; choose keyword, detector".split())
    with pytest.raises(InputError, match=told):
        build_judge(spec)


def test_the_keyword_judge_takes_no_argument():
    with pytest.raises(InputError, match="takes no argument"):
        build_judge("keyword:x")


def test_every_registered_judge_can_be_imported():
    for target in JUDGES.values():
        module, _, function = target.partition(":")
        assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_a_text_is_judged_once_and_an_empty_one_not_at_all():
    judge = CountingJudge()
    verdicts = judge_texts(judge, ["q", "q", "q", "r", "q"], ["a!", "", "a!", "a!", "  "])
    assert [verdict.unsafe for verdict in verdicts] == [True, False, True, True, False]
    assert judge.asked == [("q", "a!"), ("r", "a!")]
    assert judge_texts(judge, [], []) == []


def test_a_judge_that_loses_a_text_is_a_defect():
    judge = CountingJudge()
    judge.judge = lambda prompts, texts: []
    with pytest.raises(RuntimeError, match="gave 0 verdicts for 1 texts"):
        judge_texts(judge, ["q"], ["a"])


def test_file_names_are_plain_and_follow_the_identity():
    judge = CountingJudge()
    judge.name = "detector:../a b/c"
    first = name_file(judge)
    assert "/" not in first
    assert not first.startswith(".")
    judge.identity = "2"
    assert name_file(judge) != first
    assert name_file(KeywordJudge()).startswith("keyword-")
