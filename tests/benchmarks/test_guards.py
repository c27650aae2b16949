"""The zero-shot guard beside the detector, on models so small that their figures mean nothing."""

import argparse

import pytest

from benchmarks import guards


def test_it_measures_both_guards(tiny_detector, tiny_lm):
    parser = argparse.ArgumentParser()
    guards.add_arguments(parser.add_argument_group("guards"))
    flags = ["--guards-detector", str(tiny_detector), "--guards-base", str(tiny_lm)]
    (row,) = guards.measure(parser.parse_args([*flags, "--guards-each", "1", "--guards-repeats", "1"]))
    assert row.ours > 0
    assert row.baseline > 0
    assert row.note.startswith("AUROC ")


def test_padding_and_order_change_no_score(tiny_lm):
    texts = ["Yes.", "First, boil the water. Then add the rice and wait for twelve minutes.", "No, thank you."]
    prompts = ["How?", "How do I cook rice?", "Tea?"]
    alone = guards.AskedModel(str(tiny_lm), 1).score(texts, prompts)
    assert guards.AskedModel(str(tiny_lm), 3).score(texts, prompts) == pytest.approx(alone, abs=1e-5)
    assert all(0 <= score <= 1 for score in alone)
