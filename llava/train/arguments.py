"""Command line of the training entry points: dataclasses, with a YAML file as defaults."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import importlib.util
import logging
import os
import sys
from dataclasses import dataclass, field
from typing import Any, NoReturn, Optional

import torch
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool

from llava.data.training.splits import HELD_OUT_FRACTION, SPLIT_SEED
from llava.errors import InputError, first_line
from llava.model.devices import DTYPE_NAMES, pick_device, pick_dtype
from llava.options import read_options, to_word

RESOLVED_NAME = "train_config.yaml"
"""File beside a checkpoint with the arguments it was trained with; usable as `--config`."""

logger = logging.getLogger(__name__)

NEAR_DUPLICATES = 0.9
"""Jaccard similarity of word triples from which rows count as the same, unless told otherwise."""

PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml"}
"""Trackers whose package on PyPI has another name."""

NESTED = (
    *("lr_scheduler_kwargs", "gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
    *("liger_kernel_config", "accelerator_config", "fsdp_config", "deepspeed"),
)
"""Settings of the Trainer that may hold a mapping."""

DETECTED = ("use_cpu", "ddp_find_unused_parameters")
"""Settings of the Trainer that we set by the machine; they are not recorded."""


def option(default: Any, help_text: str, **more: Any) -> Any:
    """Return a dataclass field with its help text."""
    return field(default=default, metadata={"help": help_text, **more})


@dataclass
class DataArguments:
    """What is trained on."""

    train_data: str = option(
        "",
        "SOURCE[:SHARE],…: files (.jsonl .json .parquet), folders or hub ids; SHARE is how often an epoch sees a row.",
    )
    eval_data: Optional[str] = option(  # noqa: UP045 - HfArgumentParser on Python 3.10
        None, "Rows to evaluate on, like --train-data. Without it, a part of the training data is held out by prompt."
    )
    held_out_fraction: float = option(HELD_OUT_FRACTION, "Share of prompts held out when there is no --eval-data.")
    split_seed: int = option(SPLIT_SEED, "Seed of that split.")
    near_duplicates: Optional[float] = option(  # noqa: UP045
        None,
        "Drop training rows whose word triples overlap this much (Jaccard) with another or a held-out one; 0 drops "
        "equal rows only. By default 0.9 where datasketch is installed, else 0.",
    )
    max_rows: Optional[int] = option(None, "Use at most this many training rows (the first ones); for trials.")  # noqa: UP045
    dry_run: bool = option(False, "Print what the data looks like and stop.")

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.train_data:
            raise InputError("--train-data is missing; give a file, a folder or a hub id")
        if not 0 <= self.held_out_fraction < 1:
            raise InputError(f"--held-out-fraction is {self.held_out_fraction}; it must be in [0, 1)")
        if self.near_duplicates is None:
            # Settled here, so that train_config.yaml says what was done.
            installed = importlib.util.find_spec("datasketch") is not None
            self.near_duplicates = NEAR_DUPLICATES if installed else 0.0
            if not installed:
                logger.warning("near duplicates are kept: datasketch is not installed (pip install datasketch)")
        if not 0 <= self.near_duplicates <= 1:
            raise InputError(f"--near-duplicates is {self.near_duplicates}; it must be in [0, 1]")


@dataclass
class ModelArguments:
    """What is trained."""

    base: str = option("embedded", "Base language model: folder, hub id, or `embedded`.")
    base_name: Optional[str] = option(None, "Name of the base to record in the checkpoint instead of the path.")  # noqa: UP045
    base_dtype: str = option(
        "auto",
        "Type of the frozen base's weights: auto, float32, bfloat16 or float16. What is trained stays float32.",
    )
    attn_implementation: Optional[str] = option(  # noqa: UP045
        None, "Attention kernel: sdpa, eager, flash_attention_2. On a CPU in bfloat16 eager trains faster than sdpa."
    )
    load_in_4bit: bool = option(False, "QLoRA: hold the frozen base in 4 bits (needs bitsandbytes).")
    lora: bool = option(True, "Train a LoRA adapter; --no-lora trains all weights.")
    init_adapter: Optional[str] = option(  # noqa: UP045
        None, "Go on from this adapter, a folder or a hub id; rank, scale and targets are its own."
    )
    lora_r: int = option(16, "Rank of the adapter.")
    lora_alpha: int = option(32, "Scale of the adapter; its product is multiplied by alpha / r.")
    lora_dropout: float = option(0.05, "Dropout in front of the adapter.")
    lora_target_modules: str = option("all-linear", "`all-linear`, or names separated by commas (q_proj,v_proj).")
    lora_layers_from: int = option(
        0, "Adapt this layer and those above it only; the backward pass stops there, which is what a CPU wants."
    )

    def __post_init__(self) -> None:
        """Check the values."""
        if self.base_dtype not in DTYPE_NAMES:
            raise InputError(f"--base-dtype is {self.base_dtype}; choose one of {', '.join(DTYPE_NAMES)}")
        if self.load_in_4bit and not self.lora:
            raise InputError("--load-in-4bit freezes the base and goes with an adapter only; leave out --no-lora")
        if self.init_adapter and not self.lora:
            raise InputError("--init-adapter goes on with an adapter; leave out --no-lora")
        if self.lora_r < 1 or not 0 <= self.lora_dropout < 1 or self.lora_layers_from < 0:
            raise InputError("--lora-r must be 1 or more, --lora-dropout in [0, 1), --lora-layers-from 0 or more")

    @property
    def frozen_base(self) -> bool:
        """Whether the base's weights stay as they are."""
        return self.lora


