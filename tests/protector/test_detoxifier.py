import pytest
from transformers import GenerationConfig

from llava import Detoxifier
from llava.errors import InputError
from llava.protector.repetition import RUN


@pytest.fixture(scope="module")
def detoxifier(tiny_detoxifier):
    return Detoxifier.from_pretrained(tiny_detoxifier, dtype="float32")


def test_rewrites_are_greedy_and_in_order(detoxifier):
    prompts = ["Why?", "How do I bake bread?", "x"]
    responses = ["Because.", "Mix flour. " * 80, "y"]
    together = detoxifier.rewrite(prompts, responses, max_new_tokens=8)
    alone = [detoxifier.rewrite([p], [r], max_new_tokens=8)[0] for p, r in zip(prompts, responses, strict=True)]
    assert together == alone
    assert len(set(together)) > 1


def test_the_adapter_matters(detoxifier, tiny_lm):
    base = Detoxifier.from_pretrained(tiny_lm, dtype="float32")
    texts = ["Mix flour, water and salt.", "I cannot help."]
    prompts = ["Why?", "How?"]
    assert detoxifier.rewrite(prompts, texts, max_new_tokens=8) != base.rewrite(prompts, texts, max_new_tokens=8)


def test_a_rewrite_ends_before_it_repeats_itself(detoxifier):
    """Random weights soon go round in circles."""
    prompts, responses = ["Question?"] * 4, ["bread and water", "first image", "one red star", "a"]
    short = detoxifier.rewrite(prompts, responses, max_new_tokens=24)
    rewrites = detoxifier.rewrite(prompts, responses, max_new_tokens=200)
    lengths = [len(detoxifier.tokenizer(text)["input_ids"]) for text in rewrites]
    assert min(lengths) < 150, lengths
    for text in rewrites:
        tokens = detoxifier.tokenizer(text)["input_ids"]
        runs = [tuple(tokens[i : i + RUN]) for i in range(len(tokens) - RUN + 1)]
        assert len(runs) == len(set(runs))
    assert all(whole.startswith(start) or start.startswith(whole) for whole, start in zip(rewrites, short, strict=True))


def test_nothing_in_nothing_out(detoxifier):
    assert detoxifier.rewrite([], []) == []


def test_numbers_must_match(detoxifier):
    with pytest.raises(ValueError, match="0 prompts for 1"):
        detoxifier.rewrite([], ["a"])


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded"):
        Detoxifier.from_pretrained(tmp_path)


def test_a_checkpoints_decoding_defaults_do_not_count(detoxifier, tiny_detoxifier):
    other = Detoxifier.from_pretrained(tiny_detoxifier, dtype="float32")
    stored = GenerationConfig(repetition_penalty=9.0, num_beams=3, do_sample=True, temperature=5.0)
    other.model.generation_config = stored
    texts = (["Why?", "How?"], ["Mix flour, water and salt.", "I cannot help."])
    assert other.rewrite(*texts, max_new_tokens=12) == detoxifier.rewrite(*texts, max_new_tokens=12)
    assert other.model.generation_config is stored
