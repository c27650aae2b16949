"""Train a detoxifier: `python -m llava.train.detoxifier --train-data FILE --output-dir DIR`.

On a CPU: `--base embedded --base-dtype bfloat16 --bf16 true --max-length 384`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812
from transformers import Trainer

from llava.data.pairs import load_detoxifier_rows
from llava.data.pairs_sources import parse_mixture
from llava.errors import InputError
from llava.files import write_json
from llava.model.quiet import quiet_transformers
from llava.protector.config import ProtectorConfig
from llava.protector.detoxifier import load_causal_lm
from llava.train.arguments import (
    DataArguments,
    ModelArguments,
    RunArguments,
    option,
    parse_arguments,
    resolved_arguments,
)
from llava.train.common import (
    add_adapter,
    load_base_tokenizer,
    load_split,
    loading_options,
    prepare_output,
    resolve_base,
    run_entry_point,
    save_checkpoint,
)
from llava.train.detoxifier_data import IGNORED, DetoxifierCollator, EncodedRewrite, encode_rewrites
from llava.train.sampling import MixtureSamplerMixin

logger = logging.getLogger(__name__)


@dataclass
class DetoxifierArguments:
    """What the detoxifier reads and writes."""

    text_form: str = option("prompt+response", "What the detoxifier reads: prompt+response, or response.")
    max_length: int = option(512, "Longest prompt and target together, in tokens; the response is cut to fit.")
    max_target_tokens: int = option(256, "Longest target in tokens; a longer one is cut, and then has no end mark.")

    def __post_init__(self) -> None:
        """Check that prompt and target both find room."""
        if not 1 <= self.max_target_tokens <= self.max_length // 2:
            raise InputError(
                f"--max-target-tokens is {self.max_target_tokens}; it must be from 1 to half of --max-length "
                f"({self.max_length // 2}), so that the response finds room"
            )


@contextmanager
def project_only(head: torch.nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """Let a language-model head work at some positions only.

    Most positions of an example belong to the prompt. Leaving them out of the widest matrix product of a small model
    halves the time of a step. The head is reached through a hook because the model must be called as a whole, or
    distributed wrappers would not see the call.

    Args:
        head: The output embedding; the model's logits come out as (N, V) instead of (B, T, V).
        positions: Mask with N true values, bool, (B, T).
    """
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][positions],))
    try:
        yield
    finally:
        handle.remove()


class DetoxifierTrainer(MixtureSamplerMixin, Trainer):
    """A Trainer whose loss is the cross-entropy of the target's tokens (arXiv 2401.02906, section 4.2)."""

    def __init__(self, *args: Any, sampling: dict[str, Any], **kwargs: Any):
        """Take the sampler's settings, and the Trainer's own arguments."""
        self.sampling = sampling
        super().__init__(*args, **kwargs)
        # The loss is divided by the number of target tokens in the whole step, over all processes.
        self.model_accepts_loss_kwargs = True

    def token_losses(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return loss and correctness of each target token, and its row: (N,), (N,), (N,)."""
        next_labels = F.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)  # (B, T)
        positions = next_labels != IGNORED
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        with project_only(head, positions):
            logits = model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).logits.float()  # (N, V)
        targets = next_labels[positions]  # (N,)
        losses = F.cross_entropy(logits, targets, reduction="none")
        return losses, logits.detach().argmax(-1) == targets, positions.nonzero()[:, 0]

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the mean loss over the target tokens of the step that the batch is a part of."""
        losses, correct, _ = self.token_losses(model, inputs)
        if num_items_in_batch is None:
            loss = losses.mean()
        else:
            # DDP averages gradients over processes, the count is over all of them.
            loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, {"correct": correct}) if return_outputs else loss

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return the batch's loss and, by row, the sums of loss and correct tokens (B, 2) and their number (B,)."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            losses, correct, row = self.token_losses(model, inputs)
        if prediction_loss_only:
            return losses.mean(), None, None
        sums = losses.new_zeros(len(inputs["labels"]), 2)
        sums.index_add_(0, row, torch.stack([losses, correct.to(losses.dtype)], dim=1))
        return losses.mean(), sums, row.bincount(minlength=len(sums))


