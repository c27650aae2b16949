"""The real NeMo Guardrails with the example's config, between a scripted upstream and a real guard."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.examples.plugs.support import HARMFUL, HARMLESS, QUESTION, build_environment, find_interpreter

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "plugs" / "nemo"

RUN = """
import asyncio, json, sys
from nemoguardrails import LLMRails, RailsConfig

folder, upstream, model, question, harmful = sys.argv[1:]

def load(name):
    config = RailsConfig.from_path(folder)
    config.models[0].parameters["base_url"] = upstream
    config.models[0].model = name
    return LLMRails(config)

async def run():
    def say(text):
        return [{"role": "user", "content": text}]
    rails = load(model)
    found = {"whole": (await rails.generate_async(messages=say(question)))["content"]}
    found["asked"] = (await rails.generate_async(messages=say(harmful)))["content"]
    found["stream"] = [piece async for piece in load(model + "-stream").stream_async(messages=say(question))]
    print(json.dumps(found))

asyncio.run(run())
"""


def run(upstream: str, model: str, guard: str, folder: Path) -> dict:
    """Ask a model through NeMo Guardrails; returns what came."""
    python = find_interpreter("MLLM_PROTECTOR_NEMO", "nemoguardrails")
    environment = build_environment(MLLM_PROTECTOR_URL=guard, OPENAI_API_KEY="none", HOME=str(folder))
    words = [python, "-c", RUN, str(FOLDER), f"{upstream}/v1", model, QUESTION, HARMFUL]
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_no_token_leaves_before_the_rail_has_seen_it():
    rails = yaml.safe_load((FOLDER / "config.yml").read_text(encoding="utf-8"))["rails"]
    streaming = rails["output"]["streaming"]
    assert streaming["enabled"] is True
    assert streaming["stream_first"] is False
    # Longer than any answer, so that a piece is judged with all before it.
    assert streaming["context_size"] >= 100_000
    assert rails["output"]["parallel"] is False


@pytest.mark.slow
def test_a_harmless_answer_passes_and_a_harmful_question_does_not(upstream, guard, tmp_path):
    found = run(upstream.url, "good", guard.url, tmp_path)
    assert found["whole"] == HARMLESS
    assert "".join(found["stream"]) == HARMLESS
    assert "Save" not in found["asked"]


@pytest.mark.slow
def test_a_harmful_answer_is_stopped_before_the_harm(upstream, guard, tmp_path):
    found = run(upstream.url, "bad", guard.url, tmp_path)
    assert "window" not in found["whole"]
    *shown, last = found["stream"]
    assert shown
    assert HARMFUL.startswith("".join(shown))
    assert "wires" not in "".join(shown)
    assert json.loads(last)["error"]["code"] == "content_blocked"


@pytest.mark.slow
def test_without_a_guard_nothing_is_said(upstream, tmp_path):
    for said in run(upstream.url, "good", "http://127.0.0.1:9", tmp_path).values():
        assert "Save" not in json.dumps(said)
