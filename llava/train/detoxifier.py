"""Train a detoxifier: `python -m llava.train.detoxifier --train-data FILE --output-dir DIR`.

On a CPU: `--base embedded --base-dtype bfloat16 --bf16 true --max-length 384`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from llava.data.pairs import DetoxifierRow, load_detoxifier_rows
from llava.data.pairs_sources import parse_mixture
from llava.data.splits import split_rows
from llava.errors import InputError
from llava.files import write_json
from llava.protector.config import ProtectorConfig
from llava.protector.text import encode_detoxifier_prompt
from llava.train.arguments import (
    DataArguments,
    ModelArguments,
    TrainerDefaults,
    option,
    parse_arguments,
    resolved_arguments,
)
from llava.train.common import (
    build_lora_config,
    load_base_tokenizer,
    pick_base_dtype,
    prepare_output,
    resolve_base,
    run_entry_point,
    save_checkpoint,
)
from llava.train.sampling import MixtureSamplerMixin

logger = logging.getLogger(__name__)

IGNORED = -100
"""Label of positions that the loss passes over."""


@dataclass
class DetoxifierArguments:
    """What the detoxifier reads and writes."""

    text_form: str = option("prompt+response", "What the detoxifier reads: prompt+response, or response.")
    max_target_tokens: int = option(256, "Longest target in tokens; a longer one is cut, and then has no end mark.")


@dataclass
class DetoxifierTraining(TrainerDefaults, SFTConfig):
    """The trainer's arguments."""

    max_length: int = option(512, "Longest prompt and target together, in tokens; the response is cut to fit.")


class DetoxifierTrainer(MixtureSamplerMixin, SFTTrainer):
    """TRL's trainer, with our order of examples."""

    def __init__(self, *args: Any, sampling: dict[str, Any], **kwargs: Any):
        """Take the sampler's settings, and the trainer's own arguments."""
        self.sampling = sampling
        super().__init__(*args, **kwargs)


def encode_example(
    tokenizer: Any, config: ProtectorConfig, row: DetoxifierRow, max_target_tokens: int
) -> dict[str, list[int]]:
    """Return token ids and labels of one example: the prompt (ignored by the loss), the target, and eos.

    The prompt is tokenised alone, exactly as when the detoxifier is used, and the target follows it.

    Returns:
        `input_ids` and `labels`, of the same length, at most `config.max_length`.
    """
    target: list[int] = tokenizer(row.target.strip(), add_special_tokens=False, verbose=False)["input_ids"]
    target.append(tokenizer.eos_token_id)
    target = target[:max_target_tokens]
    prompt, _ = encode_detoxifier_prompt(tokenizer, config, row.prompt, row.response, config.max_length - len(target))
    return {"input_ids": prompt + target, "labels": [IGNORED] * len(prompt) + target}


def train(argv: list[str] | None = None) -> None:
    """Train a detoxifier as the command line says."""
    detoxifier, data, model_arguments, training = parse_arguments(
        (DetoxifierArguments, DataArguments, ModelArguments, DetoxifierTraining), argv, "Train a detoxifier."
    )
    if not 1 <= detoxifier.max_target_tokens <= training.max_length // 2:
        raise InputError(
            f"--max-target-tokens is {detoxifier.max_target_tokens}; it must be from 1 to half of --max-length "
            f"({training.max_length // 2}), so that the response finds room"
        )
    config = ProtectorConfig(kind="detoxifier", text_form=detoxifier.text_form, max_length=training.max_length)
    resolved = resolved_arguments(detoxifier, data, model_arguments, training)
    checkpoint = None if data.dry_run else prepare_output(training.output_dir, training.resume)
    train_rows, held_out = load_rows(data)
    folder, base_name = resolve_base(model_arguments)
    tokenizer = load_base_tokenizer(folder)
    encoded = [encode_example(tokenizer, config, row, detoxifier.max_target_tokens) for row in train_rows]
    encoded_held_out = [encode_example(tokenizer, config, row, detoxifier.max_target_tokens) for row in held_out]
    if data.dry_run:
        from llava.train.describe import describe_detoxifier_data

        print(describe_detoxifier_data(train_rows, encoded, encoded_held_out))
        return
    torch.manual_seed(training.seed)
    model = build_model(folder, model_arguments)
    trainer = build_trainer(model, tokenizer, data, training, train_rows, encoded, encoded_held_out)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    config = ProtectorConfig(**{**config.__dict__, "base_model": base_name if model_arguments.lora else None})
    save_checkpoint(trainer, training.output_dir, config, resolved, base_name)
    if encoded_held_out:
        write_evaluation(trainer, len(held_out), training.output_dir)


