"""The same records for any number of processes, any batch size and any interruption, with a tiny model."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from llava.eval.records import RECORDS_FILE, load_records, read_rows
from llava.eval.runner import run_generation
from llava.eval.settings import GenerationSettings
from tests.eval.test_runner import finish, start, wait_until, without_seconds

KILLS = 20


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
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_one_two_and_three_processes_write_the_same_records(values, tmp_path, temperature):
    values |= {"temperature": temperature, "seed": 7}
    runs = []
    for number in (1, 2, 3):
        code, errors = finish({**values, "output": str(tmp_path / str(number)), "num_processes": number})
        assert code == 0, errors
        runs.append(without_seconds(tmp_path / str(number)))
    assert len(runs[0]) == 52
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
    seed = int(os.environ.get("KILL_SEED") or time.time())
    print(f"KILL_SEED={seed}")
    moments = random.Random(seed)
    values |= {"limit": 208, "batch_size": 2, "max_new_tokens": 200, "num_processes": 2}
    folder = Path(values["output"])
    hits, progress = 0, [0]
    for number in range(KILLS):
        process = start(values)
        if number % 4 == 0:  # while libraries and models are loaded
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=moments.uniform(0.5, 6.0))
        else:  # while records are written
            known = len(read_rows(folder)) if folder.exists() else 0
            wait_until(
                lambda process=process, known=known: process.poll() is not None or len(read_rows(folder)) > known
            )
            time.sleep(moments.uniform(0.0, 0.5))
        if process.poll() is None:
            hits += 1
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        # Every line on disk is whole but the last of a shard; no key counts twice.
        progress.append(len(read_rows(folder)) if folder.exists() else 0)
    assert progress == sorted(progress)
    assert hits >= KILLS // 2
    code, errors = finish(values)
    assert code == 0, errors
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [RECORDS_FILE, "run.json"]
    assert len((folder / RECORDS_FILE).read_text().splitlines()) == 208
    code, errors = finish({**values, "output": str(tmp_path / "undisturbed"), "num_processes": 1})
    assert code == 0, errors
    assert without_seconds(folder) == without_seconds(tmp_path / "undisturbed")
    print(f"{hits} of {KILLS} kills hit a running launch; records after each: {progress}")
