import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaForConditionalGeneration

from llava.train.language_model import language_model_folder


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


def test_a_detector_trains_on_it(tiny_llava, tmp_path, monkeypatch):
    from llava.protector.detector import HarmDetector
    from llava.train.harm_detector import main
    from tests.train.rows import write_labelled

    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    data, output = write_labelled(tmp_path / "rows.jsonl", 20), tmp_path / "out"
    arguments = ["--base", str(tiny_llava), "--train-data", str(data), "--output-dir", str(output), "--max-steps", "2"]
    assert main([*arguments, "--disable-tqdm", "true", "--save-strategy", "no"]) == 0
    assert 0 < HarmDetector.from_pretrained(output).score(["bread"], ["q"])[0] < 1
