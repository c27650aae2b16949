"""Whole runs: the same records for any number of processes, after any interruption."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from llava.errors import InputError
from llava.eval.run.layout import RECORDS_FILE
from llava.eval.run.records import load_records
from llava.eval.run.runner import RunError, run_generation
from llava.eval.run.settings import GenerationSettings
from tests.model.chat_server import ChatServer

REPOSITORY = Path(__file__).resolve().parents[3]
DRIVER = (
    "import json, sys\n"
    "from llava.errors import InputError\n"
    "from llava.eval.run.runner import GenerationSettings, RunError, run_generation\n"
    "try:\n"
    "    run_generation(GenerationSettings(**json.loads(sys.argv[1])))\n"
    "except (InputError, RunError) as error:\n"
    "    print(f'error: {error}', file=sys.stderr)\n"
    "    sys.exit(2 if isinstance(error, InputError) else 1)\n"
)


@pytest.fixture(scope="module")
def question_file(tmp_path_factory) -> Path:
    """Ten questions in two scenarios, three of them with an image."""
    folder = tmp_path_factory.mktemp("questions")
    Image.new("RGB", (40, 30), "red").save(folder / "red.png")
    rows = []
    for number in range(10):
        row = {
            "id": str(number),
            "scenario": "AB"[number % 2],
            "prompt": f"How do I bake {'very ' * number}good bread?",
        }
        rows.append({**row, "image": "red.png"} if number % 4 == 0 else row)
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def values(question_file, tiny_llava, tmp_path) -> dict:
    return {
        "model": str(tiny_llava),
        "output": str(tmp_path / "run"),
        "benchmark": str(question_file),
        "batch_size": 2,
        "max_new_tokens": 8,
        "device": "cpu",
    }


def start(values: dict, *launcher: str, stderr: int = subprocess.PIPE) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = launcher or (sys.executable, "-c", DRIVER)
    return subprocess.Popen(
        [*command, json.dumps(values)], env=environment, stderr=stderr, stdout=subprocess.DEVNULL, text=True
    )


def finish(values: dict) -> tuple[int, str]:
    process = start(values)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def without_seconds(folder) -> list[dict]:
    return [{**record.to_dict(), "seconds": None} for record in load_records(folder)]


def read_launches(folder) -> list[dict]:
    return json.loads((Path(folder) / "run.json").read_text())["launches"]


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_running(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def count_lines(folder) -> int:
    return sum(path.read_bytes().count(b"\n") for path in Path(folder).glob("shards/*.jsonl"))


@pytest.mark.slow
def test_two_processes_write_the_records_of_one(values, tiny_classifier, tiny_lm, tmp_path):
    guarded = {**values, "detector": str(tiny_classifier), "detoxifier": str(tiny_lm), "threshold": 0.4}
    path = run_generation(GenerationSettings(**guarded))
    assert path == tmp_path / "run" / RECORDS_FILE
    code, errors = finish({**guarded, "output": str(tmp_path / "two"), "num_processes": 2})
    assert code == 0, errors
    assert without_seconds(tmp_path / "two") == without_seconds(tmp_path / "run")
    launch = read_launches(tmp_path / "two")[0]
    assert launch["num_processes"] == 2
    assert sum(launch["records_by_process"]) == 10
    # A batch is set aside for each, the smallest holds one question; how the rest is shared is up to the machine.
    assert min(launch["records_by_process"]) >= 1
    assert sorted(p.name for p in (tmp_path / "two").iterdir() if p.name != ".lock") == [RECORDS_FILE, "run.json"]


def test_a_library_user_of_torch_gets_the_same_records(values, tmp_path, monkeypatch):
    run_generation(GenerationSettings(**values))
    monkeypatch.delenv("MKL_CBWR", raising=False)
    run_generation(GenerationSettings(**{**values, "output": str(tmp_path / "late")}))
    assert without_seconds(tmp_path / "late") == without_seconds(tmp_path / "run")


@pytest.mark.slow
def test_more_processes_than_batches_is_fine(values, tmp_path):
    values |= {"batch_size": 8}
    run_generation(GenerationSettings(**values))
    code, errors = finish({**values, "output": str(tmp_path / "three"), "num_processes": 4})
    assert code == 0, errors
    assert without_seconds(tmp_path / "three") == without_seconds(tmp_path / "run")
    assert read_launches(tmp_path / "three")[0]["records_by_process"].count(0) >= 1


@pytest.mark.slow
def test_torchrun_is_used_where_it_started_the_processes(values, tmp_path):
    run_generation(GenerationSettings(**values))
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script))
    process = start({**values, "output": str(tmp_path / "torchrun")}, *torchrun)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert without_seconds(tmp_path / "torchrun") == without_seconds(tmp_path / "run")
    assert len(read_launches(tmp_path / "torchrun")[0]["records_by_process"]) == 2


@pytest.mark.slow
def test_one_bar_follows_all_processes_of_torchrun(values, tmp_path):
    """Standard error is a terminal here; the first process shows the bar, of its own records and the other's."""
    import fcntl
    import pty
    import struct
    import termios

    values |= {"batch_size": 1, "max_new_tokens": 300, "output": str(tmp_path / "torchrun")}
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))  # a new one has no width at all
    process = start(values, *torchrun, stderr=theirs)
    os.close(theirs)
    shown = "".join(iter(lambda: read_terminal(ours), ""))
    os.close(ours)
    assert process.wait(timeout=300) == 0, shown
    bars = [line for line in shown.splitlines() if "generate:" in line]
    assert len([line for line in shown.split("\n") if "generate:" in line]) == 1  # a bar ends with a line feed
    counts = [int(count) for count in re.findall(r"(\d+)/10 \[", "".join(bars))]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == 10
    assert len(set(counts)) > 2, counts  # it moved while records were written
    assert min(read_launches(tmp_path / "torchrun")[0]["records_by_process"]) >= 1


