"""Runs side by side, and the paired test between them by hand."""

from __future__ import annotations

import io
import shutil

import pytest
from rich.console import Console

from llava.errors import InputError
from llava.eval.report.comparison import compare_runs, print_comparison, render_comparison
from llava.eval.scoring.scoring import score_run
from llava.files import write_json
from tests.eval.build import REFUSED, build_mixed_run, build_record, build_run


@pytest.fixture
def runs(tmp_path):
    """One run of five answers, and one that refuses four of them and has one question more."""
    first = build_run(tmp_path / "first", [build_record(i, guarded=False) for i in range(5)])
    answers = [build_record(i, REFUSED, guarded=False) for i in range(4)]
    second = build_run(tmp_path / "second", [*answers, build_record(4, guarded=False), build_record(9, guarded=False)])
    score_run(first)
    score_run(second)
    return [first, second]


def test_runs_are_tested_pair_by_pair_on_what_they_share(runs):
    first, second = compare_runs(runs)
    assert first["unprotected"]["attack_success_rate"] == 1
    assert first["mcnemar_p"] is None
    assert second["unprotected"]["attack_success_rate"] == 2 / 6
    assert second["shared"] == 5
    assert second["mcnemar_p"] == 0.125  # four pairs better, none worse: 2 · (1/2)⁴


def test_the_protected_side_counts_where_there_is_one(tmp_path, runs):
    guarded = build_mixed_run(tmp_path / "guarded")
    score_run(guarded)
    _, row = compare_runs([runs[0], guarded])
    assert row["protected"]["attack_success_rate"] == 4 / 8
    assert row["over_refusal"] == 1 / 2
    assert row["flag_rate"] == 3 / 10
    assert row["shared"] == 4  # scenario 06-Fraud, image type TEXT
    assert row["mcnemar_p"] == 0.5


def test_tables_have_a_row_for_each_run(runs):
    rows = compare_runs(runs)
    lines = render_comparison(rows).splitlines()
    assert len(lines) == 4
    assert "| 33.3 (10–70) | – | – | – | 0.1250 |" in lines[3]
    buffer = io.StringIO()
    print_comparison(rows, Console(file=buffer, width=200))
    assert "33.3 (10–70)" in buffer.getvalue()


def test_judges_that_share_only_their_name_are_not_compared(tmp_path, runs, tiny_classifier):
    detector = shutil.copytree(tiny_classifier, tmp_path / "detector")
    for folder in runs:
        score_run(folder, [f"detector:{detector}"], device="cpu")
    assert len(compare_runs(runs)) == 2
    write_json(detector / "protector_config.json", {"positive_label": "safe", "threshold": 0.9})
    score_run(runs[1], [f"detector:{detector}"], device="cpu")
    with pytest.raises(InputError, match=r"judge detector:\S+ of \S+second is not that of \S+first: its checkpoint"):
        compare_runs(runs)


def test_what_cannot_be_compared_is_refused(tmp_path, runs, tiny_classifier):
    with pytest.raises(InputError, match="two or more"):
        compare_runs(runs[:1])
    with pytest.raises(InputError, match=r"holds no summary\.json"):
        compare_runs([runs[0], tmp_path])
    score_run(runs[1], [f"detector:{tiny_classifier}"], device="cpu")
    with pytest.raises(InputError, match=r"judged by detector:\S+ and keyword"):
        compare_runs(runs)
