"""What is settled before a run starts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from llava.data.schema import ImageType, Question
from llava.errors import InputError
from llava.eval.run.environment import MAX_AUTO_BATCH_SIZE, describe_versions
from llava.eval.run.planning import check_texts
from llava.eval.run.preparation import list_changed_versions, list_warnings, prepare_run, resolve_batch_size
from llava.eval.run.settings import GenerationSettings
from llava.model.identity import Checkpoint


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """Fix what `--batch-size auto` goes by: 24 GiB, which give a small model the most rows that a CPU gets."""
    monkeypatch.setattr("llava.eval.run.environment.measure_host_memory", lambda: 24 << 30)


@pytest.fixture
def settings(tmp_path, tiny_llava) -> GenerationSettings:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"How? {i}", "id": str(i)}) + "\n" for i in range(5)))
    return GenerationSettings(str(tiny_llava), tmp_path / "run", benchmark=str(path), device="cpu")


def test_a_plan_has_everything_resolved_and_writes_nothing(settings, tmp_path):
    plan = prepare_run(settings)
    assert plan.settings.batch_size == MAX_AUTO_BATCH_SIZE
    assert plan.settings.num_processes == 1
    assert plan.settings.dtype == "float32"
    assert len(plan.questions) == 5
    assert [len(batch.positions) for batch in plan.batches] == [5]
    fingerprint = plan.description["fingerprint"]
    assert fingerprint["questions"]["count"] == 5
    assert fingerprint["batch_size"] == MAX_AUTO_BATCH_SIZE
    assert len(fingerprint["model"]["digest"]) == 64
    assert not (tmp_path / "run").exists()
    json.dumps(plan.description)


def test_auto_keeps_the_batch_size_of_the_first_launch(settings):
    previous = {"fingerprint": {"batch_size": 3}}
    device = torch.device("cpu")
    assert resolve_batch_size(settings, previous, device, None) == 3
    assert resolve_batch_size(settings, None, device, Checkpoint("m", "org/name", None)) == MAX_AUTO_BATCH_SIZE
    asked = GenerationSettings("m", "o", batch_size=5)
    assert resolve_batch_size(asked, previous, device, None) == 5


def test_a_text_that_is_no_unicode_stops_the_run():
    with pytest.raises(InputError, match=r"b/A/1/TEXT holds half of a surrogate pair"):
        check_texts([Question("b", "A", "1", ImageType.TEXT, "\ud800")])


def test_half_a_surrogate_pair_in_a_file_stops_the_run(settings, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"prompt": "\\ud800?"}\n')
    with pytest.raises(InputError, match=r"mine\.jsonl line 1 holds half of a surrogate pair"):
        prepare_run(settings)


def test_missing_images_are_said():
    assert list_warnings([], []) == []
    assert list_warnings(["a.jpg", "b.jpg"], ["rendered"]) == [
        "rendered",
        "2 images are missing, such as a.jpg; their questions are left out",
    ]


def test_other_versions_than_at_the_start_are_said():
    versions = describe_versions()
    assert list_changed_versions(versions) == []
    assert list_changed_versions({}) == []
    (line,) = list_changed_versions({**versions, "torch": "1.0"})
    assert f"torch 1.0 → {versions['torch']}" in line


def test_a_guard_of_any_kind_is_checked_and_described_before_the_run(settings, tiny_detector, tiny_guard):
    spec = f"any({tiny_detector}, guard:{tiny_guard('llama_guard')})"
    fingerprint = prepare_run(replace(settings, detector=spec)).description["fingerprint"]
    assert fingerprint["detector"]["name"] == spec
    assert len(fingerprint["detector"]["members"]) == 2
    alone = prepare_run(replace(settings, detector=str(tiny_detector))).description["fingerprint"]["detector"]
    assert alone["digest"] == fingerprint["detector"]["members"][0]
    assert "members" not in alone
    with pytest.raises(InputError, match="takes no base"):
        prepare_run(replace(settings, detector=f"guard:{tiny_guard('llama_guard')}", detector_base="x"))
    with pytest.raises(InputError, match="--detector /nowhere does not exist"):
        prepare_run(replace(settings, detector="/nowhere"))
    with pytest.raises(InputError, match="guard model /nowhere cannot be loaded"):
        prepare_run(replace(settings, detector=f"any({tiny_detector}, guard:/nowhere)"))
