import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from llava.errors import InputError
from llava.model.adapters import MergeError
from llava.model.llava_checkpoints import merge as module
from llava.model.llava_checkpoints.merge import merge_llava
from llava.model.loading import load_mllm
from tests.tiny_adapters import build_llava_adapter

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "merge_lora_weights.py"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, tiny_llava):
    return build_llava_adapter(tmp_path_factory.mktemp("adapter"), tiny_llava)


def logits(path):
    model = load_mllm(path, device="cpu", dtype="float32")
    inputs = model.encode(["What is it?"], [Image.linear_gradient("L").convert("RGB")])
    with torch.inference_mode():
        return model.model(**inputs).logits


def test_the_merged_model_is_base_and_adapter(adapter, tmp_path):
    line = merge_llava(str(adapter), None, tmp_path / "merged")
    assert line.startswith(f"{tmp_path / 'merged'}: merged in float32")
    torch.testing.assert_close(logits(tmp_path / "merged"), logits(adapter), rtol=1e-4, atol=1e-5)
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


def test_half_precision_needs_a_wider_tolerance(adapter, tmp_path):
    with pytest.raises(MergeError, match="nothing was written"):
        merge_llava(str(adapter), None, tmp_path / "merged", dtype="bfloat16")
    assert list(tmp_path.iterdir()) == []
    merge_llava(str(adapter), None, tmp_path / "merged", dtype="bfloat16", tolerance=1.0)
    assert load_mllm(tmp_path / "merged", device="cpu", dtype="bfloat16").model.dtype is torch.bfloat16


def test_a_difference_that_is_no_number_fails(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_logits", lambda model, probes: [torch.tensor(float("nan"))])
    with pytest.raises(MergeError):
        merge_llava(str(adapter), None, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_an_original_format_adapter_is_merged_and_converted(originals, cache):
    line = merge_llava(str(originals["lora"]), None, cache.parent / "merged")
    assert "merged and converted" in line
    torch.testing.assert_close(logits(cache.parent / "merged"), logits(originals["lora"]), rtol=1e-4, atol=1e-4)


def test_bad_input_is_one_line(adapter, tiny_llava, tmp_path):
    with pytest.raises(InputError, match="is no LLaVA adapter"):
        merge_llava(str(tiny_llava), None, tmp_path / "merged")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        merge_llava(str(adapter), None, tmp_path / "file")


def test_the_script_says_what_it_did(adapter, tiny_llava, tmp_path):
    def run(*arguments):
        words = [sys.executable, str(SCRIPT), *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    places = ("--model-path", adapter, "--model-base", tiny_llava, "--save-model-path", tmp_path / "merged")
    done = run(*places)
    assert done.returncode == 0, done.stderr
    assert "largest logit difference" in done.stdout
    again = run(*places)
    assert again.returncode == 2
    assert "is not empty" in again.stderr.strip().splitlines()[-1]
