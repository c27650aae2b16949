"""The cross-entropy of an answer's tokens, averaged over those of the whole step, for any Hugging Face Trainer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from llava.files import write_json

IGNORED = -100
"""Label of positions that the loss passes over."""


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


class TokenLossMixin:
    """Gives a Trainer this loss on batches of `labels`, `input_ids`, `attention_mask` and what else the model takes.

    The Trainer's own loss would project every position onto the vocabulary, and its evaluation would average over
    batches of different numbers of tokens.
    """

    args: Any
    accelerator: Any
    model_accepts_loss_kwargs = True
    """The Trainer hands over the number of target tokens in the whole step, over all processes."""

    def token_losses(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return loss and correctness of each target token, and its row: (N,), (N,), (N,)."""
        next_labels = F.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)  # (B, T)
        positions = next_labels != IGNORED
        read = {name: value for name, value in inputs.items() if name != "labels"}
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        with project_only(head, positions):
            logits = model(**read, use_cache=False).logits.float()  # (N, V)
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
            loss = losses.sum() / num_items_in_batch
            if self.args.average_tokens_across_devices:
                # DDP averages gradients over processes, the count is over all of them.
                loss = loss * self.accelerator.num_processes
        return (loss, {"correct": correct}) if return_outputs else loss

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return the batch's loss and, by row, the sums of loss and correct tokens (B, 2) and their number (B,)."""
        trainer: Any = self
        inputs = trainer._prepare_inputs(inputs)
        with torch.no_grad(), trainer.compute_loss_context_manager():
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


def write_token_metrics(trainer: Any, folder: str) -> dict[str, float] | None:
    """Write loss, perplexity and accuracy per target token of the held-out rows to `metrics.json`; return them."""
    prediction = trainer.predict(trainer.eval_dataset, metric_key_prefix="eval")
    if not trainer.is_world_process_zero():
        return None
    counts = {"n": len(prediction.label_ids), "target_tokens": int(prediction.label_ids.sum())}
    metrics = {**counts, **measure_tokens(prediction)}
    write_json(Path(folder) / "metrics.json", metrics)
    return metrics
