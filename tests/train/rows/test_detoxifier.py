import pytest

from llava.data.training.pairs import DetoxifierRow
from llava.protector.config import ProtectorConfig
from llava.protector.text import render_detoxifier_prompt
from llava.train.rows.detoxifier import EncodedRewrite, build_dataset, count_cuts, encode_rewrites
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


def test_dataset_literal():
    dataset = build_dataset([EncodedRewrite([1, 2, 3], [4, 5], ROW), EncodedRewrite([6], [7], ROW)])
    assert dataset.to_list() == [
        {"input_ids": [1, 2, 3, 4, 5], "completion_mask": [0, 0, 0, 1, 1]},
        {"input_ids": [6, 7], "completion_mask": [0, 1]},
    ]


def test_cuts_are_counted(tokenizer):
    """A target that just fits with its eos is whole; one token less, and it is cut."""
    config = ProtectorConfig(kind="detoxifier", max_length=160)
    size = len(tokenizer("I am sorry.")["input_ids"]) + 1
    rows = [ROW, DetoxifierRow("How?", "wire " * 500, "No.", "s")]
    whole, long = encode_rewrites(tokenizer, config, rows, size)
    assert (whole.response_cut, whole.target_cut, long.response_cut, long.target_cut) == (False, False, True, False)
    (cut,) = encode_rewrites(tokenizer, config, [ROW], size - 1)
    assert cut.target_cut
    assert count_cuts([whole, long, cut]) == "3 rows: the response is cut in 1, the target in 1"
