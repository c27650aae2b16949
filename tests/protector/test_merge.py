import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from llava.errors import InputError
from llava.model.adapters import MergeError
from llava.protector import merge
from llava.protector.detector import HarmDetector
from llava.protector.detoxifier import Detoxifier
from llava.protector.merge import merge_adapter
from tests.released_adapters import to_released_form
from tests.tiny import build_causal_lm
from tests.tiny_adapters import build_detector_adapter, build_detoxifier_adapter

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "merge_peft_adapter.py"
RESPONSES = ["Mix flour, water, salt and yeast.", "No.", "word " * 200]


def run_script(*arguments):
    namespace = runpy.run_path(str(SCRIPT))
    return namespace["main"]([str(argument) for argument in arguments])


@pytest.fixture
def detector(tiny_lm, tmp_path):
    return build_detector_adapter(tmp_path / "detector", tiny_lm, num_layers=1, pooling="mean", threshold=0.3)


@pytest.fixture
def detoxifier(tiny_lm, tmp_path):
    return build_detoxifier_adapter(tmp_path / "detoxifier", tiny_lm)


def test_a_merged_detector_scores_as_before(tiny_lm, detector, tmp_path):
    output = tmp_path / "merged"
    line = merge_adapter(str(tiny_lm), str(detector), output)
    assert "merged detector in float32" in line
    assert "\n" not in line
    before, after = (HarmDetector.from_pretrained(folder, dtype="float32") for folder in (detector, output))
    prompts = ["How?"] * 3
    assert after.score(RESPONSES, prompts) == pytest.approx(before.score(RESPONSES, prompts), abs=1e-5)
    assert (after.config.num_layers, after.config.pooling, after.threshold) == (1, "mean", 0.3)
    assert after.config.base_model is None
    assert not (output / "adapter_config.json").exists()


def test_a_merged_detector_is_a_plain_sequence_classifier(tiny_lm, tmp_path):
    """With last-token pooling, transformers' own class gives our logits on a text that needs no padding."""
    adapter = build_detector_adapter(tmp_path / "adapter", tiny_lm, pooling="last")
    merge_adapter(str(tiny_lm), str(adapter), tmp_path / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert model.config.num_labels == 1
    tokens = AutoTokenizer.from_pretrained(tmp_path / "merged")("Question: How?\n\nAnswer: Mix.", return_tensors="pt")
    with torch.inference_mode():
        logit = model(**tokens).logits.item()
    score = HarmDetector.from_pretrained(adapter, dtype="float32").score(["Mix."], ["How?"])[0]
    assert torch.sigmoid(torch.tensor(logit)).item() == pytest.approx(score, abs=1e-5)


def test_a_merged_detoxifier_rewrites_as_before(tiny_lm, detoxifier, tmp_path):
    output = tmp_path / "merged"
    merge_adapter(str(tiny_lm), str(detoxifier), output)
    AutoModelForCausalLM.from_pretrained(output)
    arguments = (["How?", "Why?"], ["Mix flour.", "Because."])
    before = Detoxifier.from_pretrained(detoxifier, dtype="float32").rewrite(*arguments, max_new_tokens=12)
    assert Detoxifier.from_pretrained(output, dtype="float32").rewrite(*arguments, max_new_tokens=12) == before


def test_a_base_with_odd_sampling_defaults_is_merged(tiny_lm, detoxifier, tmp_path):
    """Old files have a temperature and do not sample, which some versions of transformers refuse to write."""
    base = shutil.copytree(tiny_lm, tmp_path / "base")
    path = base / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "temperature": 0.2, "top_p": 0.9}))
    merge_adapter(str(base), str(detoxifier), tmp_path / "merged")
    assert Detoxifier.from_pretrained(tmp_path / "merged").rewrite(["How?"], ["Mix."], max_new_tokens=2)


def test_the_base_itself_is_not_what_is_written(tiny_lm, detoxifier, tmp_path):
    merge_adapter(str(tiny_lm), str(detoxifier), tmp_path / "merged")
    base, merged = (load_file(folder / "model.safetensors") for folder in (tiny_lm, tmp_path / "merged"))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.allclose(base[name], merged[name], atol=1e-3)


def test_half_precision_rounds_and_wants_a_wider_tolerance(tiny_lm, detector, tmp_path):
    output = tmp_path / "merged"
    with pytest.raises(MergeError, match="above --tolerance 1e-09"):
        merge_adapter(str(tiny_lm), str(detector), output, dtype="bfloat16", tolerance=1e-9)
    assert not output.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["detector"]
    merge_adapter(str(tiny_lm), str(detector), output, dtype="bfloat16", tolerance=0.5)
    assert {tensor.dtype for tensor in load_file(output / "model.safetensors").values()} == {torch.bfloat16}


