import importlib.util
import json
from typing import Any

import numpy as np
import pytest

from llava.cli.app import main
from llava.data.training.splits import split_of
from llava.files import write_jsonl
from llava.model.embedded.stack import ASSETS
from llava.protector.detector import HarmDetector
from llava.protector.scoring.thresholds import operating_point
from tests.train.samples import write_labelled


def run(capsys, *arguments):
    code = main(["calibrate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("kind", ["tiny_detector", "tiny_classifier"])
def test_the_copy_keeps_the_rate_it_promises(capsys, tmp_path, request, kind):
    """For an adapter with label 1 = harmful, and a merged model of the released form, label 1 = safe."""
    checkpoint = request.getfixturevalue(kind)
    data = write_labelled(tmp_path / "rows.jsonl", 60)
    output = tmp_path / "deep" / "calibrated"
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    arguments = ("--detector", checkpoint, "--data", data, "--false-positive-rate", 0.1)
    code, out, err = run(capsys, *arguments, "--output", output)
    assert code == 0, err
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    report = json.loads((output / "calibration.json").read_text())
    detector = HarmDetector.from_pretrained(output)
    assert (detector.threshold, detector.config.temperature) == (report["threshold"], report["temperature"])
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    scores = np.array(detector.score([row["response"] for row in rows], [row["prompt"] for row in rows]))
    labels = np.array([row["harmful"] for row in rows])
    point = operating_point(scores, labels, detector.threshold)
    assert (point.false_positive_rate, point.recall) == (report["false_positive_rate"], report["recall"])
    assert point.false_positive_rate <= 0.1
    assert detector.config.positive_label == ("harmful" if kind == "tiny_detector" else "safe")
    assert f"threshold {report['threshold']:.6f}" in out
    assert not list(output.parent.glob(".calibrated*"))


def test_options_may_come_from_a_file(capsys, tmp_path, tiny_detector):
    write_labelled(tmp_path / "rows.jsonl", 20)
    write_jsonl(
        tmp_path / "ordinary.jsonl", [{"prompt": "a", "response": f"b {i}", "harmful": False} for i in range(5)]
    )
    options = [
        f"detector: {tiny_detector}",
        f"data: {tmp_path / 'rows.jsonl'},{tmp_path / 'ordinary.jsonl'}",
        "false-positive-rate: 0.2",
        "benign-source: ordinary",
        f"output: {tmp_path / 'new'}",
    ]
    (tmp_path / "calibrate.yaml").write_text("\n".join(options))
    code, out, err = run(capsys, "--config", tmp_path / "calibrate.yaml")
    assert code == 0, err
    report = json.loads((tmp_path / "new" / "calibration.json").read_text())
    assert (report["harmless"], report["harmful"], report["benign_source"]) == (5, 10, "ordinary")
    assert report["false_positive_rate"] <= 0.2
    assert "of 5 harmless rows" in out


def test_only_held_out_prompts_count_when_asked(capsys, tmp_path, tiny_detector):
    rows: list[dict[str, Any]] = [
        {"prompt": f"question {i}", "response": f"{i} words", "harmful": i % 2 == 0} for i in range(60)
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    output = tmp_path / "new"
    options = ("--detector", tiny_detector, "--data", tmp_path / "rows.jsonl", "--output", output)
    code, _, err = run(capsys, *options, "--false-positive-rate", 0.5, "--held-out")
    assert code == 0, err
    report = json.loads((output / "calibration.json").read_text())
    kept = [row for row in rows if split_of(row["prompt"]) == "held_out"]
    assert 0 < len(kept) < 30
    assert report["harmful"] == sum(row["harmful"] for row in kept)
    assert report["harmless"] == len(kept) - report["harmful"]


STALE = ("metrics.json", "held_out_scores.jsonl", "roc.png", "calibration.png")


@pytest.fixture
def trained(tmp_path, tiny_lm):
    """A detector with what a training leaves beside it: figures at 0.5, checkpoints, logs."""
    from tests.tiny_adapters import build_detector_adapter

    folder = build_detector_adapter(tmp_path / "detector", tiny_lm)
    for name in (*STALE, "checkpoint-5/state", "runs/events", "train_config.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("stale")
    return folder


def check_figures(folder, rows):
    """The figures beside a detector are those of its own threshold and temperature on these rows, afresh."""
    detector = HarmDetector.from_pretrained(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    report = json.loads((folder / "calibration.json").read_text())
    assert (metrics["threshold"], metrics["temperature"]) == (detector.threshold, detector.config.temperature)
    assert detector.threshold != 0.5
    overall = metrics["overall"]
    assert (overall["recall"], overall["fpr"]) == (report["recall"], report["false_positive_rate"])
    assert overall["ece"] == pytest.approx(report["ece_after"], abs=1e-9)
    assert set(metrics["by_source"]) == {"rows"}
    for part in (overall, metrics["by_source"]["rows"]):
        for name in ("auroc", "auprc", "f1", "recall", "fpr", "ece"):
            low, high = part["ci95"][name]
            assert 0 <= low <= high <= 1
            assert low <= part[name] <= high or name in ("auprc", "ece")  # resampling moves these two up
    scores = detector.score([row["response"] for row in rows], [row["prompt"] for row in rows])
    written = [json.loads(line) for line in (folder / "held_out_scores.jsonl").read_text().splitlines()]
    assert [row["harm_score"] for row in written] == pytest.approx(scores, abs=1e-6)
    for name in ("roc.png", "calibration.png"):
        drawn = importlib.util.find_spec("matplotlib") is not None
        assert (folder / name).is_file() is drawn, "without matplotlib the former picture goes, for it is wrong"
        assert not drawn or (folder / name).read_bytes().startswith(b"\x89PNG")


def test_in_place_leaves_no_former_figure(capsys, tmp_path, trained):
    data = write_labelled(tmp_path / "rows.jsonl", 60)
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    arguments = ("--detector", trained, "--data", data, "--false-positive-rate", 0.1)
    assert run(capsys, *arguments, "--in-place")[0] == 0
    check_figures(trained, [json.loads(line) for line in data.read_text().splitlines()])
    after = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed - set(STALE) == {"protector_config.json", "calibration.json"}
    assert (trained / "checkpoint-5" / "state").exists()


def test_a_copy_has_new_figures_and_no_training_state(capsys, tmp_path, trained):
    data = write_labelled(tmp_path / "rows.jsonl", 60)
    output = tmp_path / "calibrated"
    arguments = ("--detector", trained, "--data", data, "--false-positive-rate", 0.1)
    assert run(capsys, *arguments, "--output", output)[0] == 0
    check_figures(output, [json.loads(line) for line in data.read_text().splitlines()])
    assert {path.name for path in output.iterdir()} - set(STALE) == {
        *("adapter_config.json", "adapter_model.safetensors", "protector_config.json", "calibration.json"),
        "train_config.yaml",
    }
    assert (trained / "metrics.json").read_text() == "stale"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), ["--output", "--in-place"]),
        (("--output", "new", "--in-place"), ["either"]),
        (("--output", ASSETS / "detector" / "x"), ["installed package"]),
        (("--detector", "embedded", "--in-place"), ["installed package"]),
        (("--output", "."), ["exists already"]),
        (("--output", "new", "--false-positive-rate", "1.5"), ["--false-positive-rate"]),
        (("--output", "new", "--benign-source", "else"), ["--benign-source else", "rows"]),
        (("--output", "new", "--data", "rows.jsonl:0.5"), ["share"]),
        (("--output", "new", "--data", "harmful.jsonl"), ["harmless"]),
        (("--output", "new", "--data", "gone.jsonl"), ["gone.jsonl"]),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(capsys, tmp_path, monkeypatch, tiny_detector, more, words):
    monkeypatch.chdir(tmp_path)
    write_labelled(tmp_path / "rows.jsonl", 8)
    write_jsonl(tmp_path / "harmful.jsonl", [{"prompt": "a", "response": "b", "harmful": True}])
    code, _, err = run(capsys, "--detector", tiny_detector, "--data", "rows.jsonl", *more)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "harmful.jsonl"}
    assert not (tiny_detector / "calibration.json").exists()


@pytest.fixture
def occupied(tmp_path, monkeypatch):
    """Work in a folder with a file, and a folder that holds another."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("file", "is a file"),
        ("file/new", "file is a file; choose another place"),
        ("file/deep/new", "file is a file; choose another place"),
        ("full", "exists already; choose a new folder"),
        ("/proc/new/calibrated", "cannot be written"),
        pytest.param("x" * 300, "name", id="a_long_name"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_scored(
    capsys, tmp_path, occupied, tiny_detector, place, told
):
    # There are no rows either: a command that reads or scores them first would name these.
    code, _, err = run(capsys, "--detector", tiny_detector, "--data", "gone.jsonl", "--output", place)
    assert code == 2
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"file", "full", "full/mine.txt"}


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("file/figures.json", "file is a file"),
        ("full", "is a folder"),
        pytest.param("x" * 300, "name", id="a_long_name"),
    ],
)
def test_a_file_of_figures_that_cannot_be_written_is_told_before_anything_is_scored(
    capsys, occupied, tiny_guard, place, told
):
    spec = f"guard:{tiny_guard('llama_guard')}"
    capsys.readouterr()  # building it may have shown a bar
    code, _, err = run(capsys, "--detector", spec, "--data", "gone.jsonl", "--output", place)
    assert code == 2
    (line,) = err.strip().splitlines()
    assert told in line


def test_each_source_keeps_its_own_limit_and_one_that_breaks_it_is_named(capsys, tmp_path, tiny_detector):
    write_labelled(tmp_path / "rows.jsonl", 40)
    ordinary = [{"prompt": "a", "response": f"b {i} of them", "harmful": False} for i in range(20)]
    write_jsonl(tmp_path / "ordinary.jsonl", ordinary)
    common = ("--detector", tiny_detector, "--data", f"{tmp_path / 'rows.jsonl'},{tmp_path / 'ordinary.jsonl'}")
    loose = ("--false-positive-rate", 0.5)
    code, _, err = run(capsys, *common, *loose, "--output", tmp_path / "one", "--max-false-positive-rate", "ordinary=0")
    assert code == 0, err
    report = json.loads((tmp_path / "one" / "calibration.json").read_text())
    assert {rate["source"] for rate in report["sources"]} == {"ordinary", "rows"}
    kept = next(rate for rate in report["sources"] if rate["source"] == "ordinary")
    assert (kept["false_positive_rate"], kept["most"], kept["harmless"]) == (0.0, 0.0, 20)
    detector = HarmDetector.from_pretrained(tmp_path / "one")
    scores = detector.score([row["response"] for row in ordinary], ["a"] * 20)
    assert max(scores) < detector.threshold
    code, out, err = run(capsys, *common, "--output", tmp_path / "two", "--max-false-positive-rate", 0.5)
    assert code == 0, err
    rates = json.loads((tmp_path / "two" / "calibration.json").read_text())["sources"]
    for rate in rates:
        broken = rate["false_positive_rate"] > 0.5
        assert (f"{rate['source']}: " in err) == broken
        assert (f"{rate['source']}: " in out) != broken
    assert any(rate["false_positive_rate"] > 0.5 for rate in rates), "the case needs a source that breaks the limit"


def test_a_limit_for_a_source_that_is_not_there(capsys, tmp_path, tiny_detector):
    data = write_labelled(tmp_path / "rows.jsonl", 10)
    options = ("--detector", tiny_detector, "--data", data, "--output", tmp_path / "new")
    code, _, err = run(capsys, *options, "--max-false-positive-rate", "other=0.1")
    assert code != 0
    assert "names other; sources with harmless rows are rows" in err
    assert not (tmp_path / "new").exists()
