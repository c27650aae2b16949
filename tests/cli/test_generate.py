"""Generate from the command line: with a base of one's own, several launches at once, and pictures that are damaged."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from llava.cli.app import main
from llava.data.images import check_image
from llava.eval.run.environment import ROUNDING, ROUNDING_VARIABLE
from llava.eval.run.records import load_records, read_rows
from llava.files import write_jsonl
from tests.model.chat_server import ChatServer, echo

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = (sys.executable, "-m", "llava.cli")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Round as a new process would, so that none need be started."""
    monkeypatch.setenv(ROUNDING_VARIABLE, ROUNDING)


@pytest.fixture
def questions(tmp_path) -> Path:
    rows = [{"prompt": f"How do I bake {'very ' * i}good bread?", "id": str(i)} for i in range(6)]
    write_jsonl(tmp_path / "mine.jsonl", rows)
    return tmp_path / "mine.jsonl"


def name_options(model: Path | ChatServer, questions: Path, output: Path, *more: object) -> list[str]:
    """Return the words of a command: the model is a folder, or a server that is asked one question at a time."""
    served = isinstance(model, ChatServer)
    asked = ["--model", "tiny", "--endpoint", model.url, "--concurrency", 1] if served else ["--model", model]
    fixed = ["--max-new-tokens", 8, "--device", "cpu", "--dtype", "float32", "--threads", 1, "--num-processes", 1]
    return [*map(str, ["generate", *asked, "--benchmark", questions, "--output", output, *fixed, *more])]


def generate(*words) -> int:
    return main(name_options(*words))


