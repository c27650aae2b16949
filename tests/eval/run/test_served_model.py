"""A run against a real server: `transformers serve` with the tiny LLaVA. Its death half-way loses nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from llava.eval.run.layout import RECORDS_FILE
from llava.eval.run.records import list_shards, load_records
from llava.eval.run.runner import run_generation
from llava.eval.run.settings import GenerationSettings
from tests.eval.run.test_runner import count_lines, wait_until

TRANSFORMERS = shutil.which("transformers", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def serving_is_installed():
    pytest.importorskip("fastapi", reason="transformers serve needs pip install 'transformers[serving]'")
    pytest.importorskip("openai", reason="transformers serve needs pip install 'transformers[serving]'")
    assert TRANSFORMERS is not None


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serve(model: Path, port: int, log: Path) -> Iterator[subprocess.Popen]:
    """Serve `model` until the block ends; the server is ready when the block begins."""
    command = [TRANSFORMERS, "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
    with log.open("ab") as stream:
        server = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True)
    try:
        wait_until(lambda: server.poll() is not None or is_healthy(port), 180)
        assert server.poll() is None, log.read_text()[-2000:]
        yield server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def is_healthy(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        return answer.status == 200
    return False


def generate(model: Path, port: int, output: Path, *options: str) -> tuple[int, str]:
    """Run the command to its end and return its exit code and what it said on stderr."""
    process = start_generate(model, port, output, *options)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def start_generate(model: Path, port: int, output: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "llava.cli", "generate", "--model", str(model), "--output", str(output)]
    command += ["--endpoint", f"http://127.0.0.1:{port}/v1", "--benchmark", "sample", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_a_served_model_answers_as_it_does_in_this_process(tiny_llava, tmp_path, port):
    options = ("--limit", "16", "--max-new-tokens", "12")
    with serve(tiny_llava, port, tmp_path / "server.log"):
        code, errors = generate(tiny_llava, port, tmp_path / "served", *options)
    assert code == 0, errors
    served = load_records(tmp_path / "served")
    assert {record.question.image is None for record in served} == {True, False}
    local = GenerationSettings(
        model=str(tiny_llava), output=tmp_path / "local", benchmark="sample", limit=16, max_new_tokens=12, batch_size=1
    )
    run_generation(local)
    assert [record.response for record in served] == [record.response for record in load_records(tmp_path / "local")]
    run = json.loads((tmp_path / "served" / "run.json").read_text())
    assert run["fingerprint"]["backend"] == "endpoint"


def test_a_killed_server_ends_the_run_with_a_line_and_the_same_command_finishes_it(tiny_llava, tmp_path, port):
    output = tmp_path / "run"
    options = ("--limit", "40", "--max-new-tokens", "100", "--batch-size", "4", "--concurrency", "1")
    with serve(tiny_llava, port, tmp_path / "server.log") as server:
        process = start_generate(tiny_llava, port, output, *options)
        wait_until(lambda: count_lines(output) >= 8 or process.poll() is not None)
        assert process.poll() is None, process.stderr.read()
        os.killpg(server.pid, signal.SIGKILL)
        killed = time.monotonic()
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert time.monotonic() - killed < 120
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in errors
    assert f"endpoint http://127.0.0.1:{port}/v1 gave no answer in 6 tries" in lines[0]
    kept = [line for shard in list_shards(output) for line in shard.read_text().splitlines()]
    assert 8 <= len(kept) < 40
    assert f"{len(kept)} of 40 records are kept, run the same command again for the rest" in lines[0]
    code, errors = generate(tiny_llava, port, output, *options)  # nobody serves
    assert code == 2
    assert "cannot be reached" in errors
    with serve(tiny_llava, port, tmp_path / "server.log"):
        code, errors = generate(tiny_llava, port, output, *options)
    assert code == 0, errors
    whole = (output / RECORDS_FILE).read_text().splitlines()
    assert len(whole) == 40
    assert set(kept) <= set(whole)
