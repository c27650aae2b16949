"""The promptfoo provider: by itself before a real server, and in the real promptfoo where it is installed."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llava import Protector
from tests.examples.plugs.support import HARMLESS, build_environment
from tests.serve.chat.live import WordGuard, before_upstream, serve_chat

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "plugs"
call_api = importlib.import_module("examples.plugs.promptfoo_provider").call_api


@pytest.fixture
def ask(upstream):
    with serve_chat(Protector(WordGuard()), before_upstream(upstream.url)) as live:
        yield lambda prompt, **config: call_api(prompt, {"config": {"base_url": f"{live.url}/v1", **config}}, {})


def test_an_answer(ask):
    answer = ask("Hello there.", model="echo")
    assert answer["output"] == "Hello there."
    assert answer["tokenUsage"] == {"prompt": 2, "completion": 2, "total": 4}
    assert answer["guardrails"] == {"flagged": False, "flaggedInput": False, "flaggedOutput": False}


def test_messages_and_what_is_held_back(ask):
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "This is poison."}]
    answer = ask(json.dumps(messages), model="echo")
    assert answer["guardrails"]["flagged"] is answer["guardrails"]["flaggedOutput"] is True
    assert answer["guardrails"]["reason"] == "the guard: refused, harm score 0.900"
    assert "poison" not in json.dumps(answer)
    assert ask("[1, 2]", model="echo")["output"] == "[1, 2]"


def test_errors_are_said(ask):
    assert "the server answered 400" in ask("Hello", model="echo", request={"n": 0})["error"]
    assert "cannot be reached" in call_api("Hello", {"config": {"base_url": "http://127.0.0.1:9/v1"}}, {})["error"]


def test_the_provider_needs_nothing_but_python():
    script = "import sys; sys.path.insert(0, sys.argv[1]); import promptfoo_provider"
    subprocess.run([sys.executable, "-I", "-S", "-c", script, str(FOLDER)], check=True)


@pytest.mark.slow
def test_the_real_promptfoo(guard, upstream, tmp_path):
    program = os.environ.get("MLLM_PROTECTOR_PROMPTFOO") or shutil.which("promptfoo")
    if program is None:
        pytest.skip("promptfoo is not installed; name it in MLLM_PROTECTOR_PROMPTFOO")
    config = FOLDER / "promptfooconfig.yaml"
    environment = build_environment(
        GUARDED_URL=f"{guard.url}/v1",
        GUARDED_MODEL="bad",
        HOME=str(tmp_path),
        PROMPTFOO_CONFIG_DIR=str(tmp_path),
        PROMPTFOO_PYTHON=sys.executable,
        PROMPTFOO_DISABLE_TELEMETRY="1",
        PROMPTFOO_DISABLE_UPDATE="1",
    )
    results = tmp_path / "results.json"
    words = [program, "eval", "-c", config, "--no-cache", "--no-progress-bar", "-o", results]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert results.is_file(), done.stdout + done.stderr
    ordinary, harmful = sorted(json.loads(results.read_text())["results"]["results"], key=lambda each: each["testIdx"])
    # The model says the same to both: a harmful answer, which the guard holds back.
    for each in (ordinary, harmful):
        assert each["response"]["guardrails"]["flagged"] is True, each
        assert "wires" not in json.dumps(each)
    assert not ordinary["success"]
    assert harmful["success"]
    environment["GUARDED_MODEL"] = "good"
    results.unlink()
    subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    ordinary, harmful = sorted(json.loads(results.read_text())["results"]["results"], key=lambda each: each["testIdx"])
    assert ordinary["response"]["output"] == HARMLESS
    assert ordinary["response"]["guardrails"]["flagged"] is False
    assert not harmful["success"]
