"""The yardstick itself: what it reads, and that widening modules leaves them as they were."""

from __future__ import annotations

import torch
from torch import nn

from llava.model.llava_checkpoints.format import recognise
from llava.model.llava_checkpoints.parity import OriginalLlava, _collapse, single_precision
from llava.model.llava_checkpoints.source import OriginalSource


def test_runs_of_picture_positions_become_one_index():
    assert _collapse([1, 9, 9, 9, 5, 9], 9) == [1, -200, 5, -200]
    assert _collapse([9, 9, 5], 9) == [-200, 5]
    assert _collapse([1, 5, 9], 9) == [1, 5, -200]
    assert _collapse([9, 5, 9], 9) == [-200, 5, -200]


def test_half_precision_modules_compute_in_single_precision():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16)).half()
    before = [parameter.clone() for parameter in model.parameters()]
    x = torch.randn(4, 16)
    with torch.inference_mode(), single_precision(model):
        ours = model(x)
    assert [p.dtype for p in model.parameters()] == [torch.float16] * 4
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with torch.inference_mode():
        torch.testing.assert_close(ours, model.float()(x))


def test_the_picture_takes_the_place_of_its_index(originals):
    model = OriginalLlava(OriginalSource(recognise(originals["v15_bin"])))
    pixels = torch.randn(1, 3, 32, 32)
    assert model.image_features(pixels).shape == (4, 32)
    with_picture = model.logits([1, 5, -200, 7], pixels)
    assert with_picture.shape[0] == 3 + 4
    # What stands before the picture does not see it.
    torch.testing.assert_close(with_picture[:2], model.logits([1, 5], None), atol=1e-5, rtol=1e-5)
    other = model.logits([1, 5, -200, 7], torch.randn(1, 3, 32, 32))
    assert (with_picture[-1] - other[-1]).abs().max() > 1e-3


def test_features_are_those_of_the_last_layer_but_one(originals):
    model = OriginalLlava(OriginalSource(recognise(originals["v1_linear"])))
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        hidden = model.tower(pixels, output_hidden_states=True).hidden_states
        features = model.image_features(pixels)
    assert len(hidden) == 4
    expected = hidden[2][0, 1:] @ model.projector["weight"].T + model.projector["bias"]
    torch.testing.assert_close(features, expected)
