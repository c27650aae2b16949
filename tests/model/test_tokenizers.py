"""Tokenizers: the one that is loaded, tokens that the network has no row for, the lock under which threads share it."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from llava.errors import InputError
from llava.model.adapters import load_adapter
from llava.model.tokenizers import LOCKS, break_up, count_rows, encode_text, hold_tokenizer, load_tokenizer
from llava.protector.checkpoints import check_checkpoint, load_checkpoint_tokenizer, open_checkpoint
from llava.protector.detector import HarmDetector
from llava.protector.detoxifier import Detoxifier
from llava.protector.merge import merge_adapter
from tests.model.damage import copy_adapter
from tests.tiny import build_tokenizer

PAIRS = (["Mix.", "Mix flour and [PAD] water, then wait an hour."], ["How?", "How do I bake?"])


def add_pad(base, folder):
    """Save the base's tokenizer with one more token, which pads, into an adapter's folder."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def test_a_pad_token_without_a_row_is_taken_out(tiny_detector, tiny_lm, tmp_path):
    folder = copy_adapter(tiny_detector, tmp_path / "adapter")
    rows = add_pad(tiny_lm, folder) - 1
    plain = HarmDetector.from_pretrained(tiny_detector, dtype="float32").score(*PAIRS)
    check_checkpoint("detector", str(folder))
    detector = HarmDetector.from_pretrained(folder, dtype="float32")
    assert detector.score(*PAIRS) == plain
    assert (detector.tokenizer.pad_token, detector.tokenizer.padding_side) == ("<|im_end|>", "right")
    assert max(detector.tokenizer("[PAD] [PAD]")["input_ids"]) < rows
    merge_adapter(str(tiny_lm), str(folder), tmp_path / "merged")
    assert HarmDetector.from_pretrained(tmp_path / "merged", dtype="float32").score(*PAIRS) == pytest.approx(
        plain, abs=1e-5
    )


def resized(base, adapter, extra):
    """Give an adapter the embeddings and output layer of a base that was resized before training."""

    def change(weights):
        model = AutoModelForCausalLM.from_pretrained(base)
        torch.manual_seed(3)
        model.resize_token_embeddings(model.config.vocab_size + extra)
        new = {"model.embed_tokens.weight": model.model.embed_tokens.weight.detach().clone()}
        if not any("score" in key for key in weights):
            new["lm_head.weight"] = model.lm_head.weight.detach().clone()
        return {**weights, **{f"base_model.model.{key}": value for key, value in new.items()}}

    return copy_adapter(adapter[0], adapter[1], change)


def test_an_adapters_own_embeddings_resize_the_bases(tiny_detector, tiny_lm, tmp_path):
    folder = resized(tiny_lm, (tiny_detector, tmp_path / "adapter"), 1)
    rows = add_pad(tiny_lm, folder)
    check_checkpoint("detector", str(folder))
    assert load_checkpoint_tokenizer(open_checkpoint("detector", str(folder))).pad_token_id == rows - 1
    detector = HarmDetector.from_pretrained(folder, dtype="float32")
    assert detector.classifier.get_input_embeddings().num_embeddings == rows
    # The new row pads, and what pads is masked: texts without it score as before.
    texts = ([PAIRS[0][0], "Mix flour and water, then wait an hour."], PAIRS[1])
    plain = HarmDetector.from_pretrained(tiny_detector, dtype="float32").score(*texts)
    assert detector.score(*texts) == pytest.approx(plain, abs=1e-6)
    merge_adapter(str(tiny_lm), str(folder), tmp_path / "merged")
    assert HarmDetector.from_pretrained(tmp_path / "merged", dtype="float32").score(*texts) == pytest.approx(
        plain, abs=1e-5
    )


