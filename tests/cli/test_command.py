"""Values of options are checked before a command runs, in one way."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any, get_args, get_type_hints

import pytest
from typer.main import get_command

from llava.bounds import BOUNDS
from llava.cli.app import app, main
from llava.cli.command import OWN_FORM, CheckedCommand

GROUP: Any = get_command(app)
COMMANDS = GROUP.commands


def run(capsys, *words) -> str:
    """Run a command that refuses its input; return the one line that it prints."""
    assert main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert len(line) <= 520
    return line


def test_every_command_checks_its_values():
    assert len(COMMANDS) >= 14
    assert [name for name, command in COMMANDS.items() if not isinstance(command, CheckedCommand)] == []


def test_every_numeric_option_has_bounds():
    numbers = {
        name
        for command in COMMANDS.values()
        for name, kind in get_type_hints(inspect.unwrap(command.callback)).items()
        if {int, float} & {kind, *get_args(kind)}
    }
    assert {"limit", "threshold", "tolerance", "seed"} <= numbers
    assert numbers - set(BOUNDS) == set()
    assert set(OWN_FORM) <= set(BOUNDS)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "0", "2", "1e999", "²", "", " ", "0x1", "9" * 5000])
@pytest.mark.parametrize("command", ["generate", "detect"])
def test_a_threshold_out_of_bounds_is_one_line(capsys, tmp_path, monkeypatch, command, value):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "m"] if command == "generate" else ["--input", "gone.jsonl"]
    line = run(capsys, command, *words, "--output", "out", f"--threshold={value}")
    assert "--threshold" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value", ["²", "٣x", "0", "-5", "1.5", "nan", "auto ", "1e3", "99999999999999999999", "9" * 5000]
)
def test_a_batch_size_out_of_bounds_is_one_line(capsys, value):
    assert "--batch-size" in run(capsys, "generate", "--model", "m", "--output", "o", "--batch-size", value)


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["generate", "--model", "m", "--output", "", "--limit", "1"], "--output"),
        (["generate", "--model=", "--output", "o"], "--model"),
        (["score", ""], "argument"),
        (["compare", "a", "b", "--output", ""], "--output"),
        (["merge", "--base", "b", "--adapter", " ", "--output", "o"], "--adapter"),
        (["train-detector", "--output-dir", ""], "--output-dir"),
    ],
)
def test_an_empty_value_is_refused(capsys, words, flag):
    line = run(capsys, *words)
    assert flag in line
    assert "is empty; give a value or leave it out" in line


def test_an_empty_detector_means_none(capsys, tmp_path):
    line = run(capsys, "generate", "--model", tmp_path / "gone", "--output", tmp_path / "o", "--detector", "")
    assert f"{tmp_path / 'gone'}" in line


@pytest.mark.parametrize(
    "content", ['output: ""', 'output: "a\\0b"', 'output: "\\ud83d"', "limit: 0", "temperature: 1e9"]
)
def test_a_config_file_is_checked_as_flags_are(capsys, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(content + "\n")
    words = [] if "output" in content else ["--output", "o"]
    line = run(capsys, "generate", "--model", "m", "--config", "c.yaml", *words)
    assert content.partition(":")[0] in line
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_an_argument_that_is_no_utf8_is_refused(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "llava.cli", "score", b"run\xff"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "is not UTF-8" in line


@pytest.mark.parametrize("prices", ["1", "1,2,3", "a,b", "nan,1", "-1,2", "inf,inf"])
def test_prices_are_two_numbers(capsys, prices):
    assert "--prices" in run(capsys, "score", "gone", "--prices", prices)


def test_outputs_are_tried_before_the_work(capsys, tmp_path):
    """Nothing else of these commands is right: the place is looked at first."""
    file = tmp_path / "file"
    file.write_text("mine")
    below = file / "below"
    gone = tmp_path / "gone"
    (tmp_path / "rows.jsonl").write_text('{"response": "x"}\n')
    for words in (
        ["merge", "--base", gone, "--adapter", gone, "--output", below],
        ["convert", gone, below],
        ["compare", gone, gone, "--output", below],
        ["generate", "--model", gone, "--output", below],
        ["detect", "--detector", gone, "--input", tmp_path / "rows.jsonl", "--output", below],
        ["detoxify", "--detoxifier", gone, "--input", tmp_path / "rows.jsonl", "--output", below],
        ["detect", "--detector", gone, "--input", tmp_path / "rows.jsonl", "--output", "/proc/x.jsonl"],
        ["generate", "--model", gone, "--output", "x" * 300],
        ["train-detector", "--train-data", gone, "--output-dir", below],
        ["train-llava", "--train-data", gone, "--output-dir", below],
    ):
        line = run(capsys, *words)
        assert "output" in line
        assert str(gone) not in line
    assert file.read_text() == "mine"
