"""Whole runs of `detect`: the same output for any form of input, any number of processes, after any interruption."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from llava import HarmDetector
from llava.errors import InputError
from llava.eval.detection.runner import Summary, run_detection
from llava.eval.detection.settings import DetectionSettings
from llava.files import write_jsonl

REPOSITORY = Path(__file__).resolve().parents[3]
COUNT = 2000
ROWS = [
    {
        "id": i,
        "prompt": f"How do I bake {'very ' * (i % 5)}good bread?",
        "response": f"Step {i}. " + "Mix flour and water. " * (i % 7),
    }
    for i in range(150)
]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def source(tmp_path) -> Path:
    write_jsonl(tmp_path / "in.jsonl", ROWS)
    return tmp_path / "in.jsonl"


@pytest.fixture
def values(source, tiny_detector, tmp_path) -> dict:
    return {
        "input": str(source),
        "output": str(tmp_path / "out.jsonl"),
        "detector": str(tiny_detector),
        "dtype": "float32",
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def expected(tiny_detector) -> list[float]:
    detector = HarmDetector.from_pretrained(tiny_detector, dtype="float32")
    return [detector.score([row["response"]], [row["prompt"]])[0] for row in ROWS]


def litter(tmp_path) -> list[Path]:
    return list(tmp_path.glob(".*"))


def test_rows_come_out_in_order_with_their_scores(values, expected, tmp_path):
    found = run_detection(DetectionSettings(**values, threshold=0.5))
    rows = read(tmp_path / "out.jsonl")
    assert [{key: row[key] for key in ROWS[0]} for row in rows] == ROWS
    assert [row["harm_score"] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert [row["flagged"] for row in rows] == [score >= 0.5 for score in expected]
    assert found == Summary(150, sum(row["flagged"] for row in rows))
    assert litter(tmp_path) == []


def write_as(path: Path) -> None:
    if path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=40)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    else:
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))


@pytest.mark.parametrize("form", ["in.csv", "in.parquet", "in.json", "in.jsonl.gz"])
def test_every_form_of_input_gives_the_same(values, expected, tmp_path, form):
    write_as(tmp_path / form)
    run_detection(DetectionSettings(**{**values, "input": tmp_path / form}))
    rows = read(tmp_path / "out.jsonl")
    assert [(int(row["id"]), row["response"]) for row in rows] == [(row["id"], row["response"]) for row in ROWS]
    assert [row["harm_score"] for row in rows] == pytest.approx(expected, abs=1e-5)


def test_output_is_written_as_its_ending_says(values, tmp_path):
    run_detection(DetectionSettings(**values))
    rows = read(tmp_path / "out.jsonl")
    run_detection(DetectionSettings(**{**values, "output": tmp_path / "out.parquet"}))
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == rows
    run_detection(DetectionSettings(**{**values, "output": tmp_path / "out.csv"}))
    with (tmp_path / "out.csv").open(newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert [(float(row["harm_score"]), row["flagged"]) for row in cells] == [
        (row["harm_score"], str(row["flagged"]).lower()) for row in rows
    ]


def test_a_row_that_cannot_be_scored_is_null_and_flagged(values, tmp_path, source):
    write_jsonl(source, [{"response": ""}, {"response": "Mix flour."}])
    assert run_detection(DetectionSettings(**values, threshold=1.0)) == Summary(2, 1)
    assert [(row["harm_score"] is None, row["flagged"]) for row in read(tmp_path / "out.jsonl")] == [
        (True, True),
        (False, False),
    ]


def test_a_bad_row_is_named_before_anything_is_scored(values, tmp_path, source):
    with source.open("a") as stream:
        stream.write('{"reply": "x"}\n')
    with pytest.raises(InputError, match=r"in\.jsonl line 151 has no text in 'response'"):
        run_detection(DetectionSettings(**values))
    assert litter(tmp_path) == []
    assert not (tmp_path / "out.jsonl").exists()


def test_a_detector_that_is_none_is_named_before_the_rows_are_read(values, tmp_path):
    with pytest.raises(InputError, match="gone"):
        run_detection(DetectionSettings(**{**values, "detector": str(tmp_path / "gone"), "input": "/dev/null"}))
    assert litter(tmp_path) == []


def interrupt(values: dict, keep: int) -> Path:
    """Leave what a killed run leaves: the spool, and a shard whose last line is torn."""
    folder = DetectionSettings(**values).folder
    process = start(values)
    wait_until(lambda: count_lines(folder) > keep)
    process.kill()
    process.wait()
    (shard,) = (folder / "shards").iterdir()
    lines = shard.read_bytes().splitlines(keepends=True)
    shard.write_bytes(b"".join(lines[:keep]) + lines[keep][:-4])
    return shard


DRIVER = (
    "import json, sys\n"
    "from llava.eval.detection.runner import run_detection\n"
    "from llava.eval.detection.settings import DetectionSettings\n"
    "from llava.process import report_errors\n"
    "sys.exit(report_errors(lambda: run_detection(DetectionSettings(**json.loads(sys.argv[1])))))\n"
)


def start(values: dict, *launcher: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = launcher or (sys.executable, "-c", DRIVER)
    return subprocess.Popen([*command, json.dumps(values)], env=environment, stderr=subprocess.PIPE, text=True)


def finish(values: dict, *launcher: str) -> None:
    process = start(values, *launcher)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def wait_until(condition, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def count_lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("shards/*.jsonl"))


@pytest.fixture(scope="module")
def whole(tiny_detector, tmp_path_factory) -> Path:
    """A folder with rows that keep two processes busy for a while, and what an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("whole")
    rows = [{"id": i, "response": f"Step {i}. " + "Mix flour and water. " * (i % 9)} for i in range(COUNT)]
    write_jsonl(folder / "in.jsonl", rows)
    settings = {"input": folder / "in.jsonl", "output": folder / "out.jsonl", "detector": str(tiny_detector)}
    run_detection(DetectionSettings(**settings, dtype="float32", device="cpu"))
    assert [row["id"] for row in read(folder / "out.jsonl")] == list(range(COUNT))
    return folder


