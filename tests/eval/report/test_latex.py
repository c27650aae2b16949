"""The table of a paper: its columns, and what a run without protector leaves."""

from __future__ import annotations

from llava.eval.report.latex import render_latex
from llava.eval.scoring.scoring import score_run
from tests.eval.build import build_mixed_run, build_record, build_run


def test_latex_has_the_columns_of_the_paper(tmp_path):
    lines = render_latex(score_run(build_mixed_run(tmp_path))).splitlines()
    assert lines[1] == "\\begin{tabular}{lrrrrrr}"
    assert "Scenario & Vanilla & Ours & Vanilla & Ours & Vanilla & Ours \\\\" in lines
    assert "06-Fraud & 100.0 & 50.0 & -- & -- & 100.0 & 50.0 \\\\" in lines
    assert "10-Legal\\_Opinion & -- & -- & 50.0 & 50.0 & 50.0 & 50.0 \\\\" in lines
    assert "All & 100.0 & 50.0 & 50.0 & 50.0 & 75.0 & 50.0 \\\\" in lines
    assert all(line.count("&") in (0, 3, 6) for line in lines)


def test_an_unguarded_run_has_one_column(tmp_path):
    summary = score_run(build_run(tmp_path, [build_record(0, guarded=False)]))
    assert "All & 100.0 & 100.0 \\\\" in render_latex(summary).splitlines()
