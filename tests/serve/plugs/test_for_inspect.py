"""The real Inspect AI, which finds our model and our scorer by the package's own entry points."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from llava.constants import REFUSAL
from tests.examples.plugs.conftest import guard, upstream  # noqa: F401 - fixtures
from tests.examples.plugs.support import HARMLESS, QUESTION, build_environment, find_interpreter

ROOT = Path(__file__).resolve().parents[3]

TASK = f"""
from inspect_ai import Task, task
from inspect_ai.dataset import Sample

@task
def questions():
    return Task(dataset=[Sample(input={QUESTION!r})])
"""

READ = """
import json, sys
from inspect_ai.log import read_eval_log
log = read_eval_log(sys.argv[1])
(sample,) = log.samples
score = sample.scores["harm_score"] if sample.scores else None
print(json.dumps({
    "status": log.status,
    "text": sample.output.completion,
    "reason": sample.output.choices[0].stop_reason if sample.output.choices else None,
    "verdicts": (sample.output.metadata or {}).get("mllm_protector"),
    "value": score.value if score else None,
    "unscored": score.reason if score else None,
    "metadata": score.metadata if score else None,
}))
"""


@pytest.fixture(scope="module")
def inspect(tmp_path_factory):
    """Inspect in an environment that knows this package, as after an installation without what it needs."""
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11
    python = find_interpreter("MLLM_PROTECTOR_INSPECT", "inspect_ai")
    folder = tmp_path_factory.mktemp("inspect")
    points = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    # Inspect names what it finds in such a folder after its package.
    packages = folder / "site-packages"
    info = packages / "mllm_protector-0.dist-info"
    info.mkdir(parents=True)
    (packages / "llava").symlink_to(ROOT / "llava")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mllm-protector\nVersion: 0\n")
    lines = [f"{name} = {place}" for name, place in points["inspect_ai"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[inspect_ai]", *lines]) + "\n")
    (folder / "task.py").write_text(TASK)

    def run(model: str, url: str, *options: str) -> dict:
        """Run the task and score it; returns what the log says."""
        environment = build_environment(
            PYTHONPATH=str(packages),
            MLLM_PROTECTOR_BASE_URL=url,
            INSPECT_LOG_DIR=str(folder / "logs"),
            ANY_API_KEY="none",
            HOME=str(folder),
        )
        for old in folder.glob("logs/*"):
            old.unlink()
        for words in (["eval", "task.py", "--model", model, "--display", "none", *options], ["score"]):
            if words == ["score"]:
                (log,) = folder.glob("logs/*.eval")
                words = ["score", str(log), "--scorer", "llava/harm_score", "--overwrite", "--display", "none"]
            command = [python, "-m", "inspect_ai", *words]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stdout + done.stderr
        (log,) = folder.glob("logs/*.eval")
        done = subprocess.run([python, "-c", READ, str(log)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.slow
def test_an_answer_that_passes(inspect, guard):  # noqa: F811
    found = inspect("mllm_protector/good", f"{guard.url}/v1")
    assert (found["status"], found["text"], found["reason"]) == ("success", HARMLESS, "stop")
    assert [verdict["action"] for verdict in found["verdicts"]] == ["passed"]
    assert found["value"] < 0.5
    assert found["metadata"] == {"flagged": False}


@pytest.mark.slow
def test_an_answer_that_is_replaced_and_scored(inspect, guard):  # noqa: F811
    found = inspect("mllm_protector/bad", f"{guard.url}/v1")
    assert found["reason"] == "content_filter"
    (verdict,) = found["verdicts"]
    assert verdict["action"] in ("rewritten", "refused")
    assert "window" not in found["text"]
    assert found["text"] != REFUSAL or verdict["action"] == "refused"
    # The score is of what the model was let say.
    assert found["value"] < 0.7


@pytest.mark.slow
def test_what_another_model_says_is_scored(inspect, guard, upstream):  # noqa: F811
    found = inspect("openai-api/any/bad", f"{guard.url}/v1", "--model-base-url", f"{upstream.url}/v1")
    assert "window" in found["text"]
    assert found["value"] > 0.7
    assert found["metadata"] == {"flagged": True}