@pytest.fixture
def many(values, whole, tmp_path) -> dict:
    shutil.copy2(whole / "in.jsonl", tmp_path / "many.jsonl")
    return {**values, "input": str(tmp_path / "many.jsonl")}


@pytest.mark.slow
def test_a_killed_run_is_gone_on_with(many, whole, tmp_path):
    shard = interrupt(many, keep=3)
    assert not (tmp_path / "out.jsonl").exists()
    kept = shard.read_bytes()[:-200].splitlines()[0]
    # What is there is taken as it is: a score that was changed shows up in the output.
    line = json.loads(kept)
    line["scores"][0] = 0.123456
    shard.write_bytes(shard.read_bytes().replace(kept, json.dumps(line).encode()))
    run_detection(DetectionSettings(**many))
    rows = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == list(range(COUNT))
    changed = [
        i
        for i, (a, b) in enumerate(zip(rows, read(whole / "out.jsonl"), strict=True))
        if a["harm_score"] != b["harm_score"]
    ]
    assert changed == [line["chunk"] * len(line["scores"])]  # all chunks but the last have as many rows
    assert rows[changed[0]]["harm_score"] == 0.123456
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.slow
def test_a_run_with_other_rows_begins_anew(many, tmp_path, caplog):
    interrupt(many, keep=1)
    write_jsonl(tmp_path / "many.jsonl", [{"response": "Mix."}])
    assert run_detection(DetectionSettings(**many)).rows == 1
    assert "all rows are scored anew" in caplog.text


