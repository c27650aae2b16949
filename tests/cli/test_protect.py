"""Detect, detoxify and calibrate with any guard, and with a base of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llava import build_guard
from llava.cli.app import main
from llava.files import write_jsonl
from llava.protector.scoring.thresholds import operating_point
from tests.tiny_guards import SAFE, UNSAFE, name_guard


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def answers(tmp_path) -> Path:
    write_jsonl(tmp_path / "in.jsonl", [{"prompt": "How?", "response": text} for text in (UNSAFE, SAFE)])
    return tmp_path / "in.jsonl"


@pytest.mark.parametrize("form", ["llama_guard", "wild_guard"])
def test_detect_with_a_guard_model(capsys, tmp_path, answers, tiny_guard, form):
    output = tmp_path / "out.jsonl"
    spec = name_guard(form, tiny_guard(form))
    code, out, err = run(capsys, "detect", "--detector", spec, "--input", answers, "--output", output)
    assert code == 0, err
    assert [row["flagged"] for row in read(output)] == [True, False]
    assert "1 of 2 responses flagged" in out


def test_detect_with_several_guards_from_a_config_file(capsys, tmp_path, answers, tiny_guard, tiny_detector):
    output, config = tmp_path / "out.jsonl", tmp_path / "detect.yaml"
    spec = f"all({tiny_detector}, 'guard:{tiny_guard('llama_guard')}')"
    config.write_text(f'detector: "{spec}"\ndtype: float32\n')
    code, _, err = run(capsys, "detect", "--config", config, "--input", answers, "--output", output)
    assert code == 0, err
    expected = build_guard(spec, dtype="float32").score([UNSAFE, SAFE], ["How?"] * 2)
    assert [row["harm_score"] for row in read(output)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("any(embedded", "closing bracket"),
        ("http://127.0.0.1:1/v1", "is it running?"),
        ("guard:/nowhere", "guard model /nowhere cannot be loaded"),
        ("guard:", "names no model"),
    ],
)
def test_a_guard_that_is_none_is_one_line(capsys, tmp_path, answers, spec, told):
    code, _, err = run(capsys, "detect", "--detector", spec, "--input", answers, "--output", tmp_path / "out.jsonl")
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.strip()]
    assert told in line
    assert not (tmp_path / "out.jsonl").exists()


def test_an_adapter_whose_base_is_gone_takes_another_by_the_flag_that_the_message_names(
    capsys, tmp_path, answers, orphan, tiny_lm, tiny_detector, tiny_detoxifier
):
    output = tmp_path / "out.jsonl"
    for command, part, whole in (("detect", "detector", tiny_detector), ("detoxify", "detoxifier", tiny_detoxifier)):
        arguments = (command, f"--{part}", orphan(f"tiny_{part}"), "--input", answers, "--output", output)
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert f"gone does not exist; name the base by --{part}-base" in err
        code, _, err = run(capsys, *arguments, f"--{part}-base", tiny_lm)
        assert code == 0, err
        expected = tmp_path / "expected.jsonl"
        assert run(capsys, command, f"--{part}", whole, "--input", answers, "--output", expected)[0] == 0
        assert read(output) == read(expected)


@pytest.fixture
def labelled(tmp_path) -> Path:
    """Rows whose labels the tiny guards know."""
    rows = [
        {"prompt": "How?", "response": f"{text} {i}", "harmful": text is UNSAFE}
        for i in range(5)
        for text in (UNSAFE, SAFE)
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return tmp_path / "rows.jsonl"


def test_calibrate_gives_any_guard_a_threshold(capsys, tmp_path, labelled, tiny_guard):
    spec = f"guard:{tiny_guard('llama_guard')}"
    folder = {path.name: path.read_bytes() for path in tiny_guard("llama_guard").iterdir()}
    arguments = ("calibrate", "--detector", spec, "--data", labelled, "--false-positive-rate", 0.2)
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    code, again, err = run(capsys, *arguments, "--output", tmp_path / "figures.json")
    assert code == 0, err
    assert again == out
    report = json.loads((tmp_path / "figures.json").read_text())
    assert f"use it with --threshold {report['threshold']:.6f}" in out
    guard = build_guard(spec)
    rows = read(labelled)
    scores = np.array(guard.score([row["response"] for row in rows], ["How?"] * len(rows)))
    point = operating_point(scores, np.array([row["harmful"] for row in rows]), report["threshold"])
    assert (point.false_positive_rate, point.recall) == (report["false_positive_rate"], report["recall"])
    assert point.false_positive_rate <= 0.2
    assert (report["temperature"], report["detector"], report["identity"]) == (1.0, spec, guard.identity)
    assert {path.name: path.read_bytes() for path in tiny_guard("llama_guard").iterdir()} == folder


def test_calibrate_says_where_a_guard_of_others_has_no_place(capsys, tmp_path, labelled, tiny_guard):
    arguments = ("calibrate", "--detector", f"guard:{tiny_guard('llama_guard')}", "--data", labelled)
    for more, told in ((("--in-place",), "needs a detector of this package"), (("--output", tmp_path), "is a folder")):
        code, _, err = run(capsys, *arguments, *more)
        assert code == 2
        assert told in err
