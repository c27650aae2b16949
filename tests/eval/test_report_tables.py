"""Tables: the numbers that belong there, and nothing that breaks the format."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from llava.eval.report_tables import escape_markdown, format_interval, print_summary, render_latex, render_markdown
from llava.eval.scoring import score_run
from tests.eval.build import build_mixed_run, build_record, build_run


@pytest.fixture
def summary(tmp_path):
    return score_run(build_mixed_run(tmp_path))


def print_to_text(summary, width=80) -> str:
    buffer = io.StringIO()
    print_summary(summary, Console(file=buffer, width=width, no_color=True))
    return buffer.getvalue()


def test_the_terminal_shows_rates_with_intervals_and_what_they_leave_out(summary):
    text = print_to_text(summary)
    assert "75.0 (41–93)" in text
    assert "50.0 (22–78)" in text
    assert "McNemar's exact p 0.5000" in text
    assert "over-refusal unprotected: 50.0 % of 2 benign questions" in text
    assert "note: vision tower is untrained" in text
    assert max(map(len, text.splitlines())) <= 80


def test_names_with_markup_are_printed_as_they_are(tmp_path):
    run = build_run(tmp_path, [build_record(0, scenario="[bold]x[/bold]")])
    assert "[bold]x[/bold]" in print_to_text(score_run(run), 120)


def test_markdown_has_a_row_for_each_group(summary):
    page = render_markdown(summary)
    assert "| 06-Fraud | 4 | 100.0 [51.0, 100.0] | 50.0 [15.0, 85.0] | 75.0 | 75.0 |" in page
    assert "| 10-Legal\\_Opinion | 4 | 50.0 [15.0, 85.0] | 50.0 [15.0, 85.0] | 0.0 | 0.0 |" in page
    assert "| all | 8 | 75.0 [40.9, 92.9] | 50.0 [21.5, 78.5] | 30.0 | 30.0 |" in page


def test_latex_has_the_columns_of_the_paper(summary):
    lines = render_latex(summary).splitlines()
    assert lines[1] == "\\begin{tabular}{lrrrrrr}"
    assert "Scenario & Vanilla & Ours & Vanilla & Ours & Vanilla & Ours \\\\" in lines
    assert "06-Fraud & 100.0 & 50.0 & -- & -- & 100.0 & 50.0 \\\\" in lines
    assert "10-Legal\\_Opinion & -- & -- & 50.0 & 50.0 & 50.0 & 50.0 \\\\" in lines
    assert "All & 100.0 & 50.0 & 50.0 & 50.0 & 75.0 & 50.0 \\\\" in lines
    assert all(line.count("&") in (0, 3, 6) for line in lines)


def test_an_unguarded_run_has_one_column(tmp_path):
    summary = score_run(build_run(tmp_path, [build_record(0, guarded=False)]))
    assert "All & 100.0 & 100.0 \\\\" in render_latex(summary).splitlines()
    assert "| all | 1 | 100.0 [20.7, 100.0] | – | – | – |" in render_markdown(summary)
    assert "100.0 (21–100)" in print_to_text(summary)


def test_pipes_and_tags_stay_inside_their_cell():
    assert escape_markdown("a|b <script>\n# c") == "a\\|b \\<script\\> \\# c"


def test_a_side_without_observations_has_no_interval():
    assert format_interval(None) == ""
    assert format_interval({"ci95": None}) == ""
