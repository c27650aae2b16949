"""The command around the benchmarks: what fails is said and the rest is measured, and the files that come out."""

import json
import sys

import pytest
from PIL import Image

from benchmarks.__main__ import BENCHMARKS, main

GOOD = """
from benchmarks.measurement import compare

def add_arguments(parser):
    parser.add_argument("--NAME-repeats", type=int, default=2)

def measure(options):
    yield compare("speed of NAME", lambda repeat: 12.0, lambda repeat: 3.0, goal=2.0, unit="rows/s",
                  repeats=options.NAME_repeats)
    yield compare("size of NAME", lambda repeat: 2.0, lambda repeat: 1.0, goal=1.0, unit="GiB",
                  repeats=options.NAME_repeats, lower_is_better=True, note="a | b")
    yield compare("peer of NAME", lambda repeat: 5.0, lambda repeat: 1 / 0, goal=1.0, unit="rows/s",
                  repeats=options.NAME_repeats, needs="a_package_that_nobody_has")
"""
BROKEN = """
from benchmarks.measurement import Measurement
from llava.errors import InputError

def add_arguments(parser):
    parser.add_argument("--broken-input", action="store_true")

def measure(options):
    yield Measurement("before the fault", 1.0, 1.0, 1.0, "s", 1)
    raise InputError("rows.jsonl: no rows; mend it") if options.broken_input else ZeroDivisionError("by zero")
"""
ENDED = """
def add_arguments(parser):
    pass

def measure(options):
    raise KeyboardInterrupt
"""


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    """Two benchmarks that measure, one that fails, one that is not there."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "good_one.py").write_text(GOOD.replace("NAME", "one"))
    (folder / "good_two.py").write_text(GOOD.replace("NAME", "two"))
    (folder / "broken_one.py").write_text(BROKEN)
    (folder / "ended_one.py").write_text(ENDED)
    monkeypatch.syspath_prepend(str(folder))
    yield {"one": "good_one", "broken": "broken_one", "gone": "not_there", "two": "good_two"}
    for module in ("good_one", "good_two", "broken_one", "ended_one"):
        sys.modules.pop(module, None)


def test_what_fails_is_said_and_the_others_go_on(benchmarks, tmp_path, capsys):
    output, page = tmp_path / "ratios.json", tmp_path / "ratios.md"
    assert main(["--output", str(output), "--markdown", str(page)], benchmarks) == 1
    names = [row["name"] for row in json.loads(output.read_text())]
    assert names == [
        *("speed of one", "size of one", "peer of one"),
        "before the fault",
        *("speed of two", "size of two", "peer of two"),
    ]
    errors = capsys.readouterr().err
    assert "error: broken: ZeroDivisionError: by zero" in errors
    assert "error: gone: not_there cannot be imported" in errors
    text = page.read_text()
    assert "- broken: ZeroDivisionError: by zero" in text
    assert "- gone: not_there cannot be imported" in text


def test_bad_input_has_its_own_exit_code(benchmarks, tmp_path, capsys):
    output = tmp_path / "ratios.json"
    assert main(["--output", str(output), "--only", "broken", "one", "--broken-input"], benchmarks) == 2
    assert "error: broken: rows.jsonl: no rows; mend it" in capsys.readouterr().err
    assert len(json.loads(output.read_text())) == 4


def test_who_ends_it_early_keeps_what_was_measured(benchmarks, tmp_path):
    output = tmp_path / "ratios.json"
    with pytest.raises(KeyboardInterrupt):
        main(["--output", str(output), "--only", "one", "ended", "two"], benchmarks | {"ended": "ended_one"})
    assert [row["name"] for row in json.loads(output.read_text())] == ["speed of one", "size of one", "peer of one"]


def test_what_is_not_asked_for_is_no_fault(benchmarks, tmp_path, capsys):
    output = tmp_path / "ratios.json"
    assert main(["--output", str(output), "--only", "two", "--repeats", "3"], benchmarks) == 0
    rows = json.loads(output.read_text())
    assert [row["repeats"] for row in rows] == [3, 3, 3]
    assert [(row["ratio"], row["holds"]) for row in rows] == [(4.0, True), (0.5, False), (None, None)]
    assert rows[2]["baseline"] is None
    assert rows[2]["note"] == "a_package_that_nobody_has is not installed"
    out = capsys.readouterr().out
    assert "speed of two: 12.000 against 3.000 rows/s, 4.0 times (goal 2: holds)" in out
    assert "peer of two: 5.000 rows/s (a_package_that_nobody_has is not installed)" in out
    assert "torch " in out.splitlines()[0]  # the machine


def test_table_and_plot(benchmarks, tmp_path):
    pytest.importorskip("matplotlib")
    output, page, plot = (tmp_path / name for name in ("ratios.json", "ratios.md", "ratios.png"))
    options = ["--output", str(output), "--markdown", str(page), "--plot", str(plot), "--only", "one"]
    assert main(options, benchmarks) == 0
    lines = page.read_text().splitlines()
    assert "| speed of one | 12 | 3 | rows/s | 4 | 2 | holds | 2 |" in lines
    assert r"| size of one (a \| b) | 2 | 1 | GiB | 0.5 | 1 | does not hold | 2 |" in lines
    assert (
        "| peer of one (a_package_that_nobody_has is not installed) | 5 | – | rows/s | – | 1 | not measured | 2 |"
        in lines
    )
    assert "](ratios.png)" in page.read_text()
    with Image.open(plot) as image:
        assert image.width > 1000


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(benchmarks, tmp_path, capsys):
    assert main(["--output", str(tmp_path / "ratios.json"), "--plot", str(tmp_path)], benchmarks) == 2
    captured = capsys.readouterr()
    assert "is a folder" in captured.err
    assert "speed of" not in captured.err


def test_every_benchmark_can_be_asked_for_by_name():
    for name, module in BENCHMARKS.items():
        assert module == f"benchmarks.{name}"
