"""A disk that fills up ends a command in one line; what was written is kept, and a resume gives the same records.

The limit on the size of a file (`RLIMIT_FSIZE`) makes the operating system refuse a write half-way, as a full disk
does. Where the tests may mount one, a tiny file system in memory is filled for real.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llava.eval.run.layout import RECORDS_FILE, RUN_FILE
from llava.eval.run.records import load_records
from llava.eval.run.runner import run_generation
from llava.eval.run.settings import GenerationSettings
from tests.eval.build import build_record, build_run

REPOSITORY = Path(__file__).resolve().parents[3]
QUESTIONS = 40


@pytest.fixture(scope="module")
def values(tmp_path_factory, tiny_llava) -> dict:
    """A run of 40 questions, whose records have about 1,000 bytes each."""
    path = tmp_path_factory.mktemp("questions") / "mine.jsonl"
    rows = [{"id": str(number), "prompt": f"{number} How do I bake bread? " * 30} for number in range(QUESTIONS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"model": str(tiny_llava), "benchmark": str(path), "batch-size": 4, "max-new-tokens": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def expected(values, tmp_path_factory) -> list[dict]:
    """The records of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    finish(values, folder)
    return without_seconds(folder)


def finish(values: dict, output: Path) -> None:
    """Run without a limit, in this process."""
    run_generation(
        GenerationSettings(output=output, **{name.replace("-", "_"): value for name, value in values.items()})
    )


def run_command(*words: object, limit: int | None = None) -> tuple[int, list[str]]:
    """Run the command line in a process of its own, where no file may be larger than `limit` bytes."""

    def set_limit() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-m", "llava.cli", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        preexec_fn=set_limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def generate(values: dict, output: Path, *more: object, limit: int | None = None) -> tuple[int, list[str]]:
    flags = [word for name, value in values.items() for word in (f"--{name}", value)]
    return run_command("generate", "--output", output, *flags, *more, limit=limit)


def without_seconds(folder: Path) -> list[dict]:
    return [{**record.to_dict(), "seconds": None} for record in load_records(folder)]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_keeps_what_fits_and_goes_on_later(values, expected, tmp_path, processes):
    run = tmp_path / "run"
    code, errors = generate(values, run, "--num-processes", processes, limit=8_000)
    assert code == 1
    (line,) = errors
    assert "could not be written (File too large); free space on that disk" in line
    kept = re.search(r"(\d+) of 40 records are kept, run the same command again for the rest", line)
    assert kept is not None
    assert 4 <= int(kept[1]) < QUESTIONS
    assert not (run / RECORDS_FILE).exists()
    assert any(not path.read_bytes().endswith(b"\n") for path in run.glob("shards/*")), "no line is torn"
    finish(values, run)
    assert without_seconds(run) == expected
    assert {path.name for path in run.iterdir()} - {".lock"} == {RECORDS_FILE, RUN_FILE}


@pytest.mark.slow
def test_a_run_that_cannot_be_merged_keeps_all_and_asks_nothing_again(values, expected, tmp_path):
    run = tmp_path / "run"
    assert generate(values, run, limit=45_000)[0] == 1
    # What is left fits into a second shard, but not all of it into one file.
    code, errors = generate(values, run, limit=45_000)
    assert code == 1
    assert "all 40 records are kept, run the same command again to finish" in errors[0]
    shards = sorted(run.glob("shards/*"))
    assert len(shards) == 2
    finish(values, run)
    assert without_seconds(run) == expected


@pytest.mark.slow
def test_a_run_that_cannot_even_begin_says_so(values, tmp_path):
    code, errors = generate(values, tmp_path / "run", limit=100)
    assert code == 1
    assert "run.json could not be written (File too large); free space on that disk" in errors[0]


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """A file system of 128 KiB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode != 0:
        pytest.skip("only an administrator may mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_is_really_full(values, expected, tiny_disk, processes):
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(b"x" * 64_000)
    code, errors = generate(values, tiny_disk / "run", "--num-processes", processes)
    assert code == 1
    (line,) = errors
    assert "free space on" in line
    assert re.search(r"\d+ of 40 records are kept|all 40 records are kept", line)
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=1m", str(tiny_disk)], check=True)
    finish(values, tiny_disk / "run")
    assert without_seconds(tiny_disk / "run") == expected


def test_score_and_report_end_in_one_line(tmp_path):
    run = build_run(tmp_path / "run", [build_record(number, f"text {number}") for number in range(100)])
    code, errors = run_command("score", run, limit=8_000)
    assert code == 1
    assert "could not be written (File too large); free space on that disk" in errors[0]
    assert not (run / "summary.json").exists()
    torn = next((run / "verdicts").iterdir())
    assert not torn.read_bytes().endswith(b"\n")
    assert run_command("score", run) == (0, [])
    keys = [json.loads(line)["id"] for line in torn.read_text().splitlines()]
    assert sorted(keys, key=int) == [str(number) for number in range(100)], "a text was judged twice, or not at all"
    code, errors = run_command("report", run, limit=8_000)
    assert code == 1
    assert "report.html could not be written (File too large)" in errors[0]
    assert not (run / "report.html").exists()
    assert run_command("report", run) == (0, [])


@pytest.mark.slow
def test_detect_ends_in_one_line(tmp_path, tiny_detector):
    rows = [{"response": f"{number} Mix flour and water. " * 20} for number in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "detect",
        "--detector",
        tiny_detector,
        "--input",
        tmp_path / "in.jsonl",
        "--output",
        tmp_path / "out.jsonl",
    ]
    code, errors = run_command(*words, limit=8_000)
    assert code == 1
    assert errors == [f"error: {tmp_path / 'out.jsonl'} could not be written (File too large); free space on that disk"]
    assert not (tmp_path / "out.jsonl").exists()
    assert not list(tmp_path.glob(".*")), "a half-written file is left"