def test_what_was_written_is_what_is_checked(tiny_lm, detector, tmp_path, monkeypatch):
    """Weights spoiled on their way to the disk are found, though the model in memory is right."""
    honest = merge.to_saved_form

    def spoil(kind, model):
        saved = honest(kind, model)
        with torch.no_grad():
            saved.score.weight.add_(1.0)
        return saved

    monkeypatch.setattr(merge, "to_saved_form", spoil)
    with pytest.raises(MergeError, match="nothing was written"):
        merge_adapter(str(tiny_lm), str(detector), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_script_exit_codes(tiny_lm, detector, tmp_path, capsys):
    names = ("--base_model_name", tiny_lm, "--adapter_model_name", detector, "--output_name", tmp_path / "merged")
    assert run_script(*names, "--dtype", "bfloat16", "--tolerance", "1e-9") == 1
    assert "error: merged logits differ by" in capsys.readouterr().err
    assert run_script(*names) == 0
    assert "largest logit difference" in capsys.readouterr().out
    assert run_script(*names) == 2
    assert capsys.readouterr().err.startswith("error: output folder")


def test_another_base_is_one_line(detector, tmp_path):
    other = build_causal_lm(tmp_path / "wide", hidden_size=48)
    with pytest.raises(InputError, match="does not fit base") as caught:
        merge_adapter(str(other), str(detector), tmp_path / "merged")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("spoil", ["task", "kind", "weights", "missing"])
def test_damaged_adapters(tiny_lm, detector, tmp_path, spoil):
    if spoil == "task":
        config = json.loads((detector / "adapter_config.json").read_text())
        (detector / "adapter_config.json").write_text(json.dumps({**config, "task_type": "SEQ_2_SEQ_LM"}))
    elif spoil == "kind":
        config = json.loads((detector / "protector_config.json").read_text())
        (detector / "protector_config.json").write_text(json.dumps({"kind": "detoxifier", "base_model": None}))
    elif spoil == "weights":
        weights = (detector / "adapter_model.safetensors").read_bytes()
        (detector / "adapter_model.safetensors").write_bytes(weights[:100])
    else:
        (detector / "adapter_config.json").unlink()
    with pytest.raises(InputError) as caught:
        merge_adapter(str(tiny_lm), str(detector), tmp_path / "merged")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "merged").exists()


def test_an_output_folder_with_files_is_left_alone(tiny_lm, detector, tmp_path):
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "kept").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        merge_adapter(str(tiny_lm), str(detector), tmp_path / "merged")
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["kept"]


def test_an_empty_output_folder_is_used(tiny_lm, detector, tmp_path):
    (tmp_path / "merged").mkdir()
    merge_adapter(str(tiny_lm), str(detector), tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").is_file()


@pytest.mark.parametrize("modules_to_save", [None, ["score"], ["classifier", "score"]], ids=str)
def test_released_detector_files_merge(tiny_lm, tmp_path, modules_to_save):
    """A released detector: PEFT 0.4's adapter_config.json, a pickled adapter_model.bin, no protector_config.json."""
    adapter = build_detector_adapter(tmp_path / "adapter", tiny_lm)
    to_released_form(adapter, "SEQ_CLS", modules_to_save)
    merge_adapter(str(tiny_lm), str(adapter), tmp_path / "merged")
    after = HarmDetector.from_pretrained(tmp_path / "merged", dtype="float32")
    assert after.config.positive_label == "safe"
    before = HarmDetector.from_pretrained(adapter, base=str(tiny_lm), dtype="float32")
    assert after.score(["Mix."], ["How?"]) == pytest.approx(before.score(["Mix."], ["How?"]), abs=1e-5)
    assert json.loads((tmp_path / "merged" / "protector_config.json").read_text())["positive_label"] == "safe"


def test_released_detoxifier_files_merge(tiny_lm, detoxifier, tmp_path):
    to_released_form(detoxifier, "CAUSAL_LM", None)
    merge_adapter(str(tiny_lm), str(detoxifier), tmp_path / "merged")
    before = Detoxifier.from_pretrained(detoxifier, base=str(tiny_lm), dtype="float32")
    after = Detoxifier.from_pretrained(tmp_path / "merged", dtype="float32")
    arguments = (["How?", "Why?"], ["Mix flour.", "Because."])
    assert after.rewrite(*arguments, max_new_tokens=12) == before.rewrite(*arguments, max_new_tokens=12)


def test_the_command_line_runs_as_a_script(tmp_path):
    import subprocess

    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    assert "--tolerance" in done.stdout
