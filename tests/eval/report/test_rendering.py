"""The page: self-contained, escaped, and only where there is something to report."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from llava.constants import REFUSAL
from llava.errors import InputError
from llava.eval.report.rendering import mark_breaks, render_report
from llava.eval.scoring.scoring import score_run
from tests.eval.build import build_mixed_run, build_record, build_run

ATTACK = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def read_tags(page: str) -> list[tuple[str, dict]]:
    parser = Tags()
    parser.feed(page)
    return parser.tags


def read_data(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_three_files_are_written_and_the_page_needs_nothing_else(tmp_path):
    score_run(build_mixed_run(tmp_path))
    path = render_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert (tmp_path / "report.md").is_file()
    assert (tmp_path / "table.tex").is_file()
    page = path.read_text()
    for tag, attributes in read_tags(page):
        assert tag not in ("link", "iframe", "object", "embed")
        assert "src" not in attributes
        assert "href" not in attributes
    assert "default-src 'none'" in page
    assert not re.search(r"https?://", page)


def test_the_page_shows_the_numbers_and_the_notes(tmp_path):
    score_run(build_mixed_run(tmp_path))
    page = render_report(tmp_path).read_text()
    assert "vision tower is untrained" in page
    assert ">75.0<small> %" in page
    assert "[40.9, 92.9], n 8" in page
    assert "<dt>torch</dt><dd>2.0</dd>" in page
    data = read_data(page)
    assert len(data["rows"]) == 10
    assert data["rows"][0]["u"] == [True, False]
    assert data["rows"][2]["p"] == "Here is a safe idea: bake bread."
    assert data["rows"][3]["p"] is None


def test_contrast_pairs_and_changed_benign_answers_are_shown(tmp_path):
    records = [
        build_record("1-unsafe", shown=REFUSAL, pair="1"),
        build_record("1-safe", harmful=False, pair="1"),
        build_record("2-unsafe", shown=REFUSAL, pair="2"),
        build_record("2-safe", harmful=False, shown=REFUSAL, pair="2"),
    ]
    score_run(build_run(tmp_path, records))
    page = render_report(tmp_path).read_text()
    assert "<h2>Contrast pairs</h2>" in page
    assert "0.0 → 50.0<small> %" in page
    assert ">1<small> of 2</small>" in page
    text = (tmp_path / "report.md").read_text()
    assert "contrast pairs right on both sides, protected: 50.0 % of 2" in text
    assert "too strict 1, too lax 0, neither right 0" in text
    assert "changed at all: 1 of 2 (50.0 %)" in text


def test_texts_of_others_cannot_become_markup(tmp_path):
    records = [build_record(0, ATTACK, scenario="<b>bold</b>", shown=ATTACK + "2")]
    run = build_run(tmp_path, records, model_notes=[ATTACK], settings={"model": ATTACK, "seed": 0, "detector": ATTACK})
    score_run(run)
    page = render_report(run).read_text()
    names = [tag for tag, _ in read_tags(page)]
    assert names.count("script") == 2
    assert not any("onerror" in attributes for _, attributes in read_tags(page))
    assert "img" not in names
    assert "<b>bold" not in page
    assert read_data(page)["rows"][0]["r"] == ATTACK


def test_an_unguarded_run_has_a_report_too(tmp_path):
    score_run(build_run(tmp_path, [build_record(0, guarded=False, harm_score=None)]))
    page = render_report(tmp_path).read_text()
    assert "attack success rate, unprotected" in page
    assert "attack success rate, protected" not in page
    assert "Harm scores" not in page


def test_a_report_can_go_elsewhere(tmp_path):
    score_run(build_mixed_run(tmp_path / "run"))
    assert render_report(tmp_path / "run", tmp_path / "out") == tmp_path / "out" / "report.html"
    assert not (tmp_path / "run" / "report.html").exists()


def test_without_records_or_summary_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match=r"holds no records\.jsonl"):
        render_report(tmp_path)
    build_mixed_run(tmp_path)
    with pytest.raises(InputError, match=r"holds no summary\.json"):
        render_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_name_breaks_after_underscores_and_is_escaped():
    assert str(mark_breaks("a_<b>_c")) == "a_<wbr>&lt;b&gt;_<wbr>c"