def measure_tokens(prediction: Any) -> dict[str, float]:
    """Return loss and accuracy per target token from what `prediction_step` gathered."""
    sums, counts = prediction.predictions.sum(axis=0), prediction.label_ids.sum()
    loss = float(sums[0] / counts)
    return {"token_loss": loss, "perplexity": math.exp(loss), "token_accuracy": float(sums[1] / counts)}


def train(argv: list[str] | None = None) -> None:
    """Train a detoxifier as the command line says."""
    detoxifier, data, model_arguments, training = parse_arguments(
        (DetoxifierArguments, DataArguments, ModelArguments, RunArguments), argv, "Train a detoxifier."
    )
    config = ProtectorConfig(kind="detoxifier", text_form=detoxifier.text_form, max_length=detoxifier.max_length)
    resolved = resolved_arguments(detoxifier, data, model_arguments, training)
    checkpoint = None if data.dry_run else prepare_output(training.output_dir, training.resume)
    train_rows, held_out_rows = load_split(data, load_detoxifier_rows)
    folder, base_name = resolve_base(model_arguments)
    tokenizer = load_base_tokenizer(folder)
    encoded = encode_rewrites(tokenizer, config, train_rows, detoxifier.max_target_tokens)
    held_out = encode_rewrites(tokenizer, config, held_out_rows, detoxifier.max_target_tokens)
    if data.dry_run:
        from llava.train.describe import describe_detoxifier_data

        print(describe_detoxifier_data(encoded, held_out))
        return
    torch.manual_seed(training.seed)
    with quiet_transformers():
        model = add_adapter(load_causal_lm(folder, **loading_options(model_arguments)), model_arguments, "CAUSAL_LM")
    trainer = build_trainer(model, tokenizer.pad_token_id, data, training, encoded, held_out)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if model_arguments.lora:
        config = replace(config, base_model=base_name)
    save_checkpoint(trainer, training.output_dir, config, resolved, base_name, tokenizer)
    if held_out:
        write_evaluation(trainer, training.output_dir)


def build_trainer(
    model: torch.nn.Module,
    pad_token_id: int,
    data: DataArguments,
    training: RunArguments,
    encoded: Sequence[EncodedRewrite],
    held_out: Sequence[EncodedRewrite],
) -> DetoxifierTrainer:
    """Return the trainer for encoded examples."""
    trainer = DetoxifierTrainer(
        model=model,
        args=training,
        train_dataset=encoded,
        eval_dataset=sorted(held_out, key=lambda example: -len(example.input_ids)) or None,
        data_collator=DetoxifierCollator(pad_token_id),
        compute_metrics=measure_tokens,
        sampling={
            "lengths": [len(example.input_ids) for example in encoded],
            "sources": [example.row.source for example in encoded],
            "shares": {part.name: part.share for part in parse_mixture(data.train_data)},
        },
    )
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    logger.info("training on %d rows, evaluating on %d; %d trained numbers", len(encoded), len(held_out), trainable)
    return trainer


def write_evaluation(trainer: DetoxifierTrainer, folder: str) -> None:
    """Write loss, perplexity and accuracy per target token of the held-out rows to `metrics.json`."""
    prediction = trainer.predict(trainer.eval_dataset, metric_key_prefix="eval")
    if not trainer.is_world_process_zero():
        return
    counts = {"n": len(prediction.label_ids), "target_tokens": int(prediction.label_ids.sum())}
    metrics = {**counts, **measure_tokens(prediction)}
    write_json(Path(folder) / "metrics.json", metrics)
    logger.info("held-out: %s", metrics)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_entry_point(train, argv)


if __name__ == "__main__":
    raise SystemExit(main())
