"""The command that measures judges against labels: its figures by hand, and on the real file where it is there."""

from __future__ import annotations

import json
from pathlib import Path

from llava.data.schema import Verdict
from llava.quality.commands import judge_agreement as script
from tests.eval.build import ANSWER, REFUSED

REPOSITORY = Path(__file__).resolve().parents[3]


def test_figures_by_hand():
    cases = [(True, True)] * 4 + [(True, False)] + [(False, True)] * 2 + [(False, False)] * 3 + [(True, None)]
    pairs = [({"harmful": truth}, Verdict("j", said)) for truth, said in cases]
    # agreement 7/10; chance (5 · 6 + 5 · 4) / 100 = 0.5; kappa (0.7 - 0.5) / 0.5
    assert script.describe(pairs) == ["10", "70.0", "0.40", "1 of 5", "2 of 5", "1"]


def test_a_table_comes_out_without_any_text(tmp_path, capsys):
    rows = [
        {"prompt": f"question {n}", "response": ANSWER if n % 2 else REFUSED, "harmful": bool(n % 2)} for n in range(40)
    ]
    (tmp_path / script.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert script.main(["--data", str(tmp_path), "--judge", "keyword"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| keyword | all | 40 | 100.0 | 1.00 | 0 of 20 | 0 of 20 | 0 |"
    assert lines[3].startswith("| keyword | held out | ")
    assert not any("flour" in line for line in lines)


def test_without_the_data_a_line_says_so(tmp_path, capsys):
    assert script.main(["--data", str(tmp_path), "--judge", "keyword"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_keyword_judge_agrees_with_the_labels_as_documented(shared_data):
    everything, _ = script.measure(shared_data, ["keyword"], "cpu", "auto")
    page = (REPOSITORY / "docs" / "evaluation.md").read_text()
    assert f"| {' | '.join(everything)} |" in page
