"""Detoxifier training throughput: our trainer against TRL's SFTTrainer as it comes.

Both train the same adapter on the same base with the same tokenised rows, TRL config, batch size, device and dtype, for
one epoch and with the same loss. Loading is not part of the time. What makes the difference: batches hold rows of
similar length, and the head projects the target's positions alone. Where Triton kernels run TRL leaves the prompt out
too, so that on a GPU the order of the rows is all that remains.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.measurement import Measurement, compare
from benchmarks.training import BATCH_SIZE, LEARNING_RATE, make_pairs
from llava.errors import InputError

GOAL = 1.3
MAX_TARGET_TOKENS = 96


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that set the size of the measurement and the base."""
    parser.add_argument("--rewriting-rows", type=int, default=48, help="rewriting rows in the epoch [48]")
    parser.add_argument("--rewriting-base", default="embedded", help="base language model of both sides [embedded]")
    parser.add_argument("--rewriting-max-length", type=int, default=320, help="longest example in tokens [320]")
    parser.add_argument("--rewriting-repeats", type=int, default=3, help="how often each side is measured [3]")


def measure(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure rows per second."""
    if options.rewriting_rows < BATCH_SIZE:
        raise InputError(f"--rewriting-rows is {options.rewriting_rows}; at least {BATCH_SIZE} make a batch")
    bench = Bench(options.rewriting_base, options.rewriting_rows, options.rewriting_max_length)
    yield compare(
        "detoxifier training against TRL SFTTrainer",
        bench.run_ours,
        bench.run_trl,
        goal=GOAL,
        unit="rows/s",
        repeats=options.rewriting_repeats,
        needs="trl",
    )


class Bench:
    """The two ways to train on the same encoded rows."""

    def __init__(self, base: str, rows: int, max_length: int):
        """Find the base and encode the rows once."""
        from llava.data.training.pairs import DetoxifierRow
        from llava.model.tokenizers import load_tokenizer
        from llava.protector.config import ProtectorConfig
        from llava.train.arguments import ModelArguments
        from llava.train.base import resolve_base
        from llava.train.rows.detoxifier import encode_rewrites

        self.model_arguments = ModelArguments(base=base)
        self.folder, _ = resolve_base(self.model_arguments)
        self.tokenizer = load_tokenizer(self.folder)
        config = ProtectorConfig(kind="detoxifier", max_length=max_length)
        texts = [DetoxifierRow(prompt, harmful, target, "rows") for prompt, target, harmful in make_pairs(rows)]
        self.encoded = encode_rewrites(self.tokenizer, config, texts, min(MAX_TARGET_TOKENS, max_length // 2))

    def build_model(self) -> Any:
        """Return base and adapter, ready to train."""
        from llava.model.quiet import quiet_transformers
        from llava.protector.detoxifier import load_causal_lm
        from llava.train.base import loading_options
        from llava.train.lora import add_adapter

        with quiet_transformers():
            model = load_causal_lm(self.folder, **loading_options(self.model_arguments))
            return add_adapter(model, self.model_arguments, "CAUSAL_LM")

    def train(self, build: Any, repeat: int) -> float:
        """Return the rows per second of a trainer that `build` makes of a model and a run."""
        from llava.train.arguments import RunArguments

        with tempfile.TemporaryDirectory() as folder:
            run = RunArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH_SIZE,
                learning_rate=LEARNING_RATE,
                num_train_epochs=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_steps=1000,
                seed=repeat,
            )
            trainer = build(self.build_model(), run)
            start = time.perf_counter()
            trainer.train()
            return len(self.encoded) / (time.perf_counter() - start)

    def run_ours(self, repeat: int) -> float:
        """Train with our trainer."""
        from llava.train.arguments import DataArguments
        from llava.train.detoxifier_trainer import build_trainer

        def build(model: Any, run: Any) -> Any:
            return build_trainer(model, self.tokenizer, DataArguments(train_data="rows"), run, self.encoded, [])

        return self.train(build, repeat)

    def run_trl(self, repeat: int) -> float:
        """Train with SFTTrainer, with the config that ours gets."""
        from trl import SFTTrainer

        from llava.train.detoxifier_trainer import build_sft_config
        from llava.train.rows.detoxifier import build_dataset

        def build(model: Any, run: Any) -> Any:
            return SFTTrainer(
                model=model,
                args=build_sft_config(run),
                train_dataset=build_dataset(self.encoded),
                processing_class=self.tokenizer,
            )

        return self.train(build, repeat)
