"""Train a LLaVA: `python -m llava.train.llava --stage pretrain|finetune --train-data FILE.json --output-dir DIR`.

Stage 1 trains the projector between a vision tower and a language model, stage 2 the language model and the projector
(arXiv 2304.08485, section 4.2). On a CPU: `--base embedded --max-length 512 --per-device-train-batch-size 4`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch
from transformers import Trainer

from llava.data.images import check_images
from llava.data.training.conversations import load_conversations
from llava.data.training.sources import parse_mixture
from llava.errors import InputError
from llava.model.quiet import quiet_transformers
from llava.process import end_process
from llava.train.arguments import RunArguments, option, parse_arguments, resolved_arguments
from llava.train.base import prepare_output, run_entry_point, run_training, save_arguments, save_trained
from llava.train.llava_model import (
    PROJECTOR,
    LlavaModelArguments,
    LlavaSource,
    find_llava,
    load_llava,
    load_llava_processor,
    release_folder,
    vision_in_graph,
)
from llava.train.rows.conversations import (
    ConversationEncoder,
    EncodedConversation,
    LlavaCollator,
    encode_conversations,
    modality_groups,
)
from llava.train.rows.sampling import MixtureSamplerMixin
from llava.train.token_loss import TokenLossMixin, measure_tokens, write_token_metrics

logger = logging.getLogger(__name__)


@dataclass
class LlavaArguments:
    """What the model reads and how it learns."""

    train_data: str = option(
        "", "SOURCE[:SHARE],…: LLaVA files (.json, .jsonl) or folders; SHARE is how often an epoch sees a row."
    )
    image_folder: Optional[str] = option(  # noqa: UP045 - HfArgumentParser on Python 3.10
        None, "What the rows' image paths are relative to; by default the folder of each file."
    )
    eval_data: Optional[str] = option(None, "Rows to evaluate on, like --train-data.")  # noqa: UP045
    max_length: int = option(2048, "Longest row in positions, those of its pictures included; a longer one is cut.")
    max_rows: Optional[int] = option(None, "Use at most this many training rows (the first ones); for trials.")  # noqa: UP045
    projector_learning_rate: Optional[float] = option(  # noqa: UP045
        None, "Peak learning rate of the projector; by default that of everything else."
    )
    dry_run: bool = option(False, "Open every picture, print what the data looks like and stop.")

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.train_data:
            raise InputError("--train-data is missing; give a file of LLaVA conversations")
        if self.max_length < 1:
            raise InputError(f"--max-length is {self.max_length}; it must be 1 or more")


class LlavaTrainer(TokenLossMixin, MixtureSamplerMixin, Trainer):
    """A Trainer for batches with or without pictures, whose loss is that of the answers' tokens."""

    def __init__(
        self, *args: Any, sampling: dict[str, Any], projector_learning_rate: float | None = None, **kwargs: Any
    ):
        """Take the sampler's settings, the projector's learning rate, and the Trainer's own arguments."""
        self.sampling = sampling
        self.projector_learning_rate = projector_learning_rate
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True
        # Asked before anything wraps the model and changes the names.
        self.trained = {name for name, value in self.model.named_parameters() if value.requires_grad}

    def token_losses(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return loss and correctness of each target token, and its row: (N,), (N,), (N,)."""
        unwrapped = self.accelerator.unwrap_model(model)
        llava = unwrapped.get_base_model() if hasattr(unwrapped, "peft_config") else unwrapped
        with vision_in_graph(llava, active="pixel_values" not in inputs):
            return super().token_losses(model, inputs)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer, with a learning rate of its own for the projector where one is wanted."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(*([] if model is None else [model]))
        if fresh and self.projector_learning_rate is not None:
            named = (self.model if model is None else model).named_parameters()
            projector = {id(value) for name, value in named if PROJECTOR in name}
            for group in list(optimizer.param_groups):
                own = [value for value in group["params"] if id(value) in projector]
                group["params"] = [value for value in group["params"] if id(value) not in projector]
                if own:
                    optimizer.add_param_group({**group, "params": own, "lr": self.projector_learning_rate})
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the trained weights of a checkpoint by the names that resuming looks for.

        `save_pretrained` gives a LLaVA's weights the names of older files, which the Trainer would not find again; and
        frozen ones need no copy in every checkpoint.
        """
        from safetensors.torch import save_file

        if hasattr(self.accelerator.unwrap_model(self.model), "peft_config"):
            super()._save(output_dir, state_dict)
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.model.state_dict() if state_dict is None else state_dict
        save_file({k: v.contiguous() for k, v in state.items() if k in self.trained}, folder / "model.safetensors")

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Say nothing about the frozen weights, which a checkpoint does not hold."""


def train(argv: list[str] | None = None) -> None:
    """Train a LLaVA as the command line says."""
    llava, model_arguments, training = parse_arguments(
        (LlavaArguments, LlavaModelArguments, RunArguments), argv, "Train a LLaVA."
    )
    resolved = resolved_arguments(llava, model_arguments, training)
    checkpoint = None if llava.dry_run else prepare_output(training.output_dir, training.resume)
    rows = load_conversations(parse_mixture(llava.train_data), llava.image_folder)[: llava.max_rows]
    if not rows:
        raise InputError(f"--train-data {llava.train_data} has no rows; give a file of LLaVA conversations")
    held_out_rows = []
    if llava.eval_data:
        held_out_rows = load_conversations(parse_mixture(llava.eval_data, "--eval-data"), llava.image_folder, "test")
    source = find_llava(model_arguments, training.seed)
    processor = load_llava_processor(source)
    encoder = ConversationEncoder(processor, llava.max_length)
    encoded, held_out = encode_conversations(encoder, rows), encode_conversations(encoder, held_out_rows)
    if llava.dry_run:
        from llava.train.rows.description import describe_conversations

        check_images(path for example in (*encoded, *held_out) for path in example.images)
        print(describe_conversations(encoded, held_out))
        return
    with quiet_transformers():
        model = load_llava(source, model_arguments, training.seed, training.device)
    collator = LlavaCollator(processor, encoder.image_positions)
    trainer = build_trainer(model, collator, llava, training, encoded, held_out)
    run_training(trainer, checkpoint)
    save_llava(trainer, source, processor, resolved)
    if held_out:
        logger.info("held-out: %s", write_token_metrics(trainer, training.output_dir))


def build_trainer(
    model: torch.nn.Module,
    collator: LlavaCollator,
    llava: LlavaArguments,
    training: RunArguments,
    encoded: Sequence[EncodedConversation],
    held_out: Sequence[EncodedConversation],
) -> LlavaTrainer:
    """Return the trainer for encoded rows."""
    trainer = LlavaTrainer(
        model=model,
        args=training,
        train_dataset=encoded,
        eval_dataset=sorted(held_out, key=lambda example: (not example.images, -example.length)) or None,
        data_collator=collator,
        compute_metrics=measure_tokens,
        projector_learning_rate=llava.projector_learning_rate,
        sampling={
            "lengths": [example.length for example in encoded],
            "sources": [example.row.source for example in encoded],
            "shares": {part.name: part.share for part in parse_mixture(llava.train_data)},
            "groups": list(modality_groups(encoded)),
        },
    )
    # Under ZeRO-3 a parameter is empty here, and knows its size.
    trainable = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)
    logger.info("training on %d rows, evaluating on %d; %d trained numbers", len(encoded), len(held_out), trainable)
    return trainer


def save_llava(trainer: LlavaTrainer, source: LlavaSource, processor: Any, arguments: dict[str, Any]) -> None:
    """Write the result: an adapter, or a whole HF-native model; after stage 1 the projector on its own too."""
    folder = trainer.args.output_dir
    state = save_trained(trainer, folder, source.name, processor)
    if state is None:
        return
    save_arguments(folder, arguments)
    if arguments["stage"] == "pretrain":
        release_folder(folder, trainer.accelerator.unwrap_model(trainer.model), processor, source, state)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_entry_point(train, argv)


if __name__ == "__main__":
    end_process(main())
