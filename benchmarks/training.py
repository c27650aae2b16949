"""Detector training throughput: our trainer against a plain two-forward loop, and against TRL's RewardTrainer.

All sides train the same adapter on the same base with the same pairs, batch size, optimiser, device and dtype, for one
epoch. Loading is not part of the time. Ours computes the classification loss as well as the ranking loss, the baselines
the ranking loss alone; what makes the difference is padding (batches of similar length) and one forward pass a batch.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measurement import Measurement, compare
from llava.errors import InputError

LOOP_GOAL = 1.3
TRL_GOAL = 1.3
BATCH_SIZE = 8
LEARNING_RATE = 1e-4
WORDS = [
    "the",
    "bread",
    "water",
    "flour",
    "slowly",
    "garden",
    "river",
    "because",
    "before",
    "without",
    "every",
    "quiet",
]


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that set the size of the measurement and the base."""
    parser.add_argument("--training-pairs", type=int, default=64, help="preference pairs in the epoch [64]")
    parser.add_argument("--training-base", default="embedded", help="base language model of all sides [embedded]")
    parser.add_argument("--training-max-length", type=int, default=256, help="longest input in tokens [256]")
    parser.add_argument("--training-repeats", type=int, default=3, help="how often each side is measured [3]")


def measure(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure pairs per second."""
    if options.training_pairs < BATCH_SIZE:
        raise InputError(f"--training-pairs is {options.training_pairs}; at least {BATCH_SIZE} make a batch")
    bench = Bench(options.training_base, options.training_pairs, options.training_max_length)
    baselines: list[tuple[str, Callable[[int], float], float]] = [
        ("detector training against a two-forward loop", bench.run_loop, LOOP_GOAL),
        ("detector training against TRL RewardTrainer", bench.run_trl, TRL_GOAL),
    ]
    for name, baseline, goal in baselines:
        needs = "trl" if baseline == bench.run_trl else None
        yield compare(
            name,
            bench.run_ours,
            baseline,
            goal=goal,
            unit="pairs/s",
            repeats=options.training_repeats,
            needs=needs,
        )


def make_pairs(count: int) -> list[tuple[str, str, str]]:
    """Return (prompt, chosen, rejected) texts whose lengths are as uneven as those of real answers.

    Lengths are log-normal: the median is 30 words, one in twenty has more than 150. That is the spread of hh-rlhf's
    harmless pairs.
    """
    generator = random.Random(0)

    def text(median: int) -> str:
        return " ".join(generator.choices(WORDS, k=max(3, int(generator.lognormvariate(0, 1) * median))))

    return [(text(12), text(30), text(30)) for _ in range(count)]


class Bench:
    """The three ways to train on the same encoded pairs."""

    def __init__(self, base: str, pairs: int, max_length: int):
        """Find the base and encode the pairs once."""
        from llava.data.training.pairs import DetectorRow
        from llava.model.tokenizers import load_tokenizer
        from llava.protector.config import ProtectorConfig
        from llava.train.arguments import ModelArguments
        from llava.train.base import resolve_base
        from llava.train.rows.detector import encode_rows, form_units

        self.model_arguments = ModelArguments(base=base)
        self.folder, _ = resolve_base(self.model_arguments)
        self.tokenizer = load_tokenizer(self.folder)
        self.config = ProtectorConfig(kind="detector", positive_label="harmful", max_length=max_length)
        rows = []
        for number, (prompt, chosen, rejected) in enumerate(make_pairs(pairs)):
            rows.append(DetectorRow(prompt, chosen, False, "pairs", pair_id=str(number), chosen=True))
            rows.append(DetectorRow(prompt, rejected, True, "pairs", pair_id=str(number), chosen=False))
        self.encoded = encode_rows(self.tokenizer, self.config, rows)
        self.units = form_units(self.encoded, pairs=True)

    def build_network(self) -> Any:
        """Return base, adapter and head, ready to train."""
        from llava.model.quiet import quiet_transformers
        from llava.train.harm_detector import build_model

        with quiet_transformers():
            return build_model(self.folder, self.model_arguments, self.config)

    def trainer_options(self, folder: str) -> dict[str, Any]:
        """Return the Trainer's arguments that both Trainers get."""
        return {
            "output_dir": folder,
            "per_device_train_batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
            "num_train_epochs": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "logging_steps": 1000,
        }

    def timed(self, train: Callable[[], Any]) -> float:
        """Return the pairs per second of a training run."""
        start = time.perf_counter()
        train()
        return len(self.units) / (time.perf_counter() - start)

    def run_ours(self, repeat: int) -> float:
        """Train with our trainer."""
        from llava.train.arguments import DataArguments, RunArguments
        from llava.train.harm_detector import DetectorArguments, build_trainer

        detector = DetectorArguments(loss="bce+pairwise", max_length=self.config.max_length)
        with tempfile.TemporaryDirectory() as folder:
            run = RunArguments(**self.trainer_options(folder), seed=repeat)
            trainer = build_trainer(
                self.build_network(),
                self.tokenizer.pad_token_id,
                detector,
                DataArguments(train_data="pairs"),
                run,
                self.encoded,
                [],
            )
            return self.timed(trainer.train)

    def run_loop(self, repeat: int) -> float:
        """Train with the loop that reward-model scripts write: shuffle, pad, chosen forward, rejected forward, step."""
        import torch

        from llava.model.devices import pick_device, pick_dtype
        from llava.train.losses import pairwise_loss

        device = pick_device()
        dtype = pick_dtype(device)
        network = self.build_network().to(device).train()
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
        order = random.Random(repeat).sample(range(len(self.units)), len(self.units))

        def train() -> None:
            for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
                batch = [self.units[i] for i in order[start : start + BATCH_SIZE]]
                with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
                    chosen, rejected = (
                        network(**self.pad([unit[side].windows[0].ids for unit in batch], device)).logits[:, 0]
                        for side in (0, 1)
                    )
                    loss = pairwise_loss(chosen, rejected).mean()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                optimizer.zero_grad()

        return self.timed(train)

    def pad(self, rows: list[list[int]], device: Any) -> dict[str, Any]:
        """Return padded token ids and their mask."""
        encoding = self.tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        return {"input_ids": encoding["input_ids"].to(device), "attention_mask": encoding["attention_mask"].to(device)}

    def run_trl(self, repeat: int) -> float:
        """Train with TRL's RewardTrainer, on the same token ids."""
        from datasets import Dataset
        from trl import RewardConfig, RewardTrainer

        from llava.model.quiet import quiet_transformers
        from llava.protector.classifier import load_sequence_classifier
        from llava.train.arguments import RunArguments
        from llava.train.base import loading_options
        from llava.train.lora import build_lora_config

        with quiet_transformers(), tempfile.TemporaryDirectory() as folder:
            classifier = load_sequence_classifier(self.folder, **loading_options(self.model_arguments))
            classifier.config.pad_token_id = self.tokenizer.pad_token_id
            lora = build_lora_config(classifier, self.model_arguments, "SEQ_CLS", "score")
            ours = RunArguments(**self.trainer_options(folder))
            config = RewardConfig(
                **self.trainer_options(folder),
                seed=repeat,
                max_length=self.config.max_length,
                gradient_checkpointing=False,
                disable_dropout=False,
                use_cpu=ours.use_cpu,
                bf16=bool(ours.bf16),
            )
            rows = [
                {"chosen_ids": unit[0].windows[0].ids, "rejected_ids": unit[1].windows[0].ids} for unit in self.units
            ]
            trainer = RewardTrainer(
                model=classifier,
                args=config,
                train_dataset=Dataset.from_list(rows),
                processing_class=self.tokenizer,
                peft_config=lora,
            )
            return self.timed(trainer.train)
