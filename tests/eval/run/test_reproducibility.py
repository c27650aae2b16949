"""The same records for any number of processes, any batch size and any interruption, with a tiny model."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from llava.eval.run.layout import RECORDS_FILE
from llava.eval.run.records import load_records, read_rows
from llava.eval.run.runner import run_generation
from llava.eval.run.settings import GenerationSettings
from tests.eval.run.test_runner import children_of, finish, is_running, start, wait_until, without_seconds
from tests.rounds import ROUNDS

KILLS = 8 * ROUNDS
MOST_ATTEMPTS = 3 * KILLS
"""A moment may come after the command has ended; such a kill hits nothing and is tried again."""


@pytest.fixture
def values(tiny_llava, tmp_path) -> dict:
    """One question for each of the shipped sample's 52 texts, a quarter of them without a picture."""
    return {
        "model": str(tiny_llava),
        "output": str(tmp_path / "run"),
        "benchmark": "sample",
        "limit": 52,
        "batch_size": 4,
        "max_new_tokens": 16,
        "device": "cpu",
        "dtype": "float32",
    }


@pytest.mark.slow
def test_one_two_and_three_processes_write_the_same_records(values, tmp_path, tiny_classifier, tiny_lm):
    """Drawn answers, which depend on more than greedy ones (`test_two_processes_write_the_records_of_one`)."""
    values |= {"temperature": 0.8, "seed": 7}
    values |= {"detector": str(tiny_classifier), "detoxifier": str(tiny_lm), "threshold": 0.4}
    runs = []
    for number in (1, 2, 3):
        code, errors = finish({**values, "output": str(tmp_path / str(number)), "num_processes": number})
        assert code == 0, errors
        runs.append(without_seconds(tmp_path / str(number)))
    assert len(runs[0]) == 52
    assert any(row["guard"]["flagged"] for row in runs[0])
    assert runs[0] == runs[1] == runs[2]


def test_sampling_follows_the_seed_alone(values, tmp_path):
    values |= {"temperature": 1.0, "limit": 12}
    texts = {}
    for name, changes in {"a": {}, "b": {}, "other": {"seed": 1}, "batch": {"batch_size": 1}}.items():
        run_generation(GenerationSettings(**{**values, **changes, "output": str(tmp_path / name)}))
        texts[name] = [record.response for record in load_records(tmp_path / name)]
    assert texts["a"] == texts["b"]
    assert sum(a != b for a, b in zip(texts["a"], texts["other"], strict=True)) >= 10
    # Another batch size only moves last bits, which decide a draw now and then.
    assert sum(a != b for a, b in zip(texts["a"], texts["batch"], strict=True)) <= 1


def test_greedy_answers_hardly_depend_on_the_batch_size(values, tmp_path):
    texts = {}
    for size in (1, 4, 16):
        run_generation(GenerationSettings(**{**values, "batch_size": size, "output": str(tmp_path / str(size))}))
        texts[size] = [record.response for record in load_records(tmp_path / str(size))]
    assert len(set(texts[1])) > 20  # different questions, different answers
    for size in (4, 16):
        same = sum(a == b for a, b in zip(texts[1], texts[size], strict=True))
        assert same / len(texts[1]) >= 0.98


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_9_at_random_moments_in_a_row_loses_and_doubles_nothing(values, tmp_path):
    """Kills that hit: of the command itself or, as chance will have it, of one of its processes."""
    seed = int(os.environ.get("KILL_SEED") or time.time())
    print(f"KILL_SEED={seed}")
    moments = random.Random(seed)
    values |= {"limit": 156, "batch_size": 1, "max_new_tokens": 100, "num_processes": 2}
    folder = Path(values["output"])
    process, attempts = None, 0
    hits, progress = [], [0]
    while len(hits) < KILLS:
        attempts += 1
        assert attempts <= MOST_ATTEMPTS, f"{len(hits)} kills hit in {MOST_ATTEMPTS} attempts"
        if process is None or process.poll() is not None:
            process = start(values)
        wait_for_a_moment(process, folder, moments)
        workers = [pid for pid in children_of(process.pid) if is_running(pid)]
        victim = moments.choice([process.pid, *workers])
        if process.poll() is None and is_running(victim):
            os.kill(victim, signal.SIGKILL)
            hits.append("launcher" if victim == process.pid else "worker")
        if victim == process.pid:
            process.wait()
        if process.poll() is not None:
            process.stderr.close()
        # Every line on disk is whole but the last of a shard; no key counts twice.
        progress.append(count_records(folder))
    process.kill()
    process.wait()
    assert progress == sorted(progress)
    assert {"launcher", "worker"} == set(hits)
    code, errors = finish(values)
    assert code == 0, errors
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [RECORDS_FILE, "run.json"]
    assert len((folder / RECORDS_FILE).read_text().splitlines()) == 156
    code, errors = finish({**values, "output": str(tmp_path / "undisturbed"), "num_processes": 1})
    assert code == 0, errors
    assert without_seconds(folder) == without_seconds(tmp_path / "undisturbed")
    print(f"kills {Counter(hits)} in {attempts} attempts; records after each: {progress}")


def wait_for_a_moment(process, folder: Path, moments: random.Random) -> None:
    """Wait while libraries and models are loaded, or, three times in four, until records are being written."""
    known = count_records(folder)
    deadline = time.monotonic() + (moments.uniform(0.5, 6.0) if moments.random() < 0.25 else 120.0)
    wait_until(
        lambda: process.poll() is not None or count_records(folder) > known or time.monotonic() > deadline, 150.0
    )
    if count_records(folder) > known:
        time.sleep(moments.uniform(0.0, 0.25))


def count_records(folder: Path) -> int:
    return len(read_rows(folder)) if folder.exists() else 0
