"""The names of a run's files, and links that lead out of its folder."""

from __future__ import annotations

import os

import pytest

from llava.errors import InputError
from llava.eval.report.rendering import render_report
from llava.eval.run.layout import RESERVED_NAMES, check_outputs
from llava.eval.scoring.scoring import score_run
from tests.eval.build import build_mixed_run


def test_the_list_of_names_is_that_of_a_whole_run(tmp_path):
    score_run(build_mixed_run(tmp_path))
    render_report(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names - {"06-Fraud", "10-Legal_Opinion"} < RESERVED_NAMES
    # These are there only while a run is under way.
    assert RESERVED_NAMES - names == {"shards", "claims", ".lock"}


@pytest.mark.parametrize("link", ["report.html", "report.md", "table.tex"])
def test_a_report_does_not_follow_links_out_of_its_run(tmp_path, link):
    run = build_mixed_run(tmp_path / "run")
    score_run(run)
    victim = tmp_path / "notes.txt"
    victim.write_text("mine")
    (run / link).symlink_to(victim)
    with pytest.raises(InputError, match=rf"{link} leads out of .*run through a link; remove the link"):
        render_report(run)
    assert victim.read_text() == "mine"
    assert {path.name for path in run.iterdir()} & {"report.html", "report.md", "table.tex"} == {link}


@pytest.mark.parametrize("link", ["summary.json", "verdicts", "06-Fraud"])
def test_a_score_does_not_follow_links_out_of_its_run(tmp_path, link):
    run = build_mixed_run(tmp_path / "run")
    outside = tmp_path / "outside"
    outside.mkdir()
    (run / link).symlink_to(outside / "file" if link.endswith("json") else outside)
    with pytest.raises(InputError, match="leads out of"):
        score_run(run)
    assert list(outside.iterdir()) == []


def test_a_run_behind_a_link_is_a_run(tmp_path):
    build_mixed_run(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    score_run(tmp_path / "link")
    assert render_report(tmp_path / "link").is_file()


def test_what_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match="x is a folder"):
        check_outputs(tmp_path, [tmp_path / "x"])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is no regular file"):
        check_outputs(tmp_path, [tmp_path / "pipe"])