@pytest.mark.slow
def test_two_processes_write_what_one_writes(many, whole, tmp_path):
    finish({**many, "num_processes": 2, "threads": 1})
    assert (tmp_path / "out.jsonl").read_bytes() == (whole / "out.jsonl").read_bytes()


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_the_same_call_finishes_it(many, whole, tmp_path):
    values = {**many, "num_processes": 2, "threads": 1}
    process = start(values)
    folder = DetectionSettings(**values).folder
    wait_until(lambda: len(children_of(process.pid)) == 2)
    victim = children_of(process.pid)[-1]
    # Held up while it still loads libraries, it cannot score the chunk that is set aside for it.
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: count_lines(folder) == 62)
    os.kill(victim, signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    assert "was killed by SIGKILL" in errors.splitlines()[-1]
    assert "1968 of 2000 records are kept, run the same command again" in errors.splitlines()[-1]
    finish(values)
    assert (tmp_path / "out.jsonl").read_bytes() == (whole / "out.jsonl").read_bytes()


@pytest.mark.slow
def test_a_killed_launcher_takes_its_processes_along(many, whole, tmp_path):
    values = {**many, "num_processes": 2, "threads": 1}
    process = start(values)
    folder = DetectionSettings(**values).folder
    wait_until(lambda: count_lines(folder) >= 2)
    workers = children_of(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))
    finish(values)
    assert (tmp_path / "out.jsonl").read_bytes() == (whole / "out.jsonl").read_bytes()


@pytest.mark.slow
def test_torchrun_is_used_where_it_started_the_processes(values, expected, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    finish(values, sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script))
    assert [row["harm_score"] for row in read(tmp_path / "out.jsonl")] == pytest.approx(expected, abs=1e-5)
    assert litter(tmp_path) == []


def test_another_launch_on_the_same_output_is_refused(values, monkeypatch):
    from llava.eval.run import runner

    monkeypatch.setattr(runner, "LOCK_SECONDS", 0.1)
    settings = DetectionSettings(**values)
    with (
        runner.hold_lock(settings.folder),
        pytest.raises(InputError, match=r"another run is writing to --output .*out\.jsonl;"),
    ):
        run_detection(settings)


@pytest.mark.parametrize(
    ("name", "value"), [("output", " "), ("threshold", 0.0), ("batch_size", 0), ("num_processes", 0), ("dtype", "x")]
)
def test_settings_that_no_run_could_use(values, name, value):
    with pytest.raises(InputError, match=name.replace("_", "-")):
        DetectionSettings(**{**values, name: value})


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(values, tmp_path):
    script = tmp_path / "driver.py"
    ending = "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')), file=sys.stderr)\n"
    script.write_text(DRIVER.replace("sys.exit(", "code = (") + ending + "sys.exit(code)\n")
    peaks = {}
    for count in (2000, 20_000):
        rows = ({"id": i, "response": f"Mix {i % 97} spoons of flour."} for i in range(count))
        write_jsonl(tmp_path / "in.jsonl", rows)
        process = start({**values, "output": str(tmp_path / "out.parquet")}, sys.executable, str(script))
        _, errors = process.communicate(timeout=1200)
        assert process.returncode == 0, errors
        assert parquet.ParquetFile(tmp_path / "out.parquet").metadata.num_rows == count
        peaks[count] = int(errors.split("VmHWM:")[1].split()[0])
    assert peaks[20_000] <= 1.1 * peaks[2000], peaks


def test_a_full_disk_is_told_of_the_output(values, tmp_path):
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    script = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + DRIVER
    command = [sys.executable, "-c", script, json.dumps(values)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, preexec_fn=limit, timeout=600)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path / 'out.jsonl'} could not be written")
    assert litter(tmp_path) == []


def test_what_an_earlier_launch_left_without_scores_goes(values, tmp_path):
    folder = DetectionSettings(**values).folder
    (folder / "claims" / "old").mkdir(parents=True)
    (folder / "rows.jsonl").write_text("torn")
    run_detection(DetectionSettings(**values))
    assert len(read(tmp_path / "out.jsonl")) == len(ROWS)
    assert litter(tmp_path) == []