def load_rows(data: DataArguments) -> tuple[list[DetoxifierRow], list[DetoxifierRow]]:
    """Return training and held-out rows."""
    rows = load_detoxifier_rows(parse_mixture(data.train_data))
    if data.eval_data:
        train_rows, held_out = rows, load_detoxifier_rows(parse_mixture(data.eval_data, "--eval-data"), "test")
    else:
        train_rows, held_out = split_rows(rows, data.split_seed, data.held_out_fraction)
    train_rows = train_rows[: data.max_rows]
    if not train_rows:
        raise InputError(f"--train-data {data.train_data} leaves no training row; lower --held-out-fraction")
    return train_rows, held_out


def build_model(folder: str, arguments: ModelArguments) -> torch.nn.Module:
    """Return the causal LM to train, with an adapter unless all weights are trained."""
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=pick_base_dtype(arguments), attn_implementation=arguments.attn_implementation
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"base model {folder} cannot be loaded ({str(error).splitlines()[0]})") from None
    if not arguments.lora:
        return model
    from peft import get_peft_model

    return get_peft_model(model, build_lora_config(model, arguments, "CAUSAL_LM", head=None))


def build_trainer(
    model: torch.nn.Module,
    tokenizer: Any,
    data: DataArguments,
    training: DetoxifierTraining,
    rows: Sequence[DetoxifierRow],
    encoded: Sequence[dict[str, list[int]]],
    held_out: Sequence[dict[str, list[int]]],
) -> DetoxifierTrainer:
    """Return the trainer for encoded examples."""
    from datasets import Dataset

    training.max_length = None  # examples are cut already, at the response
    training.dataset_kwargs = {"skip_prepare_dataset": True}
    training._n_gpu = min(1, training.n_gpu)  # several GPUs want a launcher, one process each
    trainer = DetoxifierTrainer(
        model=model,
        args=training,
        train_dataset=Dataset.from_list(list(encoded)),
        eval_dataset=Dataset.from_list(list(held_out)) if held_out else None,
        processing_class=tokenizer,
        sampling={
            "lengths": [len(example["input_ids"]) for example in encoded],
            "sources": [row.source for row in rows],
            "shares": {part.name: part.share for part in parse_mixture(data.train_data)},
        },
    )
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    logger.info("training on %d rows, evaluating on %d; %d trainable parameters", len(rows), len(held_out), trainable)
    return trainer


def write_evaluation(trainer: DetoxifierTrainer, rows: int, folder: str) -> None:
    """Write loss, perplexity and token accuracy on the held-out rows to `metrics.json`."""
    trainer.args.prediction_loss_only = True
    values = trainer.evaluate()
    if not trainer.is_world_process_zero():
        return
    metrics = {
        "n": rows,
        "loss": values["eval_loss"],
        "perplexity": math.exp(values["eval_loss"]),
        "token_accuracy": values.get("eval_mean_token_accuracy"),
    }
    write_json(Path(folder) / "metrics.json", metrics)
    logger.info("held-out: %s", metrics)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_entry_point(train, argv)


if __name__ == "__main__":
    raise SystemExit(main())
