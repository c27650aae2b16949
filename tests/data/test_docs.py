"""docs/benchmarks.md: its table is complete and its examples run."""

from __future__ import annotations

import json
import re

from llava.data.benchmarks.figstep import TEXT_PROMPT
from llava.data.benchmarks.loading import BENCHMARKS, load_benchmark
from llava.data.images import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from tests.conftest import REPOSITORY
from tests.data.layouts import save_image

TEXT = (REPOSITORY / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_table_names_every_benchmark():
    named = re.findall(r"^\| `(\w+)`", TEXT, flags=re.MULTILINE)
    assert [name for name in named if name in BENCHMARKS] == sorted(BENCHMARKS, key=named.index)
    assert set(BENCHMARKS) <= set(named)


def test_the_counts_of_the_samples_are_right():
    assert f"| {len(load_benchmark('sample').questions)} (52 × 4)" in TEXT
    assert re.search(rf"`sample_mixed`.*\| {len(load_benchmark('sample_mixed').questions)} ", TEXT)
    assert re.search(rf"`sample_benign`.*\| {len(load_benchmark('sample_benign').questions)} ", TEXT)


def test_quoted_constants_are_right():
    assert TEXT_PROMPT in " ".join(TEXT.replace("\n> ", " ").split())
    assert f"{MAX_IMAGE_PIXELS // 10**6} million pixels and {MAX_IMAGE_BYTES // 2**20} MiB" in TEXT


def test_the_python_example_runs(capsys):
    (example,) = blocks("python")
    exec(compile(example, "docs/benchmarks.md", "exec"), {})
    assert capsys.readouterr().out.count("06-Fraud 0 ") == 1


def test_the_example_rows_load(tmp_path):
    rows = blocks("json")
    for row in rows:
        json.loads(row)
    (tmp_path / "mine.jsonl").write_text("".join(rows))
    save_image(tmp_path / "signs" / "1.png")
    assert [q.id for q in load_benchmark(tmp_path / "mine.jsonl").questions] == ["1", "crack-unsafe", "crack-safe"]


def test_links_between_pages_lead_somewhere():
    for page in ("docs/benchmarks.md", "dataset/README.md", "eval_polite/README.md"):
        path = REPOSITORY / page
        for link in re.findall(r"\]\(((?!https?:)[^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{page}: {link}"
