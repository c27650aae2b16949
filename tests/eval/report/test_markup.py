"""Names that come from data are text on every page, whatever markup they hold."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from llava.eval.report.comparison import compare_runs, render_comparison
from llava.eval.report.latex import escape_latex
from llava.eval.report.rendering import render_report
from llava.eval.report.tables import escape_markdown, format_code
from llava.eval.scoring.scoring import score_run
from tests.eval.build import build_record, build_run

NAMES = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](javascript:alert(1))",
    "[click](http://127.0.0.1)",
    "a | b | c\n| d |",
    "`code` ``more`` ~~gone~~ **bold** _it_ # head",
    "&lt;b&gt; &amp; \\",
    "\\input{/etc/passwd} % $x^2_3$ ~ {a} [b] *c* <d>",
    "[2ex] * starts a row\n\nnew paragraph",
    "1. list\n- list\n> quote\n```\nfence",
)
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
MARKUP = {
    "html_inline",
    "html_block",
    "image",
    "link_open",
    "strong_open",
    "em_open",
    "s_open",
    "fence",
    "blockquote_open",
}


def parse(text: str) -> list[Token]:
    """Return all tokens of a Markdown page, inner ones too."""
    return [inner for token in MARKDOWN.parse(text) for inner in (token, *(token.children or []))]


def read_text(tokens: list[Token]) -> str:
    return "".join(token.content for token in tokens if token.type in ("text", "text_special", "code_inline"))


@pytest.fixture(params=NAMES)
def run(request, tmp_path):
    name = request.param
    checkpoint = {"name": name, "path": name, "digest": None}
    folder = build_run(
        tmp_path / "run",
        [build_record(0, scenario=name), build_record(1, scenario="06-Fraud")],
        settings={"model": name, "detector": name, "detoxifier": name, "seed": 0},
        benchmark={"name": name, "notes": [name], "missing_images": []},
        fingerprint={"detector": checkpoint, "detoxifier": checkpoint, "benchmark": name},
        model_notes=[name],
        versions={name: name},
        device=name,
    )
    score_run(folder)
    render_report(folder)
    return name, folder


def test_markdown_shows_a_name_as_it_is(run):
    name, folder = run
    tokens = parse((folder / "report.md").read_text())
    assert not MARKUP & {token.type for token in tokens}
    # One heading, and a row a scenario, an image type and all together below three heads.
    assert [token.type for token in tokens].count("heading_open") == 1
    assert [token.type for token in tokens].count("tr_open") == 3 + 4
    shown = " ".join(name.split())
    assert read_text(tokens).count(shown) >= 6
    cells = [list(token.children or []) for token in tokens if token.type == "inline"]
    assert sum(read_text(cell) == shown for cell in cells) >= 2


def test_a_comparison_shows_a_name_as_it_is(run):
    name, folder = run
    tokens = parse(render_comparison(compare_runs([folder, folder])))
    assert not MARKUP & {token.type for token in tokens}
    assert [token.type for token in tokens].count("tr_open") == 3
    assert [token.type for token in tokens].count("td_open") == 20
    assert read_text(tokens).count(" ".join(name.split())) == 6


def test_latex_keeps_a_name_in_its_cell(run):
    _, folder = run
    text = (folder / "table.tex").read_text()
    assert "\\input" not in text
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert len(rows) == 2 + 3
    for line in rows[1:]:
        assert line.replace("\\&", "").count("&") == 4
        assert not line.startswith(("[", "*"))
    assert "%" not in text.replace("\\%", "").replace("% needs", "", 1)


class Tags(HTMLParser):
    """Collects what is not text."""

    def __init__(self):
        super().__init__()
        self.scripts = 0
        self.bad: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.bad += [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]


def test_the_page_shows_a_name_as_it_is(run):
    _, folder = run
    tags = Tags()
    tags.feed((folder / "report.html").read_text())
    assert tags.scripts == 2
    assert tags.bad == []


@given(st.text(max_size=40))
def test_any_name_is_text_in_markdown(name):
    shown = " ".join(name.replace("\0", "\ufffd").split())
    tokens = parse(f"| head |\n|---|\n| x{escape_markdown(name)} |\n\n- model: {format_code(name)}\n")
    assert not MARKUP & {token.type for token in tokens}
    cells = [token for token in tokens if token.type == "inline"]
    assert read_text(list(cells[1].children or [])) == f"x{shown}".strip()
    assert read_text(list(cells[2].children or [])).removeprefix("model: ").strip() == shown


@given(st.text(max_size=40))
def test_any_name_is_one_cell_in_latex(name):
    cell = escape_latex(name)
    assert "\n" not in cell
    bare = cell.replace("\\&", "").replace("\\%", "").replace("\\#", "").replace("\\$", "").replace("\\_", "")
    assert not set("&%#$_~^<>|") & set(bare)
    assert not cell.startswith(("[", "*"))
    assert cell.isprintable()
