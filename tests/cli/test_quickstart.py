import json

import pytest

from llava.cli.quickstart import run_quickstart
from llava.eval.run.records import load_records


@pytest.mark.slow
def test_quickstart_ends_in_a_report_and_a_second_run_asks_nothing_again(tmp_path, capsys):
    page = run_quickstart(tmp_path, limit=8, max_new_tokens=8)
    assert page == tmp_path / "report.html"
    captured = capsys.readouterr()
    assert "report.html" in captured.err + captured.out
    records = tmp_path / "records.jsonl"
    before = records.read_bytes()
    assert len(load_records(tmp_path)) == 8
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["judge"] == "embedded"
    assert set(summary["judges"]) == {"embedded", "keyword", "detector:embedded"}
    run_quickstart(tmp_path, limit=8, max_new_tokens=8)
    assert records.read_bytes() == before
