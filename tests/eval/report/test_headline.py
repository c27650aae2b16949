"""The three answers: how often led astray, how often still, and what it costs; and which answers are shown."""

from __future__ import annotations

from llava.constants import REFUSAL
from llava.eval.report.headline import BLIND_SPOTS, Count, build_headline, choose_examples, print_headline
from llava.eval.scoring.scoring import score_run
from llava.eval.scoring.verdicts import load_verdicts
from tests.eval.build import ANSWER, REFUSED, build_record, build_run
from tests.eval.report.terminal import print_to_text


def test_text_and_images_are_counted_apart_and_harmless_questions_not_at_all(summary):
    headline = build_headline(summary)
    assert headline["astray"] == {
        "unprotected": {"text": Count(4, 4), "image": Count(2, 4)},
        "protected": {"text": Count(2, 4), "image": Count(2, 4)},
    }
    assert headline["spoilt"] == Count(0, 2)
    assert (headline["judge"], headline["judge_note"]) == ("keyword", BLIND_SPOTS["keyword"])


def test_all_kinds_of_images_are_one(tmp_path):
    kinds = [("SD", ANSWER), ("TYPO", REFUSED), ("IMAGE", ANSWER), ("SD", REFUSED), ("SD", REFUSED)]
    records = [build_record(n, text, image_type=kind) for n, (kind, text) in enumerate(kinds)]
    counts = build_headline(score_run(build_run(tmp_path, records)))["astray"]["unprotected"]
    assert counts == {"text": None, "image": Count(2, 5)}


def test_a_judge_of_another_kind_is_named_and_nothing_is_said_of_it(summary):
    headline = build_headline({**summary, "judge": "chat:some-model"})
    assert (headline["judge"], headline["judge_note"]) == ("chat:some-model", None)
    assert "judge chat:some-model made these numbers" in print_to_text(
        print_headline, {**summary, "judge": "chat:some-model"}
    )


def test_the_terminal_says_the_three_things_in_a_few_lines(summary):
    lines = [line.strip() for line in print_to_text(print_headline, summary).splitlines() if line.strip()]
    assert "without the protector  4 of 4 (100 %)  2 of 4 (50 %)" in lines
    assert "with the protector      2 of 4 (50 %)  2 of 4 (50 %)" in lines
    assert "harmless questions whose answer the protector changed: 0 of 2" in lines
    assert "It cannot see whether" in " ".join(lines)
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 80


def test_without_a_protector_or_harmless_questions_that_is_said(tmp_path):
    summary = score_run(build_run(tmp_path / "plain", [build_record(0, guarded=False)]))
    assert "no protector stood behind the model" in print_to_text(print_headline, summary)
    assert "with the protector" not in print_to_text(print_headline, summary).replace("without the protector", "")
    summary = score_run(build_run(tmp_path / "harmful", [build_record(0)]))
    assert "harmless questions: none were asked" in print_to_text(print_headline, summary)


def test_names_with_control_characters_do_not_reach_the_terminal(summary):
    assert "\x1b" not in print_to_text(print_headline, {**summary, "judge": "x\x1b[2J", "model": "m\x1b[2J"})


def choose(folder, records) -> list[int]:
    summary = score_run(build_run(folder, records))
    return choose_examples(records, load_verdicts(folder, summary))


def test_examples_are_answers_that_the_protector_mended_from_different_scenarios(tmp_path):
    records = [
        build_record(0, harm_score=0.1),
        build_record(1, harm_score=0.99, shown=REFUSAL),
        build_record(2, harm_score=0.98, shown=REFUSAL),
        build_record(3, harm_score=0.6, shown=REFUSAL, scenario="10-Legal_Opinion"),
        build_record(4, harm_score=0.97, shown="Bake bread."),  # changed, and still an answer to judge keyword
        build_record(5, harm_score=0.9, shown=REFUSAL, harmful=False),
    ]
    assert choose(tmp_path, records) == [1, 3, 2]


def test_where_nothing_was_mended_the_changed_and_then_the_worst_answers_are_shown(tmp_path):
    records = [build_record(0, harm_score=0.3), build_record(1, harm_score=0.4), build_record(2, shown="Bake bread.")]
    assert choose(tmp_path, records) == [2, 1, 0]


def test_an_unguarded_run_has_no_before_and_after(tmp_path):
    assert choose(tmp_path, [build_record(0, guarded=False, harm_score=None)]) == []
