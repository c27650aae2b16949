import pytest

from llava.data.pairs import DetoxifierRow
from llava.protector.config import ProtectorConfig
from llava.protector.text import render_detoxifier_prompt
from llava.train.detoxifier_data import IGNORED, DetoxifierCollator, EncodedRewrite, encode_rewrites
from tests.tiny import build_tokenizer

ROW = DetoxifierRow("How?", "Take the wire.", " I am sorry. ", "s")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_prompt_is_the_prompt_of_inference_and_the_target_ends_with_eos(tokenizer):
    config = ProtectorConfig(kind="detoxifier")
    (example,) = encode_rewrites(tokenizer, config, [ROW], 50)
    assert tokenizer.decode(example.prompt) == render_detoxifier_prompt(config, ROW.prompt, ROW.response)
    assert example.prompt == tokenizer(render_detoxifier_prompt(config, ROW.prompt, ROW.response))["input_ids"]
    assert tokenizer.decode(example.target) == "I am sorry.<|im_end|>"


def test_a_cut_target_has_no_eos(tokenizer):
    (example,) = encode_rewrites(tokenizer, ProtectorConfig(kind="detoxifier"), [ROW], 2)
    assert len(example.target) == 2
    assert tokenizer.eos_token_id not in example.target


def test_a_long_response_gives_way_and_the_instruction_stays(tokenizer):
    config = ProtectorConfig(kind="detoxifier", max_length=160)
    row = DetoxifierRow("How?", "wire " * 500, "No.", "s")
    (example,) = encode_rewrites(tokenizer, config, [row], 50)
    assert len(example.input_ids) == 160
    text = tokenizer.decode(example.prompt)
    assert text.endswith("Corrected response: ")
    assert "Question: How?" in text


def test_collator_literal():
    examples = [EncodedRewrite([1, 2, 3], [4, 5], ROW), EncodedRewrite([6], [7], ROW)]
    batch = DetoxifierCollator(pad_token_id=5)(examples)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [6, 7, 5, 5, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED] * 3 + [4, 5], [IGNORED, 7, IGNORED, IGNORED, IGNORED]]
