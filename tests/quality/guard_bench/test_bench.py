"""The whole bench by its command: a tiny detector, a tiny guard model, several together."""

import json

import pytest

from llava.cli.app import main
from llava.files import write_jsonl
from llava.quality.guard_bench.bench import run_bench
from llava.quality.guard_bench.plots import draw_roc
from llava.quality.guard_bench.report import render_markdown
from tests.quality.guard_bench.rows import SETS
from tests.tiny_guards import SAFE, UNSAFE, name_guard


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def answers(tmp_path):
    """Two files: one in the form of WildGuardTest, one of the project's own."""
    wild = [
        {"prompt": f"How {n}?", "response": text, "response_harm_label": "harmful" if text is UNSAFE else "unharmful"}
        for n in range(6)
        for text in (UNSAFE, SAFE)
    ]
    write_jsonl(tmp_path / "wild.jsonl", wild)
    write_jsonl(
        tmp_path / "own.jsonl", [{"prompt": "How?", "response": f"{SAFE} {n}", "harmful": False} for n in range(8)]
    )
    return tmp_path / "wild.jsonl", tmp_path / "own.jsonl"


def test_a_detector_by_the_command(capsys, tmp_path, answers, tiny_detector):
    wild, own = answers
    folder = tmp_path / "bench"
    command = ("guard-bench", "--input", wild, "--input", own, "--output", folder, "--detector", tiny_detector)
    code, out, err = run(capsys, *command, "--dtype", "float32", "--evasions", "hex", "rot13")
    assert code == 0, err
    report = json.loads((folder / "guard_bench.json").read_text())
    assert [each["name"] for each in report["sources"]] == ["wild", "own"]
    assert [each["n"] for each in report["sources"]] == [12, 8]
    assert report["all"]["n"] == 20
    assert report["sources"][1]["auroc"] is None
    assert [each["name"] for each in report["evasions"]] == ["hex", "rot13"]
    assert set(report["evasions"][0]["by_source"]) == {"wild", "own"}
    assert report["milliseconds"] > 0
    assert report["megabytes"] > 0
    assert {each["benchmark"] for each in report["published"]} == {"WildGuard"}
    page = (folder / "guard_bench.md").read_text()
    assert page == render_markdown(report)
    for words in ("| wild | 12 | 6 |", "## Evasions", "| hex |", "| WildGuard-7B | 75.4 |", "arXiv 2510.14276"):
        assert words in page
    for words in ("wild", "rot13", "WildGuard-7B", "ms a response", str(folder)):
        assert words in out
    assert (folder / "roc.png").read_bytes().startswith(b"\x89PNG")


def test_running_again_scores_nothing_and_says_the_same(capsys, tmp_path, answers, tiny_detector, monkeypatch):
    from llava import HarmDetector

    arguments = (answers, tmp_path / "bench", str(tiny_detector))
    first = run_bench(*arguments, dtype="float32", evasions=["hex"])

    def fail(*_, **__):
        raise AssertionError("scored again")

    monkeypatch.setattr(HarmDetector, "score", fail)
    assert run_bench(*arguments, dtype="float32", evasions=["hex"]) == first
    with pytest.raises(AssertionError, match="scored again"):
        run_bench(*arguments, dtype="float32", evasions=["tags"])


def test_a_guard_model_by_the_command(capsys, tmp_path, answers, tiny_guard):
    folder = tmp_path / "bench"
    spec = name_guard("llama_guard", tiny_guard("llama_guard"))
    rows = [{"prompt": "How?", "response": text, "harmful": text is UNSAFE} for text in (UNSAFE, SAFE)]
    write_jsonl(tmp_path / "two.jsonl", rows)
    code, out, err = run(
        capsys, "guard-bench", "--input", tmp_path / "two.jsonl", "--output", folder, "--detector", spec
    )
    assert code == 0, err
    (source,) = json.loads((folder / "guard_bench.json").read_text())["sources"]
    assert (source["auroc"], source["recall"], source["fpr"]) == (1.0, 1.0, 0.0)
    assert "100.0" in out


def test_several_guards_and_a_config_file(capsys, tmp_path, answers, tiny_guard, tiny_detector):
    folder, config = tmp_path / "bench", tmp_path / "bench.yaml"
    config.write_text(
        f"detector: any({tiny_detector}, guard:{tiny_guard('llama_guard')})\nlimit: 4\nevasions: [hex, tags]\n"
        f"input: [{answers[0]}]\ndtype: float32\n"
    )
    code, _, err = run(capsys, "guard-bench", "--config", config, "--output", folder)
    assert code == 0, err
    report = json.loads((folder / "guard_bench.json").read_text())
    assert report["all"]["n"] == 4
    assert report["guard"].startswith("any(")
    assert [each["name"] for each in report["evasions"]] == ["tags", "hex"]


def test_unscored_responses_are_said_and_count_as_flagged(tmp_path, tiny_guard, answers):
    # A text that does not fit into the guard's context cannot be scored.
    rows = [{"prompt": "How?", "response": UNSAFE, "harmful": True}]
    rows += [{"prompt": "How?", "response": "bread " * 3000, "harmful": False}]
    write_jsonl(tmp_path / "long.jsonl", rows)
    spec = name_guard("llama_guard", tiny_guard("llama_guard"))
    report = run_bench([tmp_path / "long.jsonl"], tmp_path / "bench", spec)
    assert "1 of 2 responses could not be scored and count as flagged" in " ".join(report["remarks"])
    assert (report["all"]["fpr"], report["all"]["unscored"]) == (1.0, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--input", "none.jsonl"], "input file none.jsonl does not exist"),
        (["--input", "{rows}", "--evasions", "pig_latin"], "--evasions pig_latin is unknown"),
        (["--input", "{rows}", "--threshold", "2"], "--threshold 2.0 must be above 0 and at most 1"),
        (["--input", "{rows}", "--limit", "0"], "--limit 0 must be an integer of at least 1"),
        (["--input", "{rows}", "--detector", "any(embedded"], "closing bracket"),
        (["--input", "{bad}"], "known forms are"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(capsys, tmp_path, arguments, told):
    write_jsonl(tmp_path / "rows.jsonl", SETS["XSTest"])
    write_jsonl(tmp_path / "bad.jsonl", [{"text": "a"}])
    words = [word.format(rows=tmp_path / "rows.jsonl", bad=tmp_path / "bad.jsonl") for word in arguments]
    code, _, err = run(capsys, "guard-bench", *words, "--output", tmp_path / "bench")
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.strip()]
    assert told in line
    assert not (tmp_path / "bench").exists()


def test_names_from_files_stay_in_their_cells(tmp_path, tiny_detector):
    rows = [{"prompt": "?", "response": "Yes.", "harmful": bool(n), "source": f"a|b\n{n}"} for n in range(2)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    report = run_bench([tmp_path / "rows.jsonl"], tmp_path / "bench", str(tiny_detector), dtype="float32", resamples=0)
    page = render_markdown(report)
    assert "| rows/a b 0 | 1 | 0 |" in page


def test_no_curve_where_a_class_is_absent(tmp_path):
    from llava.quality.guard_bench.figures import Scored

    (tmp_path / "roc.png").write_bytes(b"old")
    assert draw_roc([("a", Scored.build([True], [0.5], ["a"]))], tmp_path, 0.5) is None
    assert not (tmp_path / "roc.png").exists()
