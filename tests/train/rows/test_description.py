import numpy as np
import pytest

from llava.data.training.pairs import DetectorRow, DetoxifierRow
from llava.protector.config import ProtectorConfig
from llava.protector.text import Window, render_detoxifier_prompt
from llava.train.rows.description import (
    describe_conversations,
    describe_detector_data,
    describe_detoxifier_data,
    describe_lengths,
    mask_text,
)
from llava.train.rows.detector import EncodedRow, encode_rows
from llava.train.rows.detoxifier import EncodedRewrite, encode_rewrites
from tests.tiny import build_tokenizer


def test_no_word_survives_masking():
    assert mask_text("Straße 42, naïve—ok?") == "xxxxxx 99, xxxxx—xx?"
    assert mask_text("word " * 100).endswith("…")


def test_detector_report_counts_and_hides_texts():
    rows = [
        EncodedRow([Window([1] * n)], harmful, 1.0, 0.0, DetectorRow(f"q{n % 2}", "secret words", harmful, "src"), n)
        for n, harmful in ((3, True), (5, False), (7, True))
    ]
    report = describe_detector_data(rows, rows[:1])
    assert "training: 3 responses to 1 prompts" in report
    assert "src: 2 harmful, 1 harmless" in report
    assert "held out: 1 responses" in report
    assert "max 7" in report
    assert "secret" not in report
    assert "xxxxxx xxxxx" in report


def test_detoxifier_report_counts_and_hides_texts():
    row = DetoxifierRow("q", "secret words", "kind reply", "src")
    rows = [EncodedRewrite([1, 2], [3], row, prompt_tokens=2, target_tokens=1)]
    report = describe_detoxifier_data(rows, [])
    assert "training: 1 rows, 1 prompts" in report
    assert "prompt tokens, whole: p50 2" in report
    assert "target tokens, whole: none" in report
    assert "secret" not in report
    assert "kind" not in report


LONG = [("How?", "Mix flour and water. " * n, "No, thank you. " * n) for n in (1, 30, 60)]
"""Texts of three sizes; the last one fills three windows of 128 tokens."""


@pytest.mark.parametrize(("max_windows", "cut"), [(1, 2), (2, 1), (None, 0)])
def test_detector_report_has_lengths_before_cutting(max_windows, cut):
    tokenizer, config = build_tokenizer(), ProtectorConfig(kind="detector", max_length=128)
    rows = [DetectorRow(prompt, response, True, "src") for prompt, response, _ in LONG]
    whole = [len(tokenizer(f"Question: How?\n\nAnswer: {row.response}")["input_ids"]) for row in rows]
    assert whole[0] < 128 < whole[1] < whole[2]
    report = describe_detector_data(encode_rows(tokenizer, config, rows, max_windows=max_windows), [])
    assert f"tokens, whole: {describe_lengths(whole)}" in report
    assert f"max {whole[2]}" in report
    assert "tokens, longest window: p50 128" in report
    assert f"responses of more than one window: 2, cut: {cut}\n" in report


def test_detoxifier_report_has_lengths_before_cutting():
    tokenizer, config = build_tokenizer(), ProtectorConfig(kind="detoxifier", max_length=256)
    rows = [DetoxifierRow(*texts, "src") for texts in LONG]
    report = describe_detoxifier_data(encode_rewrites(tokenizer, config, rows, 100), [])
    prompts = [len(tokenizer(render_detoxifier_prompt(config, row.prompt, row.response))["input_ids"]) for row in rows]
    targets = [len(tokenizer(row.target.strip())["input_ids"]) + 1 for row in rows]
    assert prompts[0] < 156 < prompts[1]
    assert targets[0] < 100 < targets[1]
    assert f"prompt tokens, whole: {describe_lengths(prompts)}" in report
    assert f"target tokens, whole: {describe_lengths(targets)}" in report
    assert "prompt and target as trained: p50 256" in report
    assert "response cut: 2, target cut: 2\n" in report


def test_conversation_report_counts_and_hides_texts():
    from llava.data.training.conversations import Conversation, Turn
    from llava.train.rows.conversations import EncodedConversation

    turns = (Turn("system", "be kind"), Turn("user", "secret words", 1), Turn("assistant", "kind reply"))
    row = Conversation("1", turns, ("a.png",), "src", "rows.json row 1")
    picture = EncodedConversation(np.arange(6), [(4, 6)], 9, ("a.png",), row, cut=True)
    text = EncodedConversation(np.arange(5), [(1, 2), (3, 5)], 5, (), row)
    report = describe_conversations([picture, picture, text, text], [])
    assert "training: 4 rows, 2 with pictures (50%), 2 text only" in report
    assert "  src: 4" in report
    assert "positions, pictures included: p50 7, p90 9" in report
    assert "target tokens: p50 2, p90 3" in report
    assert "cut at the maximum length: 2" in report
    assert "1 pictures, 9 positions, 1 answers: xxxxxx xxxxx => xxxx xxxxx" in report
    assert "secret" not in report
    assert "kind" not in report
