import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaForConditionalGeneration

from llava.model.language_model import language_model_folder
from tests.train.samples import SINGLE_PRECISION, write_labelled, write_rewrites


def test_a_language_model_comes_back_as_it_is(tiny_lm):
    assert language_model_folder(tiny_lm) == tiny_lm


def test_the_language_model_of_a_llava_gives_its_logits(tiny_llava, tmp_path, monkeypatch):
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path))
    folder = language_model_folder(tiny_llava)
    assert folder.is_relative_to(tmp_path)
    assert language_model_folder(tiny_llava) == folder
    tokens = AutoTokenizer.from_pretrained(folder)(["Mix flour and water."], return_tensors="pt")
    with torch.inference_mode():
        inside = LlavaForConditionalGeneration.from_pretrained(tiny_llava)(**tokens).logits
        alone = AutoModelForCausalLM.from_pretrained(folder)(**tokens).logits
    torch.testing.assert_close(alone, inside)


def train_on(base, tmp_path, monkeypatch, *more):
    """Train a detector on the language model of a LLaVA, then lose the cache, as when it goes to another machine."""
    from llava.train.harm_detector import main

    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    data, output = write_labelled(tmp_path / "rows.jsonl", 20), tmp_path / "out"
    arguments = ["--base", str(base), "--train-data", str(data), "--output-dir", str(output), "--max-steps", "2"]
    assert main([*arguments, "--disable-tqdm", "true", "--save-strategy", "no", *more]) == 0
    shutil.rmtree(tmp_path / "cache")
    return output


def test_a_detector_trained_on_it_names_the_llava_and_finds_it_again(tiny_llava, tmp_path, monkeypatch):
    from llava.data.training.pairs import load_detector_rows
    from llava.data.training.sources import parse_mixture
    from llava.data.training.splits import split_rows
    from llava.protector.checkpoints import check_checkpoint
    from llava.protector.detector import HarmDetector
    from llava.protector.merge import merge_adapter

    output = train_on(tiny_llava, tmp_path, monkeypatch, *SINGLE_PRECISION)
    adapter = json.loads((output / "adapter_config.json").read_text())
    config = json.loads((output / "protector_config.json").read_text())
    assert adapter["base_model_name_or_path"] == config["base_model"] == str(tiny_llava)
    check_checkpoint("detector", str(output))
    detector = HarmDetector.from_pretrained(output, dtype="float32")
    # What the training scored with the language model it had, the language model taken out again scores too.
    _, held_out = split_rows(load_detector_rows(parse_mixture(str(tmp_path / "rows.jsonl"))))
    written = [json.loads(line)["harm_score"] for line in (output / "held_out_scores.jsonl").read_text().splitlines()]
    scores = detector.score([row.response for row in held_out], [row.prompt for row in held_out])
    assert sorted(scores) == pytest.approx(sorted(written), abs=1e-5)
    assert len(scores) > 1
    before = detector.score(["bread"], ["q"])
    shutil.rmtree(tmp_path / "cache")
    merge_adapter(str(tiny_llava), str(output), tmp_path / "merged")
    merged = HarmDetector.from_pretrained(tmp_path / "merged", dtype="float32")
    assert merged.score(["bread"], ["q"]) == pytest.approx(before, abs=1e-5)


def test_the_recorded_name_may_be_another_copy_of_the_llava(tiny_llava, tmp_path, monkeypatch):
    from llava.protector.detector import HarmDetector

    copy = shutil.copytree(tiny_llava, tmp_path / "copy")
    output = train_on(tiny_llava, tmp_path, monkeypatch, "--base-name", str(copy))
    assert 0 < HarmDetector.from_pretrained(output).score(["bread"], ["q"])[0] < 1
    # The sister of an adapter on the language model alone: here the base is named by the user.
    assert 0 < HarmDetector.from_pretrained(output, base=str(tiny_llava)).score(["bread"], ["q"])[0] < 1


def test_a_detoxifier_on_it_loads_as_well(tiny_llava, tmp_path, monkeypatch):
    from llava.protector.detoxifier import Detoxifier
    from llava.train.detoxifier import main

    pytest.importorskip("trl")
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    data, output = write_rewrites(tmp_path / "rewrites.jsonl", 8), tmp_path / "out"
    arguments = ["--base", str(tiny_llava), "--train-data", str(data), "--output-dir", str(output), "--max-steps", "2"]
    assert main([*arguments, "--disable-tqdm", "true", "--save-strategy", "no"]) == 0
    shutil.rmtree(tmp_path / "cache")
    assert len(Detoxifier.from_pretrained(output).rewrite(["q"], ["thorn"], max_new_tokens=4)) == 1
