"""Tokenizers: the one that is loaded, and the lock under which threads share it."""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from llava.errors import InputError
from llava.model.tokenizers import LOCKS, hold_tokenizer, load_tokenizer
from tests.tiny import build_tokenizer


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
