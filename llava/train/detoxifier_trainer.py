"""The detoxifier's trainer: TRL's SFTTrainer on prompt and completion, with our order of examples.

A module of its own, because TRL is imported when a training starts and not for `--help`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from llava.data.training.sources import parse_mixture
from llava.train.arguments import DataArguments, RunArguments
from llava.train.rows.detoxifier import EncodedRewrite, build_dataset
from llava.train.rows.sampling import MixtureSamplerMixin
from llava.train.token_loss import TokenLossMixin, measure_tokens


class DetoxifierTrainer(TokenLossMixin, MixtureSamplerMixin, SFTTrainer):
    """SFTTrainer on completions, whose loss is the cross-entropy of the target's tokens (arXiv 2401.02906, §4.2).

    The loss is SFTTrainer's own, computed in another way (`TokenLossMixin`) for two reasons. TRL leaves the prompt's
    positions out on devices with Triton kernels only and projects every one of them elsewhere, which on a CPU takes
    longer than the rest of the step. And an evaluation is exact per token only when each row's sums are gathered; TRL
    averages over batches, and runs the model twice for it.
    """

    def __init__(self, *args: Any, sampling: dict[str, Any], **kwargs: Any):
        """Take the sampler's settings, and SFTTrainer's own arguments."""
        self.sampling = sampling
        super().__init__(*args, **kwargs)
        # The loss is divided by the number of target tokens in the whole step, over all processes.
        self.model_accepts_loss_kwargs = True

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no card: TRL's names neither the data nor a figure, and `train_config.yaml` has the rest."""


def build_sft_config(run: RunArguments) -> SFTConfig:
    """Return TRL's config for a run: our flags where both have one, and completions alone in the loss.

    Made here and not parsed, so that the command line offers no flag of SFTConfig that pre-tokenised rows would ignore
    (packing, chat templates, truncation).
    """
    known = {field.name for field in fields(SFTConfig)}  # `resume` is ours alone
    values = {name: value for name, value in run.to_dict().items() if name in known}
    values["hub_token"] = run.hub_token  # to_dict hides it
    config = SFTConfig(
        **values,
        completion_only_loss=True,
        max_length=None,  # rows come shortened, at the response: SFTTrainer would cut the target
    )
    config._n_gpu = run.n_gpu  # see RunArguments
    return config


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Hold back the progress bars of datasets: what TRL does to tokenised rows takes a moment."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def build_trainer(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    data: DataArguments,
    run: RunArguments,
    encoded: Sequence[EncodedRewrite],
    held_out: Sequence[EncodedRewrite],
) -> DetoxifierTrainer:
    """Return the trainer for encoded examples.

    Args:
        model: The causal LM, with its adapter where one is trained.
        tokenizer: Its tokenizer, with a pad token.
        data: Names the sources and their shares.
        run: How the training runs.
        encoded: Training examples.
        held_out: Examples to evaluate on; may be empty.
    """
    sampling = {
        "lengths": [len(example.input_ids) for example in encoded],
        "sources": [example.row.source for example in encoded],
        "shares": {part.name: part.share for part in parse_mixture(data.train_data)},
    }
    # Longest first: what does not fit into memory shows at once, and batches hold little padding.
    held_out = sorted(held_out, key=lambda example: -len(example.input_ids))
    with quiet_datasets():
        return DetoxifierTrainer(
            model=model,
            args=build_sft_config(run),
            train_dataset=build_dataset(encoded),
            eval_dataset=build_dataset(held_out) if held_out else None,
            processing_class=tokenizer,
            compute_metrics=measure_tokens,
            sampling=sampling,
        )