def start(*words) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [*MODULE, *name_options(*words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def read_errors(text: str) -> list[str]:
    assert "Traceback" not in text, text
    return [line for line in text.splitlines() if line.startswith("error: ")]


def list_answers(folder: Path) -> list[tuple[str, str]]:
    return [(record.question.id, record.response) for record in load_records(folder)]


def test_a_detector_whose_base_is_gone_takes_another_by_the_flag_that_the_message_names(
    tmp_path, capsys, questions, orphan, tiny_detector, tiny_lm
):
    detector, output = orphan("tiny_detector"), tmp_path / "run"
    with ChatServer(echo) as server:
        assert generate(server, questions, output, "--detector", detector) == 2
        (line,) = read_errors(capsys.readouterr().err)
        assert "gone does not exist; name the base by --detector-base" in line
        assert not output.exists()
        assert server.requests == []
        flags = ("--detector", detector, "--detector-base", tiny_lm)
        assert generate(server, questions, output, *flags) == 0, capsys.readouterr().err
        assert generate(server, questions, tmp_path / "whole", "--detector", tiny_detector) == 0
    found, expected = load_records(output), load_records(tmp_path / "whole")
    assert [record.guard for record in found] == [record.guard for record in expected]
    assert all(0 < record.guard.harm_score < 1 for record in found)


def test_a_second_launch_is_told_that_the_folder_is_in_use_and_the_first_loses_nothing(
    tmp_path, capsys, questions, monkeypatch
):
    monkeypatch.setattr("llava.eval.run.runner.LOCK_SECONDS", 0.1)
    begun, release = threading.Event(), threading.Event()

    def answer(request):
        begun.set()
        assert release.wait(300)
        return echo(request)

    output = tmp_path / "run"
    with ChatServer(answer) as server:
        first = start(server, questions, output)
        try:
            assert begun.wait(300)
            assert generate(server, questions, output) == 2
            (line,) = read_errors(capsys.readouterr().err)
            assert line == (f"error: another run is writing to --output {output}; wait for it or give another place")
        finally:
            release.set()
            _, errors = first.communicate(timeout=300)
        assert first.returncode == 0, errors
        assert generate(server, questions, output) == 0
        assert len(server.requests) == 6, "a question was asked twice"
    assert [place for place, _ in list_answers(output)] == [str(i) for i in range(6)]


@pytest.mark.slow
def test_two_launches_at_once_write_each_record_once(tmp_path, questions, tiny_llava):
    output = tmp_path / "run"
    both = [start(tiny_llava, questions, output) for _ in range(2)]
    ends = []
    for process in both:
        _, errors = process.communicate(timeout=600)
        ends.append((process.returncode, read_errors(errors)))
    assert (0, []) in ends
    for code, errors in ends:
        # Whoever came second found all done, or gave up waiting on a slow machine.
        assert (code, errors) == (0, []) or (code == 2 and "another run is writing to" in errors[0])
    assert generate(tiny_llava, questions, tmp_path / "alone") == 0
    assert list_answers(output) == list_answers(tmp_path / "alone")
    (launch,) = json.loads((output / "run.json").read_text())["launches"]
    assert launch["records_by_process"] == [6]


class Late(list):
    """A server's list of models that comes only when it may."""

    def __init__(self):
        super().__init__(["tiny"])
        self.asked, self.may_come = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[str]:
        self.asked.set()
        self.may_come.wait(300)
        return super().__iter__()


def test_a_launch_with_other_settings_that_looked_before_the_first_began_adds_nothing(tmp_path, capsys, questions):
    output = tmp_path / "run"
    write_jsonl(tmp_path / "few.jsonl", [{"prompt": "Why?", "id": "9"}])
    with ChatServer(echo) as server, ChatServer(echo) as late, ThreadPoolExecutor(1) as pool:
        late.models = models = Late()
        try:
            second = pool.submit(generate, late, questions, output, "--max-new-tokens", 9)
            assert models.asked.wait(300)
            assert generate(server, tmp_path / "few.jsonl", output) == 0
        finally:
            models.may_come.set()
        assert second.result(300) == 2
        assert late.requests == []
    (line,) = read_errors(capsys.readouterr().err)
    assert "holds a run with other settings" in line
    assert "max_new_tokens 8 → 9" in line
    assert [place for place, _ in list_answers(output)] == ["9"]


def save_damaged(path: Path) -> Path:
    """Save a JPEG whose header and end are whole; in the middle of its pixels stands a second beginning."""
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(stream, "JPEG")
    whole = stream.getvalue()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + b"\xff\xd8" + whole[middle + 2 :])
    return path


@pytest.mark.parametrize("served", [False, True])
def test_a_picture_that_turns_out_damaged_ends_the_run_and_its_replacement_lets_it_finish(
    tmp_path, capsys, tiny_llava, served
):
    damaged = save_damaged(tmp_path / "b.jpg")
    check_image(damaged)  # thousands of pictures are not decoded before a run, so it begins
    for name in ("a.jpg", "c.jpg"):
        Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / name)
    rows = [
        {"prompt": f"{'Well, ' * (3 - i)}what is it?", "id": name, "image": f"{name}.jpg"}
        for i, name in enumerate("abc")
    ]
    write_jsonl(tmp_path / "mine.jsonl", [*rows, {"prompt": "Why?", "id": "d"}])
    output = tmp_path / "run"
    with ChatServer(echo) as server:
        command = (server if served else tiny_llava, tmp_path / "mine.jsonl", output, "--batch-size", 1)
        for _ in range(2):
            assert generate(*command) == 2
            (line,) = read_errors(capsys.readouterr().err)
            assert line.startswith(f"error: image {damaged} is damaged or truncated (")
            assert line.endswith("; replace the file")
            kept = {key.id: row["response"] for key, row in read_rows(output).items()}
            assert "a" in kept
            assert "b" not in kept
        asked = len(server.requests)
        Image.new("RGB", (64, 64), "red").save(damaged)
        assert generate(*command) == 0, capsys.readouterr().err
        assert not served or len(server.requests) - asked == 4 - len(kept), "a kept record was asked again"
    answers = list_answers(output)
    assert [place for place, _ in answers] == ["a", "b", "c", "d"]
    assert kept.items() <= dict(answers).items()
