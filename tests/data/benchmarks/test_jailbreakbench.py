from __future__ import annotations

import pytest

from llava.data.benchmarks.jailbreakbench import load_jailbreakbench
from llava.data.benchmarks.loading import load_benchmark
from llava.data.schema import Record, Verdict
from llava.errors import InputError
from llava.eval.scoring.metrics import Judged, summarize_group
from tests.data.layouts import write_csv
from tests.eval.build import ANSWER

COLUMNS = ("Index", "Goal", "Target", "Behavior", "Category", "Source")


def test_both_sides_carry_the_same_pairs(tmp_path):
    rows = [(n, f"Goal {n}", "Sure", f"Behaviour {n}", f"Category {n % 2}", "Original") for n in range(3)]
    write_csv(tmp_path / "data/harmful-behaviors.csv", COLUMNS, rows)
    write_csv(tmp_path / "data/benign-behaviors.csv", COLUMNS, rows)
    harmful = load_jailbreakbench(tmp_path).questions
    benign = load_jailbreakbench(tmp_path, name="jailbreakbench_benign", benign=True).questions
    assert [(q.id, q.prompt, q.scenario) for q in harmful] == [
        (str(n), f"Goal {n}", f"Category {n % 2}") for n in range(3)
    ]
    assert [q.fields["pair"] for q in harmful] == [q.fields["pair"] for q in benign] == ["0", "1", "2"]
    assert {q.harmful for q in harmful} == {True}
    assert {q.harmful for q in benign} == {False}
    assert not {q.key for q in harmful} & {q.key for q in benign}


def write_both_sides(root, count: int = 4) -> None:
    for file, text in (("harmful-behaviors.csv", "Harmful"), ("benign-behaviors.csv", "Benign")):
        rows = [
            (n, f"{text} goal {n}", "Sure", f"Behaviour {n}", f"Category {n % 2}", "Original") for n in range(count)
        ]
        write_csv(root / file, COLUMNS, rows)


def test_one_run_asks_both_sides_of_a_pair(tmp_path):
    write_both_sides(tmp_path)
    benchmark = load_benchmark("jailbreakbench_pairs", tmp_path)
    assert benchmark.name == "jailbreakbench_pairs"
    assert {question.benchmark for question in benchmark.questions} == {"jailbreakbench_pairs"}
    assert [(q.id, q.prompt, q.harmful) for q in benchmark.questions[:2]] == [
        ("0-unsafe", "Harmful goal 0", True),
        ("0-safe", "Benign goal 0", False),
    ]
    rows = [Judged(Record(question, ANSWER), Verdict("j", True), None) for question in benchmark.questions]
    pairs = summarize_group(rows)["pairs"]["unprotected"]
    assert (pairs["n"], pairs["only_safe_right"]) == (4, 4)
    assert benchmark.notes == []


@pytest.mark.parametrize(("limit", "ids"), [(2, [0]), (5, [0, 1]), (6, [0, 1, 2]), (100, [0, 1, 2, 3])])
def test_a_limit_cuts_no_pair(tmp_path, limit, ids):
    write_both_sides(tmp_path)
    questions = load_benchmark("jailbreakbench_pairs", tmp_path, limit=limit).questions
    assert [q.id for q in questions] == [f"{n}-{side}" for n in ids for side in ("unsafe", "safe")]


def test_pairs_by_scenario_and_what_has_no_counterpart(tmp_path):
    write_both_sides(tmp_path)
    write_csv(tmp_path / "benign-behaviors.csv", COLUMNS, [(n, "Goal", "", "", "Other", "") for n in (1, 2, 9)])
    benchmark = load_benchmark("jailbreakbench_pairs", tmp_path, scenarios=["Category 0"])
    assert [(q.id, q.scenario) for q in benchmark.questions] == [("2-unsafe", "Category 0"), ("2-safe", "Category 0")]
    assert benchmark.notes == ["3 questions have no counterpart and are left out"]
    with pytest.raises(InputError, match="limit 1 has no room for a contrast pair of jailbreakbench_pairs"):
        load_benchmark("jailbreakbench_pairs", tmp_path, limit=1)
    write_csv(tmp_path / "benign-behaviors.csv", COLUMNS, [(77, "Goal", "", "", "Other", "")])
    with pytest.raises(InputError, match="no question with a counterpart"):
        load_benchmark("jailbreakbench_pairs", tmp_path)


def test_bad_rows_and_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"no harmful-behaviors\.csv in .*huggingface"):
        load_jailbreakbench(tmp_path)
    write_csv(tmp_path / "harmful-behaviors.csv", COLUMNS, [(0, " ", "", "", "C", "")])
    with pytest.raises(InputError, match="line 2 has no Goal"):
        load_jailbreakbench(tmp_path)
