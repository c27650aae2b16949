"""The shipped stack on one language model says what it says with three."""

from __future__ import annotations

import pytest

from llava import Detoxifier, HarmDetector, load_mllm
from llava.data.benchmarks.loading import load_benchmark
from llava.errors import InputError
from llava.model.backbone import Backbone
from llava.model.embedded.base_lm import resolve_base

ROWS = 32


@pytest.mark.slow
def test_scores_and_rewrites_are_the_same():
    try:
        resolve_base()
    except InputError as error:
        pytest.skip(str(error))
    options = {"device": "cpu", "dtype": "float32"}
    mllm = load_mllm("embedded", **options)
    offered = Backbone(mllm)
    detector = HarmDetector.from_pretrained("embedded", backbone=offered, **options)
    detoxifier = Detoxifier.from_pretrained("embedded", backbone=offered, **options)
    prompts = [question.prompt for question in load_benchmark("sample", limit=ROWS).questions]
    responses = [f"Here is how. {prompt} First, look around, then take your time." for prompt in prompts]
    expected = HarmDetector.from_pretrained("embedded", **options).score(responses, prompts)
    assert detector.score(responses, prompts) == pytest.approx(expected, abs=1e-4)
    rewrites = Detoxifier.from_pretrained("embedded", **options).rewrite(prompts, responses, max_new_tokens=16)
    assert detoxifier.rewrite(prompts, responses, max_new_tokens=16) == rewrites
    assert len(rewrites) == ROWS
    assert len(set(rewrites)) > 1
    theirs = {parameter.data_ptr() for parameter in mllm.model.parameters()}
    for network in (detector.classifier, detoxifier.model):
        own = sum(each.nbytes for each in network.parameters() if each.data_ptr() not in theirs)
        assert own < 8 << 20  # the adapter's own size; the base has 540 MB