@dataclass
class RunArguments(TrainingArguments):
    """How the training runs: the Trainer's own arguments, some with defaults of ours."""

    output_dir: str = option("", "Folder for the checkpoint.")
    learning_rate: float = option(2e-4, "Peak learning rate.")
    num_train_epochs: float = option(3.0, "Epochs.")
    per_device_train_batch_size: int = option(8, "Examples a process and forward pass.")
    per_device_eval_batch_size: int = option(16, "The same in evaluation.")
    lr_scheduler_type: str = option("linear", "Learning-rate schedule.")
    warmup_steps: float = option(0.03, "Warm-up: a number of steps, or below 1 a share of all.")
    weight_decay: float = option(0.0, "Weight decay.")
    logging_steps: float = option(10, "Steps between log lines.")
    save_strategy: str = option("epoch", "When to write a checkpoint: epoch, steps or no.")
    save_total_limit: Optional[int] = option(2, "Checkpoints to keep.")  # noqa: UP045
    eval_strategy: str = option("no", "When to evaluate during training: no, epoch or steps. The end always counts.")
    report_to: Optional[str] = option(  # noqa: UP045
        None, "Where to log: none, tensorboard, wandb, …; by default TensorBoard, where it is installed."
    )
    seed: int = option(0, "Seed of weights, dropout and order.")
    bf16: Optional[bool] = option(None, "Compute in bfloat16; by default where an accelerator supports it.")  # noqa: UP045
    fp16: Optional[bool] = option(  # noqa: UP045
        None, "Compute in float16, with a scaled loss; by default on a CUDA device without bfloat16."
    )
    gradient_checkpointing: Optional[bool] = option(None, "Recompute activations in the backward pass to save memory.")  # noqa: UP045
    dataloader_num_workers: int = option(0, "Extra processes that make batches.")
    remove_unused_columns: bool = option(False, "Kept for the Trainer; our batches have no unused columns.")
    resume: bool = option(False, "Go on from the newest complete checkpoint in --output-dir.")

    def __post_init__(self) -> None:
        """Fit the values to this machine, then let the Trainer check its own."""
        place = torch.device("cpu") if getattr(self, "use_cpu", False) else pick_device()
        if place.type == "cpu":
            self.use_cpu = True
        check_processes(place)
        if self.report_to is None:
            self.report_to = "tensorboard" if importlib.util.find_spec("tensorboard") else "none"
        check_trackers(self.report_to)
        if getattr(self, "ddp_find_unused_parameters", None) is None:
            self.ddp_find_unused_parameters: Optional[bool] = False  # noqa: UP045 - every weight is part of the loss
        dtype = pick_dtype(place)
        if self.fp16 is None:
            # Scaled losses are for CUDA alone, and --bf16 false without more asks for single precision.
            self.fp16 = self.bf16 is None and place.type == "cuda" and dtype is torch.float16
        if self.bf16 is None:
            self.bf16 = not self.fp16 and dtype is torch.bfloat16
        try:
            super().__post_init__()
        except ValueError as error:
            raise InputError(f"training arguments: {first_line(error)}") from None
        if self.deepspeed and self.use_cpu:
            # On a CPU nobody does this before ZeRO-3 asks how many processes there are.
            import deepspeed

            deepspeed.init_distributed()
        # One process would split a batch over several GPUs (nn.DataParallel), which our batches do not allow; several
        # GPUs want a launcher and one process each.
        self._n_gpu = min(1, self.n_gpu)