def read_terminal(descriptor: int) -> str:
    try:
        return os.read(descriptor, 65536).decode(errors="replace")
    except OSError:  # the last process that held the other end is gone
        return ""


def test_a_finished_run_is_left_as_it_is(values, tmp_path):
    path = run_generation(GenerationSettings(**values))
    before = path.read_bytes(), path.stat().st_mtime_ns, (tmp_path / "run" / "run.json").read_bytes()
    assert run_generation(GenerationSettings(**values, num_processes=3)) == path
    assert (path.read_bytes(), path.stat().st_mtime_ns, (tmp_path / "run" / "run.json").read_bytes()) == before


def test_an_interrupted_run_answers_only_what_is_open(values, tmp_path):
    path = run_generation(GenerationSettings(**values))
    expected = without_seconds(tmp_path / "run")
    lines = path.read_bytes().splitlines(keepends=True)
    path.unlink()
    (tmp_path / "run" / "shards").mkdir()
    (tmp_path / "run" / "shards" / "20200101T000000-abc-0000.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:40])
    run_generation(GenerationSettings(**values))
    assert without_seconds(tmp_path / "run") == expected
    assert path.read_bytes().splitlines(keepends=True)[:7] == lines[:7]
    written = sum(read_launches(tmp_path / "run")[-1]["records_by_process"])
    assert 3 <= written < 10


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_a_line_and_the_same_call_finishes_it(values, tmp_path):
    run_generation(GenerationSettings(**{**values, "max_new_tokens": 300, "batch_size": 1}))
    values |= {"output": str(tmp_path / "killed"), "num_processes": 2, "max_new_tokens": 300, "batch_size": 1}
    process = start(values)
    wait_until(lambda: len(children_of(process.pid)) == 2)
    victim = children_of(process.pid)[-1]
    # Held up while it still loads libraries, it cannot answer the batch that is set aside for it: when it is killed, it
    # surely has something left to do.
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: count_lines(values["output"]) == 9)
    os.kill(victim, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "was killed by SIGKILL" in errors.splitlines()[-1]
    assert "9 of 10 records are kept, run the same command again for the rest" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    code, errors = finish(values)
    assert code == 0, errors
    assert without_seconds(tmp_path / "killed") == without_seconds(tmp_path / "run")


@pytest.mark.slow
def test_a_killed_launcher_takes_its_processes_along_and_the_same_call_finishes_the_run(values, tmp_path):
    run_generation(GenerationSettings(**{**values, "max_new_tokens": 300, "batch_size": 1}))
    values |= {"output": str(tmp_path / "killed"), "num_processes": 2, "max_new_tokens": 300, "batch_size": 1}
    process = start(values)
    wait_until(lambda: count_lines(values["output"]) >= 1)
    workers = children_of(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_running, workers)), 20)
    assert not (tmp_path / "killed" / RECORDS_FILE).exists()
    code, errors = finish(values)
    assert code == 0, errors
    assert without_seconds(tmp_path / "killed") == without_seconds(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "/there/is/none"}, "/there/is/none does not exist"),
        ({"detector": "/there/is/none"}, "/there/is/none does not exist"),
        ({"benchmark": "nope"}, "unknown benchmark 'nope'"),
        ({"scenarios": ["C"]}, "has no scenario 'C'"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
    ],
)
def test_nothing_is_written_when_something_is_wrong(values, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run_generation(GenerationSettings(**{**values, **changes}))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_config_is_named_by_its_flag(values, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"--model \S+/empty holds no config\.json"):
        run_generation(GenerationSettings(**{**values, "model": str(tmp_path / "empty")}))
    assert not (tmp_path / "run").exists()


def test_an_unreadable_image_stops_the_run_before_it_starts(values, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "mine.jsonl").write_text(json.dumps({"prompt": "What is it?", "image": "broken.png"}) + "\n")
    with pytest.raises(InputError, match=r"broken\.png"):
        run_generation(GenerationSettings(**{**values, "benchmark": str(tmp_path / "mine.jsonl")}))
    assert not (tmp_path / "run").exists()


def test_a_changed_setting_is_refused_and_the_records_stay(values, tmp_path):
    path = run_generation(GenerationSettings(**values))
    before = path.read_bytes()
    with pytest.raises(InputError, match="max_new_tokens 8 → 9"):
        run_generation(GenerationSettings(**{**values, "max_new_tokens": 9}))
    assert path.read_bytes() == before


def test_a_run_that_answered_nothing_does_not_bind_the_next_one(values, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(InputError):
        run_generation(GenerationSettings(**{**values, "model": str(tmp_path / "model")}))
    assert not (tmp_path / "run" / "run.json").exists()
    run_generation(GenerationSettings(**values))
    assert len(load_records(tmp_path / "run")) == 10


@pytest.mark.slow
def test_an_input_error_in_a_started_process_stays_one_line(values, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    code, errors = finish({**values, "model": str(tmp_path / "model"), "num_processes": 2})
    assert code == 2
    assert len(errors.strip().splitlines()) == 1
    assert errors.startswith("error: ")


def test_a_second_launch_on_the_same_output_is_refused(values, tmp_path, monkeypatch):
    monkeypatch.setattr("llava.eval.run.runner.LOCK_SECONDS", 0.1)
    (tmp_path / "run").mkdir()
    hold = (
        "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    lock = str(tmp_path / "run" / ".lock")
    # In a process of its own, as a launch is: lmms-eval lets one process take a lock twice.
    with subprocess.Popen(
        [sys.executable, "-c", hold, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another run is writing to --output"):
            run_generation(GenerationSettings(**values))


def test_a_served_model_is_asked_and_a_dead_server_ends_the_run(values, tmp_path, monkeypatch):
    served = {**values, "model": "tiny", "output": str(tmp_path / "served")}
    asked = []

    def answer(request: dict) -> str:
        asked.append(request)
        return f"answer to {len(str(request['messages']))} characters"

    monkeypatch.setattr("llava.model.answering.client.MAX_TRIES", 2)
    monkeypatch.setattr("llava.model.answering.client.FIRST_WAIT", 0.01)
    with ChatServer(answer, failures=[(500, {})] * 40) as server:
        with pytest.raises(RunError, match=r"gave no answer in 2 tries .*; 0 of 10 records are kept"):
            run_generation(GenerationSettings(**served, endpoint=server.url))
        assert not (tmp_path / "served" / "run.json").exists()
        server.failures.clear()
        run_generation(GenerationSettings(**served, endpoint=server.url))
    records = load_records(tmp_path / "served")
    assert len(records) == len(asked) == 10
    assert sum(isinstance(request["messages"][0]["content"], list) for request in asked) == 3
    run = json.loads((tmp_path / "served" / "run.json").read_text())
    assert run["fingerprint"]["backend"] == "endpoint"
    assert "answers came from http://127.0.0.1" in run["model_notes"][0]
    with pytest.raises(InputError, match="cannot be reached"):
        run_generation(GenerationSettings(**{**served, "output": str(tmp_path / "new")}, endpoint=server.url))
