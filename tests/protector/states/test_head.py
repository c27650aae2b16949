"""The head: scores by hand, files, and models that it does not belong to."""

from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image

from llava.errors import InputError
from llava.model.identity import identify_checkpoint
from llava.model.loading import load_mllm
from llava.model.views import view_model
from llava.protector.states.config import Cascade, StateHeadConfig
from llava.protector.states.finding import check_head
from llava.protector.states.head import StateHead, StateStream
from llava.protector.states.samples import check_samples, sample_weights
from tests.tiny import build_llava

IMAGE = Image.linear_gradient("L").convert("RGB").resize((50, 30))
CONFIG = StateHeadConfig("tiny", "llama", 2, 32, 1, threshold=0.6, temperature=2.0)


@pytest.fixture(scope="module")
def model(tiny_llava):
    return load_mllm(tiny_llava, device="cpu", dtype="float32")


def build_head(model, pooling="mean", **changes) -> StateHead:
    torch.manual_seed(1)
    config = StateHeadConfig(**{**vars(CONFIG), "pooling": pooling, **changes})
    directions = torch.randn(2 if pooling == "mean+last" else 1, 32) * 3
    return StateHead(config, directions, 0.25, sample_weights(model.model, config.layer))


def test_scores_by_hand():
    head = StateHead(StateHeadConfig("m", "llama", 2, 2, 1, "mean+last"), torch.eye(2), -1.0)
    # Means 1, 2 and 3; last states 0, 1 and -4.
    scores = head.score_tokens(torch.tensor([[1.0, 0.0], [3.0, 1.0], [5.0, -4.0]]))
    assert scores == pytest.approx([1 / (1 + math.exp(-logit)) for logit in (0.0, 2.0, -2.0)])
    assert head.score_answer(None) != head.score_answer(None)  # NaN
    assert head.score_tokens(torch.zeros(0, 2)) == []


def test_a_broken_state_has_no_score_nor_have_those_behind_it():
    head = StateHead(StateHeadConfig("m", "llama", 2, 2, 1), torch.tensor([[1.0, 0.0]]), 0.0)
    for bad in (math.nan, math.inf):
        scores = head.score_tokens(torch.tensor([[0.0], [bad], [0.0]]))
        assert [math.isnan(score) for score in scores] == [False, True, True]
        stream = StateStream(head)
        assert [math.isnan(stream.add(torch.tensor([value]))) for value in (0.0, bad, 0.0)] == [False, True, True]


@pytest.mark.parametrize("pooling", ["mean", "mean+last"])
@pytest.mark.parametrize("image", [None, IMAGE])
def test_a_stream_scores_every_token_as_one_pass_does(model, pooling, image):
    head = build_head(model, pooling)
    inputs = model.encode(["How do I bake bread?"], None if image is None else [image])
    view = view_model(model.model)
    stream = head.watch(view)
    with torch.inference_mode():
        tokens = view.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=None)
        view(input_ids=tokens[:, -1:])  # the last token is read as well
    traced = model.trace(["How do I bake bread?"], [image], head.projection, max_new_tokens=8)[0]
    scores = head.score_tokens(traced.kept)
    assert stream.scores[: min(7, len(scores))] == pytest.approx(scores[:7], abs=1e-4)
    assert len(stream.scores) == 8


def test_ready_answers_are_scored_as_written_ones(model):
    head = build_head(model)
    prompts, responses = ["Hi", "How?", "Why?"], ["Mix flour, water and salt.", "", "So."]
    together = head.score(model, prompts, responses, [None, None, IMAGE], batch_size=2)
    assert math.isnan(together[1])
    for place in (0, 2):
        alone = head.score(model, [prompts[place]], [responses[place]], [(None, None, IMAGE)[place]])
        assert together[place] == pytest.approx(alone[0], abs=1e-5)
    assert head.score(model, ["Why?"], ["So."])[0] != pytest.approx(together[2], abs=1e-6)  # it sees the image


def test_saved_and_loaded_it_scores_the_same(model, tmp_path):
    head = build_head(model, cascade=Cascade("words", "1", 0.2, 2.0, 0.3))
    head.save(tmp_path / "head")
    loaded = StateHead.from_pretrained(tmp_path / "head")
    assert loaded.config == head.config
    loaded.check(model)
    kept = torch.randn(5, 1)
    assert loaded.score_tokens(kept) == head.score_tokens(kept)
    assert loaded.identity == StateHead.from_pretrained(tmp_path / "head").identity
    build_head(model, threshold=0.7).save(tmp_path / "other")
    assert loaded.key != StateHead.from_pretrained(tmp_path / "other").key


def test_another_model_is_refused(model, tmp_path):
    head = build_head(model)
    head.check(model)
    head.save(tmp_path / "head")
    for changes, word in (({"hidden_size": 48}, "hidden_size 32"), ({"num_hidden_layers": 3}, "num_layers 2")):
        folder = build_llava(tmp_path / word.replace(" ", "-"), **changes)
        with pytest.raises(InputError) as loaded:
            head.check(load_mllm(folder, device="cpu"))
        with pytest.raises(InputError) as looked_at:
            check_head(str(tmp_path / "head"), identify_checkpoint("other", str(folder)))
        assert all(f"({word}) and does not fit model" in str(error.value) for error in (loaded, looked_at))
    with pytest.raises(InputError, match="was trained on another model"):
        head.check(load_mllm(build_llava(tmp_path / "twin", seed=5), device="cpu"))


def test_the_same_model_in_other_numbers_is_taken(model, tiny_llava):
    head = build_head(model)
    head.check(load_mllm(tiny_llava, device="cpu", dtype="bfloat16"))
    samples = {name: sample + 0.1 * sample.std() * torch.randn_like(sample) for name, sample in head.samples.items()}
    check_samples(model.model, 1, samples, "head")  # as four bits a weight would move it


def test_damaged_heads(model, tmp_path):
    head = build_head(model)

    def damage(name: str, **changes):
        folder = tmp_path / name
        head.save(folder)
        path = folder / "state_head.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return folder

    cases = {
        "layer": ({"layer": 9}, "'layer' is 9"),
        "label": ({"positive_label": "safe"}, "'positive_label' is 'safe', not one of harmful"),
        "unknown": ({"note": 1}, "'note' is unknown"),
        "pooling": ({"pooling": "mean+last"}, "do not fit state_head.json"),
        "threshold": ({"threshold": "high"}, "'threshold' is 'high'"),
        "cascade": ({"cascade": {"detector": "x", "key": "y", "low": 0.5, "high": 0.1}}, "'high' is 0.1"),
    }
    for name, (changes, words) in cases.items():
        with pytest.raises(InputError, match=words):
            StateHead.from_pretrained(damage(name, **changes))
    bare = damage("bare")
    (bare / "head.safetensors").unlink()
    with pytest.raises(InputError, match=r"no head\.safetensors"):
        StateHead.from_pretrained(bare)
    with pytest.raises(InputError, match=r"no state_head\.json"):
        StateHead.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="no finite numbers"):
        StateHead(CONFIG, torch.full((1, 32), math.nan), 0.0)