def check_processes(place: torch.device) -> None:
    """Refuse a process beyond the machine's devices, for which torch only has an invalid device number.

    Args:
        place: Where the processes run; a CPU takes any number of them.

    Raises:
        InputError: When a launcher started more processes on this machine than it has accelerators.
    """
    rank, devices = int(os.environ.get("LOCAL_RANK", "0")), max(1, torch.accelerator.device_count())
    if place.type != "cpu" and rank >= devices:
        raise InputError(
            f"process {rank + 1} on this machine has no {place.type} device of its own; start {devices} here, or add "
            "--use-cpu true"
        )


def check_trackers(names: str | list[str]) -> None:
    """Check `--report-to` before a model is loaded: the Trainer itself would ask for the library long afterwards.

    Raises:
        InputError: When a name is unknown, or its library is not installed.
    """
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    for name in [names] if isinstance(names, str) else names:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(["none", "all", *sorted(INTEGRATION_TO_CALLBACK)])
            raise InputError(f"--report-to is {name}; choose one of {known}")
        if name not in get_available_reporting_integrations():
            raise InputError(
                f"--report-to {name} needs its library; install it: pip install {PACKAGES.get(name, name)}"
            )


class FlagParser(HfArgumentParser):
    """A parser that reports bad flags in one line, without two pages of usage."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and leaving."""
        raise InputError(f"{message}; --help lists all flags")


def parse_arguments(classes: tuple[type, ...], argv: list[str] | None, description: str) -> tuple[Any, ...]:
    """Read the command line into one object a class.

    Precedence: defaults < `--config FILE.yaml` < flags. Keys of the file are the flags' names, with `-` or `_`.

    Args:
        classes: Dataclasses; their fields are the flags.
        argv: Arguments without the program name; None takes the process's.
        description: Shown by `--help`.

    Raises:
        InputError: When a flag is unknown or has a bad value, the file is missing or corrupt, or it has a key that is
            no flag.
        SystemExit: For `--help`.
    """
    argv = sys.argv[1:] if argv is None else argv
    # A parser of its own: the file's values must be known before the others are parsed.
    config_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    config_parser.add_argument("--config")
    known, flags = config_parser.parse_known_args(argv)
    parser = FlagParser(classes, description=description, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE.yaml", help="Defaults for all other flags.")
    if known.config:
        where = f"--config {known.config}"
        actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
        values = read_options(known.config, nested=NESTED)
        for key, value in values.items():
            if key not in actions:
                raise InputError(f"{where}: unknown key {key}; keys are the flags of --help")
            kind = actions[key].type
            if kind in (int, float, str, string_to_bool) and not isinstance(value, list | dict):
                values[key] = to_word(value, f"{where}: '{key}'", is_switch=kind is string_to_bool)
        parser.set_defaults(**values)
    *parsed, _, unknown = parser.parse_args_into_dataclasses(
        flags, look_for_args_file=False, return_remaining_strings=True
    )
    if unknown:
        near = difflib.get_close_matches(unknown[0], parser._option_string_actions, n=1)
        parser.error(f"unknown flag {unknown[0]}" + (f" (did you mean {near[0]}?)" if near else ""))
    return tuple(parsed)


def resolved_arguments(*groups: Any) -> dict[str, Any]:
    """Return the values in force, as `--config` takes them: ours in full, the Trainer's where not at its default."""
    values: dict[str, Any] = {}
    own = set(RunArguments.__annotations__)
    for group in groups:
        is_trainer = isinstance(group, RunArguments)
        for entry in dataclasses.fields(group):
            if not entry.init or not hasattr(group, entry.name):
                continue
            value = getattr(group, entry.name)
            if is_trainer and entry.name not in own and (value == entry.default or entry.name in DETECTED):
                continue
            value = getattr(value, "value", value)  # enums
            if isinstance(value, (str, int, float, bool, list)) or value is None:
                values[entry.name] = value
    return values
