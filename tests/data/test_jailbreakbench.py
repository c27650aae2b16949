from __future__ import annotations

import pytest

from llava.data.jailbreakbench import load_jailbreakbench
from llava.errors import InputError
from tests.data.layouts import write_csv

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


def test_bad_rows_and_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"no harmful-behaviors\.csv in .*huggingface"):
        load_jailbreakbench(tmp_path)
    write_csv(tmp_path / "harmful-behaviors.csv", COLUMNS, [(0, " ", "", "", "C", "")])
    with pytest.raises(InputError, match="line 2 has no Goal"):
        load_jailbreakbench(tmp_path)
