"""What guarding costs on an accelerator, in a few minutes: `python -m benchmarks.device --output FILE.json`.

Nothing is downloaded: a Llama model of a size that the device has room for gets random weights in bfloat16, and a
detector of the same size stands beside it. What a weight says does not change what it costs. Every figure is measured
with both sides in turn; when the time is up, what is left is not begun.

`--device cpu` does the same with a tiny model, to see that it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cost.check import Shape, build_model, measure_stages, predict
from benchmarks.measurement import Measurement, compare
from benchmarks.reporting.machine import describe_machine
from benchmarks.reporting.report import render_line, render_markdown
from llava.files import write_json, write_text_atomic
from llava.places import check_output_file
from llava.process import report_errors

SECONDS = 480.0
"""Time for all of it."""
SHAPES = (
    (40.0, Shape(4096, 32)),
    (16.0, Shape(2560, 24)),
    (6.0, Shape(1536, 16)),
    (0.0, Shape(768, 12)),
)
"""The least GiB of memory, and the shape of the model that is measured there; the largest is a 7B model."""
TINY = Shape(128, 2, vocabulary=512)
"""The model on a CPU."""
CHECK_EVERY = 64
"""Tokens from one check of a growing answer to the next, as the guard of a stream does it."""


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    shape: Shape
    """Shape of the model and of the detector."""
    batch: int
    """Answers of a batch."""
    length: int
    """Tokens of an answer that is scored."""
    new_tokens: int
    """Tokens of an answer that is written."""


def choose_sizes(device: Any) -> Sizes:
    """Return the sizes for a device: a quarter of its memory for each of both models, at most a 7B model."""
    import torch

    if device.type == "cpu":
        return Sizes(TINY, batch=4, length=48, new_tokens=24)
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30 if device.type == "cuda" else 8.0
    shape = next(shape for least, shape in SHAPES if memory >= least)
    return Sizes(shape, batch=16, length=256, new_tokens=192)


def wait_for(device: Any) -> None:
    """Wait until the device has done what it was given."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Bench:
    """A model that writes and a detector of its size, on one device."""

    def __init__(self, device: Any, dtype: Any, sizes: Sizes):
        """Make both."""
        import torch
        from transformers import LlamaForSequenceClassification

        from llava.protector.classifier import HarmClassifier

        self.device, self.sizes = device, sizes
        self.model = build_model(sizes.shape, device, dtype)
        with torch.device(device):
            config = self.model.config.__class__(**{**self.model.config.to_dict(), "num_labels": 1})
            network = LlamaForSequenceClassification._from_config(config, dtype=dtype)
        self.detector = HarmClassifier(network.eval(), "mean_response")
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(sizes.shape.vocabulary, (sizes.batch, sizes.length), generator=generator)
        self.ids = ids.to(device)  # (B, T)

    def timed(self, work: Callable[[], Any]) -> float:
        """Return the seconds that something takes on the device."""
        import torch

        wait_for(self.device)
        start = time.perf_counter()
        with torch.inference_mode():
            work()
        wait_for(self.device)
        return time.perf_counter() - start

    def score_batch(self, repeat: int) -> float:
        """Score a batch at once; answers a second."""
        return len(self.ids) / self.timed(lambda: self.detector(self.ids).logits.tolist())

    def score_one_by_one(self, repeat: int) -> float:
        """Score it one answer after another."""

        def work() -> None:
            for row in self.ids:
                self.detector(row.unsqueeze(0)).logits.tolist()

        return len(self.ids) / self.timed(work)

    def write_alone(self, repeat: int) -> float:
        """Write an answer; tokens a second."""
        return self.sizes.new_tokens / self.timed(lambda: self.write(guarded=False))

    def write_guarded(self, repeat: int) -> float:
        """Write an answer that the detector follows, each token read once."""
        return self.sizes.new_tokens / self.timed(lambda: self.write(guarded=True))

    def write(self, *, guarded: bool) -> None:
        """Write an answer greedily at batch 1; the detector reads what is new every so many tokens, and at the end."""
        import torch
        from transformers import DynamicCache

        from llava.model.answering.prompt_cache import CACHE

        cache, read = DynamicCache(), DynamicCache()
        ids, unread = self.ids[:1], [self.ids[:1]]
        for number in range(1, self.sizes.new_tokens + 1):
            logits = self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **{CACHE: cache}).logits
            ids = logits[:, -1].argmax(-1, keepdim=True)
            ids.tolist()  # whoever shows the text needs the token
            unread.append(ids)
            if guarded and (number % CHECK_EVERY == 0 or number == self.sizes.new_tokens):
                self.detector.score_more_tokens(torch.cat(unread, dim=1), read).tolist()
                unread = []

    def score_with(self, attention: str) -> Callable[[int], float]:
        """Return what scores a batch with another attention kernel."""

        def score(repeat: int) -> float:
            self.detector.backbone.set_attn_implementation(attention)
            try:
                self.detector(self.ids[:1])  # the first pass is slower than others
                return self.score_batch(repeat)
            finally:
                self.detector.backbone.set_attn_implementation("sdpa")

        return score