def test_a_detoxifiers_output_layer_comes_with_them(tiny_detoxifier, tiny_lm, tmp_path):
    folder = resized(tiny_lm, (tiny_detoxifier, tmp_path / "adapter"), 2)
    add_pad(tiny_lm, folder)
    check_checkpoint("detoxifier", str(folder))
    texts = (["How?"], ["Mix flour."])
    plain = Detoxifier.from_pretrained(tiny_detoxifier, dtype="float32").rewrite(*texts, max_new_tokens=8)
    assert len(Detoxifier.from_pretrained(folder, dtype="float32").rewrite(*texts, max_new_tokens=8)) == len(plain)
    half = copy_adapter(
        folder, tmp_path / "half", lambda weights: {k: v for k, v in weights.items() if "lm_head" not in k}
    )
    with pytest.raises(InputError, match=r"resizes the token embeddings, but not lm_head\.weight"):
        load_adapter(AutoModelForCausalLM.from_pretrained(tiny_lm), half, "base")


def test_another_models_tokenizer_is_refused(tiny_lm, tmp_path):
    folder = shutil.copytree(tiny_lm, tmp_path / "lm")
    assert count_rows(folder) == len(AutoTokenizer.from_pretrained(folder))
    with pytest.raises(InputError, match=r"has \d+ tokens, the network's embeddings 100 rows"):
        load_tokenizer(str(folder), 100)


def test_a_tokenizer_without_an_end_or_damaged_is_refused(tiny_lm, tmp_path):
    folder = shutil.copytree(tiny_lm, tmp_path / "lm")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": None, "pad_token": None}))
    with pytest.raises(InputError, match="has no eos token"):
        load_tokenizer(str(folder))
    (folder / "tokenizer.json").write_text('{"model": 5}')
    with pytest.raises(InputError, match="no tokenizer can be loaded") as caught:
        load_tokenizer(str(folder))
    assert "\n" not in str(caught.value)


def test_padding_and_its_token(tiny_lm, tmp_path):
    tokenizer = load_tokenizer(str(tiny_lm))
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("right", "<|im_end|>")
    assert load_tokenizer(str(tiny_lm), padding_side="left").padding_side == "left"
    with pytest.raises(InputError, match="no tokenizer can be loaded"):
        load_tokenizer(str(tmp_path))


def test_each_thread_gets_its_own_padding():
    tokenizer = build_tokenizer()
    texts = ["bread " * count for count in (3, 400)]

    def measure(padding: bool) -> list[int]:
        with hold_tokenizer(tokenizer):
            return [len(ids) for ids in tokenizer(texts, padding=padding)["input_ids"]]

    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(measure, [True, False] * 100))
    finally:
        sys.setswitchinterval(before)
    assert found == [[402, 402], [5, 402]] * 100


def test_a_lock_is_one_and_goes_with_its_tokenizer():
    tokenizer, other = build_tokenizer(), build_tokenizer()
    assert hold_tokenizer(tokenizer) is hold_tokenizer(tokenizer)
    assert hold_tokenizer(tokenizer) is not hold_tokenizer(other)
    count = len(LOCKS)
    del other
    gc.collect()
    assert len(LOCKS) < count


def test_control_tokens_in_a_text_are_text():
    tokenizer = build_tokenizer()
    text = "a<|im_end|>b<s>"
    assert break_up(tokenizer, text) == text
    ids = encode_text(tokenizer, text)["input_ids"]
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == text


def test_control_tokens_among_the_pieces_of_a_vocabulary_are_broken_up():
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -2.0) for letter in "ab</s> ")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    assert tokenizer.eos_token_id in encode_text(tokenizer, "a</s>b")["input_ids"]
    assert tokenizer.eos_token_id not in encode_text(tokenizer, break_up(tokenizer, "a</s>b"))["input_ids"]
    assert break_up(tokenizer, "a < /s> b") == "a < /s> b"


def test_added_tokens_that_do_not_count_as_special_are_broken_up():
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([AddedToken("<|user|>", special=False)])
    number = tokenizer.convert_tokens_to_ids("<|user|>")
    assert number not in encode_text(tokenizer, break_up(tokenizer, "a<|user|>b"))["input_ids"]
