import sys

import pytest

from llava.data.schema import Verdict
from llava.data.training.pairs import DetectorRow
from llava.errors import InputError
from llava.eval.judges.registry import KeywordJudge
from llava.quality.word_judge import WordJudge, build_evaluation_judge, fit_words
from tests.train.samples import write_labelled, write_pairs


def test_words_of_harmful_responses_are_harmful():
    rows = [DetectorRow(f"q{i}", f"bread {'thorn' if i % 2 else 'bloom'}", bool(i % 2), "s") for i in range(12)]
    judge = WordJudge(fit_words(rows), len(rows))
    harmful, harmless = judge.judge(["", ""], ["water thorn", "water bloom"])
    assert (harmful.unsafe, harmless.unsafe) == (True, False)
    assert harmful.score > 0.5 > harmless.score
    assert judge.judge([], []) == []


def test_it_learns_from_prompts_that_are_not_judged(tmp_path):
    """Responses to the judged prompts are left out, however the prompt is spelled."""
    path = write_labelled(tmp_path / "rows.jsonl", 40)
    judge = build_evaluation_judge(f"words:{path}", {"Question 0?", "question 1"})
    assert judge.identity == "words-36"
    assert judge.judge(["q"], ["stone thorn"])[0].unsafe
    with pytest.raises(InputError, match="no harmful and harmless responses to prompts that are not judged"):
        build_evaluation_judge(f"words:{path}", {f"question {i}" for i in range(20)})


def test_preference_pairs_are_no_labels(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(InputError, match="give more rows"):
        build_evaluation_judge(f"words:{pairs}", set())


def test_other_judges_are_those_of_the_evaluation():
    judge = build_evaluation_judge("keyword", set())
    assert isinstance(judge, KeywordJudge)
    assert judge.judge(["q"], ["Mix flour."]) == [Verdict("keyword", True)]
    with pytest.raises(InputError, match="--judge words:FILE"):
        build_evaluation_judge("words", set())
    with pytest.raises(InputError, match="--judge nobody is unknown"):
        build_evaluation_judge("nobody", set())


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        fit_words([])
