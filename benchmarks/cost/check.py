"""Check the formulas against a real model: predict the times of a larger one from those of a smaller one.

Both are Llama models with random weights, made here; what a weight says does not change what it costs. The smaller one
gives what the device reaches, in operations and in bytes a second; the formulas then say how long the larger one takes
to read a prompt, and to write a token. `python -m benchmarks.cost.check` prints predicted and measured times.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cost.model import compute
from benchmarks.reporting.machine import describe_machine


@dataclass(frozen=True)
class Shape:
    """A Llama model's shape."""

    hidden: int
    """Width of the hidden states; heads have 64."""
    layers: int
    """Number of layers."""
    vocabulary: int = 32000
    """Tokens that it knows."""


SMALL, LARGE = Shape(768, 12), Shape(1536, 16)


@dataclass(frozen=True)
class Stages:
    """A model's size and what its two stages take."""

    parameters: int
    """Weights that each token is multiplied with."""
    bytes_per_weight: int
    """Bytes of each."""
    prompt_seconds: float
    """Median for reading the prompt."""
    token_seconds: float
    """Median for writing one token behind it."""


@dataclass(frozen=True)
class Prediction:
    """Predicted against measured, for the larger model."""

    stage: str
    """`prompt` or `token`."""
    predicted: float
    """Seconds that the formulas give."""
    measured: float
    """Seconds that it took."""


def build_model(shape: Shape, device: Any, dtype: Any) -> Any:
    """Make a Llama model with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.hidden * 8 // 3 // 64 * 64,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 64,
        num_key_value_heads=shape.hidden // 64,
        vocab_size=shape.vocabulary,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=dtype)
    return model.eval()


def measure_stages(
    shape: Shape,
    *,
    prompt_tokens: int,
    new_tokens: int,
    repeats: int,
    device: Any = "cpu",
    dtype: Any = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Stages:
    """Time a model's two stages.

    Args:
        shape: Shape of the model.
        prompt_tokens: Tokens that it reads.
        new_tokens: Tokens that it then writes, one at a time.
        repeats: How often both are measured.
        device: Where.
        dtype: Type of the weights; None stands for float32.
        clock: What tells the time, in seconds.
    """
    import torch
    from transformers import DynamicCache

    from llava.model.answering.prompt_cache import CACHE

    model = build_model(shape, device, dtype or torch.float32)
    ids = torch.arange(prompt_tokens, device=device).unsqueeze(0) % shape.vocabulary  # (1, T)
    prompts: list[float] = []
    tokens: list[float] = []
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            cache, written = DynamicCache(), ids
            moments = [clock()]
            for _ in range(new_tokens + 1):
                logits = model(input_ids=written, use_cache=True, logits_to_keep=1, **{CACHE: cache}).logits
                written = logits[:, -1].argmax(-1, keepdim=True)
                written.tolist()  # waits for the device
                moments.append(clock())
            if repeat:  # the first round is slower than others
                prompts.append(moments[1] - moments[0])
                tokens += [end - start for start, end in itertools.pairwise(moments[1:])]
    weights = [p for name, p in model.named_parameters() if "embed_tokens" not in name]
    return Stages(
        sum(p.numel() for p in weights),
        weights[0].element_size(),
        statistics.median(prompts),
        statistics.median(tokens),
    )


def predict(
    small: Stages, large: Stages, shape: Shape, small_shape: Shape, prompt_tokens: int, new_tokens: int
) -> list[Prediction]:
    """Predict the larger model's times from the smaller one's.

    The smaller one's times give the operations and the bytes that the device reaches in a second; the formulas get
    these as peaks, with nothing lost on the way.

    Args:
        small: What the smaller model took.
        large: What the larger one took, for comparison.
        shape: Shape of the larger one.
        small_shape: Shape of the smaller one.
        prompt_tokens: Tokens that both read.
        new_tokens: Tokens that both wrote.
    """
    size = small.bytes_per_weight
    cached = 2 * small_shape.layers * small_shape.hidden * size * (prompt_tokens + new_tokens / 2)
    values = compute(
        parameters=large.parameters / 1e9,
        layers=shape.layers,
        kv_width=shape.hidden,
        bytes_per_weight=size,
        bytes_per_number=size,
        prompt_tokens=prompt_tokens,
        answer_tokens=new_tokens,
        operations=2 * small.parameters * prompt_tokens / small.prompt_seconds / 1e12,
        bandwidth=(small.parameters * size + cached) / small.token_seconds / 1e9,
        compute_efficiency=1.0,
        bandwidth_efficiency=1.0,
    )
    return [
        Prediction("prompt", values["prompt_seconds"], large.prompt_seconds),
        Prediction("token", values["token_seconds"], large.token_seconds),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both models and print predicted against measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost.check", description=__doc__.partition("\n")[0])
    shapes: dict[str, Any] = {"type": int, "nargs": 2, "metavar": ("HIDDEN", "LAYERS")}
    parser.add_argument("--small", **shapes, default=[SMALL.hidden, SMALL.layers], help="shape of the smaller [768 12]")
    parser.add_argument("--large", **shapes, default=[LARGE.hidden, LARGE.layers], help="of the larger [1536 16]")
    parser.add_argument("--prompt-tokens", type=int, default=256, help="tokens that are read [256]")
    parser.add_argument("--new-tokens", type=int, default=8, help="tokens that are written [8]")
    parser.add_argument("--repeats", type=int, default=3, help="how often each stage is measured [3]")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall", help="seconds that count [wall]")
    parser.add_argument("--device", default=None, help="torch device [detected]")
    parser.add_argument("--dtype", default="auto", help="type of the weights [auto]")
    options = parser.parse_args(argv)
    from llava.model.devices import pick_device, pick_dtype

    device = pick_device(options.device)
    small_shape, large_shape = Shape(*options.small), Shape(*options.large)
    lengths = {"prompt_tokens": options.prompt_tokens, "new_tokens": options.new_tokens}
    small, large = (
        measure_stages(
            shape,
            **lengths,
            repeats=options.repeats,
            device=device,
            dtype=pick_dtype(device, options.dtype),
            clock=time.perf_counter if options.clock == "wall" else time.process_time,
        )
        for shape in (small_shape, large_shape)
    )
    print(describe_machine())
    print(f"from {small.parameters / 1e6:,.0f} to {large.parameters / 1e6:,.0f} million parameters:")
    for each in predict(small, large, large_shape, small_shape, **lengths):
        share = each.predicted / each.measured
        print(f"{each.stage}: predicted {each.predicted:.4f} s, measured {each.measured:.4f} s, ratio {share:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
