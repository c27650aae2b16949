"""Networks whose weights stay on disk compute what they compute with them in memory, and hold one layer at a time."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from llava.errors import InputError
from llava.model.llava_checkpoints.layers import SLICE, WeightFiles, build_empty, stream_weights


class Network(nn.Module):
    """One layer of each kind: an embedding, a plain one, one with weights of its own, and a wide output layer."""

    places: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(16))
        self.embed = nn.Embedding(50, 16)
        self.inner = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.LayerNorm(16))
        self.wide = nn.Linear(16, SLICE + 9)
        self.register_buffer("places", torch.arange(3.0), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (B, T, V)."""
        return self.wide(self.inner(self.embed(ids) * self.scale)) + self.places.sum()


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network().to(torch.bfloat16).eval()


@pytest.fixture
def streamed(network, tmp_path) -> nn.Module:
    weights = network.state_dict()
    half = len(weights) // 2
    for number, keys in enumerate((list(weights)[:half], list(weights)[half:])):
        save_file({f"x.{key}": weights[key] for key in keys}, tmp_path / f"{number}.safetensors")
    files = WeightFiles(sorted(tmp_path.glob("*")), lambda key: key.removeprefix("x."))
    empty = build_empty(Network)
    stream_weights(empty, files.read)
    return empty


def test_it_computes_in_single_precision(network, streamed):
    ids = torch.tensor([[3, 1, 49]])
    with torch.inference_mode():
        torch.testing.assert_close(streamed(ids), network.float()(ids))


def test_nothing_stays_in_memory(streamed):
    with torch.inference_mode():
        streamed(torch.tensor([[3]]))
    assert {parameter.device.type for parameter in streamed.parameters()} == {"meta"}


def test_a_weight_that_is_not_there_is_named(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    files = WeightFiles([tmp_path / "model.safetensors"])
    assert "a" in files
    with pytest.raises(InputError, match=r"lacks the weight b; it is incomplete"):
        files.read("b")


def test_a_weight_of_another_shape_is_named(tmp_path):
    save_file({"weight": torch.zeros(3, 3)}, tmp_path / "model.safetensors")
    layer = build_empty(lambda: nn.Linear(2, 2, bias=False))
    stream_weights(layer, WeightFiles([tmp_path / "model.safetensors"]).read)
    with pytest.raises(InputError, match=r"weight weight is \(3, 3\) on disk, \(2, 2\) by config.json"):
        layer(torch.zeros(1, 2))
