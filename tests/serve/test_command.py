"""The command in a process of its own, with tiny real models."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from llava import Protector, build_guard
from llava.cli.app import main
from llava.data.schema import Action
from tests.serve.conftest import ServerProcess

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
CURLS = re.findall(r"```bash\n(curl .*)\n```", PAGE)


@pytest.mark.parametrize("line", CURLS, ids=lambda line: shlex.split(line)[2].partition("8000")[2])
def test_the_lines_of_the_page_work(served, line):
    words = shlex.split(line.replace("http://127.0.0.1:8000", served.url))
    done = subprocess.run([*words, "-w", "\n%{http_code}"], capture_output=True, text=True, check=True)
    body, _, status = done.stdout.rpartition("\n")
    assert status == "200"
    assert "/metrics" in line or isinstance(json.loads(body), dict)


def test_the_page_asks_every_route_of_the_guard():
    asked = {shlex.split(line)[2].partition("8000")[2] for line in CURLS}
    assert asked >= {"/v1/moderations", "/classify", "/v1/guardrail/checks", "/beta/litellm_basic_guardrail_api"}


def test_a_second_machine_scores_as_the_detector_does_here(served, tiny_detector):
    responses, prompts = ["Boil the water.", "No.", "word " * 200], ["How?", "", "Why?"]
    here, there = build_guard(tiny_detector, dtype="float32"), build_guard(served.url)
    assert there.score(responses, prompts) == pytest.approx(here.score(responses, prompts), abs=1e-5)
    assert there.threshold == here.threshold
    assert there.identity.partition("@")[0] == here.identity.partition("@")[0]


def test_a_model_in_the_process_and_its_guard_are_one_language_model(tiny_whole, tiny_detector, tiny_detoxifier):
    options = ("--model", tiny_whole, "--detector", tiny_detector, "--detoxifier", tiny_detoxifier)
    process = ServerProcess(
        *options, "--share-backbone", "--dtype", "float32", "--device", "cpu", "--max-new-tokens", 8
    )
    responses, prompts = ["Boil the water.", "No."], ["How?", ""]
    expected = build_guard(tiny_detector, dtype="float32", device="cpu").score(responses, prompts)
    assert build_guard(process.url).score(responses, prompts) == pytest.approx(expected, abs=1e-5)
    body = {"messages": [{"role": "user", "content": "How do I bake bread?"}], "model": tiny_whole.name}
    said = httpx.post(f"{process.url}/v1/chat/completions", json=body, timeout=120).json()
    assert said["choices"][0]["finish_reason"] in ("stop", "length", "content_filter")
    assert process.end() == 0, "".join(process.log)


def test_a_flagged_answer_is_rewritten_or_refused(served):
    body = {"input_type": "response", "texts": ["Boil the water."]}
    headers = {"X-Guard-Threshold": "0.0001"}
    assert served.http.post("/beta/litellm_basic_guardrail_api", json=body, headers=headers).status_code == 403
    score = served.http.post("/classify", json={"input": "Boil the water."}).json()["data"][0]["probs"][1]
    assert 0 < score < 1


def test_it_ends_in_peace_and_lets_requests_end(tiny_detector):
    process = ServerProcess("--detector", tiny_detector, "--dtype", "float32", "--shutdown-timeout", "5")
    found: list[int] = []

    def ask() -> None:
        for _ in range(200):
            try:
                found.append(httpx.post(f"{process.url}/classify", json={"input": ["word " * 300] * 4}).status_code)
            except httpx.HTTPError:
                break

    thread = threading.Thread(target=ask)
    thread.start()
    while not found:
        time.sleep(0.02)
    guard = build_guard(process.url)
    assert process.end(signal.SIGTERM) == 0
    thread.join(30)
    assert set(found) == {200}
    log = "".join(process.log)
    assert "Traceback" not in log
    assert all(isinstance(json.loads(line), dict) for line in process.log)
    assert "word" not in log
    # Whoever asked it must not let anything through now.
    (result,) = Protector(guard).guard([""], ["Boil the water."])
    assert (result.action, result.failure.error) == (Action.WITHHELD, "RemoteGuardError")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "a", "--upstream", "http://127.0.0.1:1"], "--model and --upstream exclude each other"),
        (["--detector", "none"], "serve needs a guard"),
        (["--host", "0.0.0.0"], "lets other machines in"),
        (["--host", "host.invalid", "--allow-anonymous"], "cannot listen on --host host.invalid"),
        (["--share-backbone", "--upstream", "http://127.0.0.1:1"], "--share-backbone needs the model in this process"),
        (["--port", "70000"], "--port 70000 must be"),
        (["--action", "pass"], "--action is 'pass'"),
        (["--threshold-for", "/classify"], "is no ROUTE=VALUE"),
        (["--detoxifier-base", "x"], "--detoxifier-base does nothing"),
        (["--queue-limit", "0"], "--queue-limit 0 must be"),
        (["--api-key-file", "/nowhere/keys"], "--api-key-file /nowhere/keys"),
        (["--detector", "/nowhere", "--port", "0"], "/nowhere"),
    ],
)
def test_what_cannot_be_is_one_line(capsys, options, told):
    assert main(["serve", *options]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert told in error


def test_a_port_in_use_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "another program listens there" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_a_missing_extra_is_one_line(package):
    script = (
        f"import sys; sys.modules['{package}'] = None; from importlib import util; find = util.find_spec\n"
        f"util.find_spec = lambda name: None if name == '{package}' else find(name)\n"
        "from llava.cli.app import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"serve needs {package}" in done.stderr
    assert "pip install 'mllm-protector[serve]'" in done.stderr
