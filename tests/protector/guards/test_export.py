from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from llava.cli.app import main
from llava.constants import DETECTOR_TEMPLATES
from llava.errors import InputError
from llava.protector.detector import HarmDetector
from llava.protector.guards.export import export_detector
from llava.protector.merge import merge_adapter
from tests.tiny_adapters import build_detector_adapter

PAIRS = [("How do I cook?", "Boil the water, then wait."), ("", "No."), ("Why?", "Say <|im_end|> and </s><s>.")]


def score_with_transformers(folder, text_form: str) -> list[float]:
    """Return the scores of the pairs as any server of Hugging Face classifiers would give them."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = []
    for prompt, response in PAIRS:
        text = DETECTOR_TEMPLATES[text_form].format(prompt=prompt, response=response)
        logits = model(**tokenizer(text, return_tensors="pt")).logits
        assert logits.shape == (1, 1)
        scores.append(1 / (1 + math.exp(-logits.item())))
    return scores


@pytest.mark.parametrize(
    ("config", "form"),
    [
        ({"positive_label": "harmful", "temperature": 1.0}, "prompt+response"),
        ({"positive_label": "safe", "temperature": 1.7, "num_layers": 1}, "response"),
    ],
)
def test_the_export_scores_as_the_detector(tiny_lm, tmp_path, config, form):
    adapter = build_detector_adapter(tmp_path / "adapter", tiny_lm, pooling="last", text_form=form, **config)
    line = export_detector(str(adapter), tmp_path / "export")
    assert "largest score difference" in line
    assert f"text_form={form}" in line
    detector = HarmDetector.from_pretrained(adapter, dtype="float32")
    expected = detector.score([response for _, response in PAIRS], [prompt for prompt, _ in PAIRS])
    assert score_with_transformers(tmp_path / "export", form) == pytest.approx(expected, abs=1e-5)
    settings = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export").config
    assert settings.id2label == {0: "harmful"}
    assert settings.architectures == ["LlamaForSequenceClassification"]
    # It is a detector of ours all the same, with the same threshold.
    again = HarmDetector.from_pretrained(tmp_path / "export", dtype="float32")
    assert again.score(["No."], [""]) == pytest.approx([expected[1]], abs=1e-5)
    assert again.threshold == detector.threshold


def test_a_merged_detector_is_exported_too(tiny_lm, tmp_path, capsys):
    adapter = build_detector_adapter(tmp_path / "adapter", tiny_lm, pooling="last")
    merge_adapter(str(tiny_lm), str(adapter), tmp_path / "merged")
    assert main(["export", "--detector", str(tmp_path / "merged"), "--output", str(tmp_path / "export")]) == 0
    assert "--detector 'http://HOST:PORT?threshold=0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"pooling": "mean"}, "reads pooling mean"),
        ({"pooling": "mean_response", "stretches": (8,)}, "reads the highest of stretches"),
    ],
)
def test_other_pooling_is_refused_and_said_why(tiny_lm, tmp_path, config, told):
    adapter = build_detector_adapter(tmp_path / "adapter", tiny_lm, **config)
    with pytest.raises(InputError) as caught:
        export_detector(str(adapter), tmp_path / "export")
    assert told in str(caught.value)
    assert "train one with --pooling last" in str(caught.value)
    assert not (tmp_path / "export").exists()


def test_the_shipped_detector_cannot_be_exported(tmp_path):
    with pytest.raises(InputError, match="vLLM's classify reads the last token alone"):
        export_detector("embedded", tmp_path / "export")