def measure(device: Any, dtype: Any, sizes: Sizes, repeats: int, seconds: float) -> Iterator[Measurement]:
    """Measure one thing after another until the time is up.

    Args:
        device: Where.
        dtype: Type of the weights.
        sizes: What is measured.
        repeats: How often each side is measured.
        seconds: Time from now after which nothing is begun.
    """
    end = time.monotonic() + seconds
    # The models of a stage are gone before the next makes its own.
    for stage in (measure_pair, measure_formulas):
        rows = stage(device, dtype, sizes, repeats)
        while time.monotonic() < end:
            row = next(rows, None)
            if row is None:
                break
            yield row
        else:
            print("the time is up; the rest is left out", file=sys.stderr)
            return


def measure_pair(device: Any, dtype: Any, sizes: Sizes, repeats: int) -> Iterator[Measurement]:
    """Measure the model and the detector beside it."""
    bench = Bench(device, dtype, sizes)
    bench.score_batch(0)
    bench.write_guarded(0)
    size = f"{sum(p.numel() for p in bench.model.parameters()) / 1e9:.2f} billion parameters, {str(dtype)[6:]}"
    scoring: dict[str, Any] = {
        "unit": "answers/s",
        "repeats": repeats,
        "goal": 1.0,
        "note": f"{size}, batch {sizes.batch}, {sizes.length} tokens",
    }
    yield compare(
        "answers scored in a batch against one after another", bench.score_batch, bench.score_one_by_one, **scoring
    )
    yield compare(
        "writing with a guard of the model's size against writing alone",
        bench.write_guarded,
        bench.write_alone,
        goal=0.85,
        unit="tokens/s",
        repeats=repeats,
        note=size,
    )
    yield compare("scoring with SDPA against eager attention", bench.score_batch, bench.score_with("eager"), **scoring)
    if device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None:
        flash = bench.score_with("flash_attention_2")
        yield compare("scoring with flash attention against SDPA", flash, bench.score_batch, **scoring)


def measure_formulas(device: Any, dtype: Any, sizes: Sizes, repeats: int) -> Iterator[Measurement]:
    """Hold what `benchmarks/cost/model.py` says of the model against what it takes, from one of half its width."""
    small_shape = Shape(sizes.shape.hidden // 2, sizes.shape.layers, sizes.shape.vocabulary)
    lengths: dict[str, Any] = {"prompt_tokens": sizes.length, "new_tokens": 8}
    small, large = (
        measure_stages(shape, **lengths, repeats=repeats, device=device, dtype=dtype)
        for shape in (small_shape, sizes.shape)
    )
    for each in predict(small, large, sizes.shape, small_shape, **lengths):
        yield Measurement(
            f"time for a {each.stage}: predicted by the formulas of docs/cost.md against measured",
            each.predicted,
            each.measured,
            goal=0.0,
            unit="s",
            repeats=repeats,
        )


def main(argv: list[str] | None = None) -> int:
    """Measure and write a list of `{name, ours, baseline, ratio, goal, holds, unit, repeats}`.

    Returns:
        Exit code: 0 when it was measured, 2 on bad input, such as a device that is not there.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--markdown", type=Path, help="also write the table as Markdown")
    parser.add_argument("--device", help="torch device [the accelerator]")
    parser.add_argument("--repeats", type=int, default=3, help="how often each side is measured [3]")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after these nothing new is begun [480]")
    options = parser.parse_args(argv)

    def run() -> None:
        import torch

        from llava.errors import InputError
        from llava.model.devices import pick_device

        for path in filter(None, (options.output, options.markdown)):
            check_output_file(path)
        device = pick_device(options.device)
        if device.type == "cpu" and options.device is None:
            raise InputError("this machine has no accelerator; give --device cpu for a tiny run")
        rows = []
        sizes = choose_sizes(device)
        for row in measure(device, torch.bfloat16, sizes, max(1, options.repeats), options.seconds):
            print(render_line(row), flush=True)
            rows.append(row)
            write_json(options.output, [each.to_dict() for each in rows])  # what is measured is kept
        if options.markdown:
            write_text_atomic(options.markdown, render_markdown(rows, describe_machine(), {}))

    return report_errors(run)


if __name__ == "__main__":
    sys.exit(main())
