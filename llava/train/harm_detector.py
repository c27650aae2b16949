"""Train a harm detector: `python -m llava.train.harm_detector --train-data FILE --output-dir DIR`.

On a CPU: `--base embedded --base-dtype bfloat16 --num-layers 20 --lora-layers-from 10 --max-length 256`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Optional

import torch
from transformers import Trainer

from llava.data.training.pairs import load_detector_rows
from llava.data.training.sources import parse_mixture
from llava.errors import InputError
from llava.model.quiet import quiet_transformers
from llava.model.tokenizers import load_tokenizer
from llava.process import end_process
from llava.protector.classifier import HarmClassifier, load_sequence_classifier
from llava.protector.config import ProtectorConfig
from llava.quality.figures import write_figures
from llava.quality.metrics import evaluate_detector
from llava.train.arguments import (
    DataArguments,
    ModelArguments,
    RunArguments,
    option,
    parse_arguments,
    resolved_arguments,
)
from llava.train.base import (
    loading_options,
    parse_by_source,
    prepare_output,
    resolve_base,
    run_entry_point,
    run_training,
    save_checkpoint,
)
from llava.train.lora import add_adapter
from llava.train.losses import bce_loss, max_over_windows, pairwise_loss
from llava.train.paper import apply_paper
from llava.train.rows.detector import DetectorCollator, EncodedRow, balance_factors, encode_rows, form_units
from llava.train.rows.groups import add_prefixes, weigh_groups
from llava.train.rows.sampling import MixtureSamplerMixin
from llava.train.rows.selection import load_split

logger = logging.getLogger(__name__)


@dataclass
class DetectorArguments:
    """What the detector reads and how it learns."""

    text_form: str = option("prompt+response", "What the detector reads: response, or prompt+response.")
    max_length: int = option(512, "Longest input in tokens.")
    pooling: str = option("last", "Pooling of the hidden states: last, mean or mean_response.")
    stretches: str = option("", "With mean_response: judge by the highest mean over so many tokens too, e.g. 32,64.")
    num_layers: Optional[int] = option(None, "Keep only the first layers of the base.")  # noqa: UP045
    positive_label: str = option("harmful", "What a positive logit means: harmful or safe.")
    loss: Literal["bce", "bce+pairwise"] = option(
        "bce", "bce is the paper's; bce+pairwise adds the reference's ranking term on pairs."
    )
    pairwise_weight: float = option(1.0, "Factor of the ranking term.")
    loss_weights: str = option("", "Loss factor by source: hh_harmless_pairs=0.3,…")
    label_smoothing: str = option("", "Label smoothing by source: hh_harmless_pairs=0.4,…")
    group_weights: str = option("", "What a source's rows weigh together, half of it each label: msts=2,…; others 1.")
    prefixes: float = option(
        0.0, "Share of training rows of which a prefix is a row too; a harmful one's goes past its half."
    )
    balance_classes: bool = option(False, "Weigh the loss so that both classes count the same.")
    prompt_dropout: float = option(
        0.0,
        "Share of training rows shown without their prompt, so that the detector also works from the response alone.",
    )
    max_windows: int = option(
        0, "Windows of a long response to train on; the highest logit counts. 0 takes all, 1 is the paper's truncation."
    )

    def __post_init__(self) -> None:
        """Check what `ProtectorConfig` does not."""
        for flag, share in (("--prompt-dropout", self.prompt_dropout), ("--prefixes", self.prefixes)):
            if not 0 <= share <= 1:
                raise InputError(f"{flag} is {share}; it must be in [0, 1]")
        pieces = [piece for piece in self.stretches.replace(" ", "").split(",") if piece]
        if not all(piece.isdecimal() for piece in pieces):
            raise InputError(f"--stretches is {self.stretches}; give whole numbers, separated by commas")
        self.lengths = tuple(map(int, pieces))
        if self.max_windows < 0 or self.pairwise_weight < 0:
            raise InputError("--max-windows and --pairwise-weight must be 0 or more")


class DetectorTrainer(MixtureSamplerMixin, Trainer):
    """A Trainer with the detector's loss; see `llava/train/losses.py`."""

    def __init__(self, *args: Any, detector: DetectorArguments, sampling: dict[str, Any], **kwargs: Any):
        """Take the detector's settings and the sampler's, and the Trainer's own arguments."""
        self.detector = detector
        self.sampling = sampling
        super().__init__(*args, **kwargs)
        # The loss is a mean over units, so the Trainer must divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def harm_logits(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the harm logit of each response of a batch, (R,)."""
        windows = {name: inputs[name] for name in ("input_ids", "attention_mask", "response_mask")}
        logits = model(**windows).logits[:, 0]  # (W,)
        if self.detector.positive_label == "safe":
            logits = -logits
        return max_over_windows(logits, inputs["row_of_window"], len(inputs["labels"]))

    def loss_of(self, harm_logits: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean loss over the units of a batch."""
        loss = (inputs["weights"] * bce_loss(harm_logits, inputs["labels"], inputs["label_smoothing"])).sum()
        if self.detector.loss == "bce+pairwise" and len(inputs["pairs"]):
            chosen, rejected = inputs["pairs"].unbind(1)
            ranking = pairwise_loss(harm_logits[chosen], harm_logits[rejected])
            loss = loss + self.detector.pairwise_weight * (inputs["pair_weights"] * ranking).sum()
        return loss

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        """Return the loss of a batch, and the harm logits when asked."""
        harm_logits = self.harm_logits(model, inputs)
        loss = self.loss_of(harm_logits, inputs)
        return (loss, {"harm_logits": harm_logits}) if return_outputs else loss

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return loss, harm logits and labels of an evaluation batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            harm_logits = self.harm_logits(model, inputs)
            loss = self.loss_of(harm_logits, inputs)
        return loss, None if prediction_loss_only else harm_logits, inputs["labels"]


def train(argv: list[str] | None = None) -> None:
    """Train a detector as the command line says."""
    detector, data, model_arguments, training = parse_arguments(
        (DetectorArguments, DataArguments, ModelArguments, RunArguments),
        apply_paper("detector", argv),
        "Train a harm detector. --paper takes the paper's recipe, with DeepSpeed where it and a GPU are there; "
        "--on-states trains a head on a multimodal model's own states instead (--on-states --help).",
    )
    config = ProtectorConfig(
        kind="detector",
        text_form=detector.text_form,
        max_length=detector.max_length,
        positive_label=detector.positive_label,
        pooling=detector.pooling,
        stretches=detector.lengths,
        num_layers=detector.num_layers,
    )
    resolved = resolved_arguments(detector, data, model_arguments, training)
    checkpoint = None if data.dry_run else prepare_output(training.output_dir, training.resume)
    train_rows, held_out_rows = load_split(data, load_detector_rows)
    folder, base_name = resolve_base(model_arguments)
    tokenizer = load_tokenizer(folder)
    sources = [part.name for part in parse_mixture(data.train_data)]
    encoded = encode_rows(
        tokenizer,
        config,
        add_prefixes(train_rows, detector.prefixes, training.seed),
        max_windows=detector.max_windows or None,
        prompt_dropout=detector.prompt_dropout,
        weights=parse_by_source(detector.loss_weights, "--loss-weights", sources),
        label_smoothing=parse_by_source(detector.label_smoothing, "--label-smoothing", sources),
    )
    encoded = weigh_groups(encoded, parse_by_source(detector.group_weights, "--group-weights", sources))
    # As at inference: all windows, the prompt in its place.
    held_out = encode_rows(tokenizer, config, held_out_rows, max_windows=None)
    if data.dry_run:
        from llava.train.rows.description import describe_detector_data

        print(describe_detector_data(encoded, held_out))
        return
    torch.manual_seed(training.seed)
    with quiet_transformers():
        checkpointing = bool(training.gradient_checkpointing)
        model = build_model(folder, model_arguments, config, checkpointing=checkpointing, device=training.device)
    # Switched on in the transformer already; the Trainer would ask our network for it, which is no PreTrainedModel.
    training.gradient_checkpointing = training.activation_checkpointing = False
    trainer = build_trainer(model, tokenizer.pad_token_id, detector, data, training, encoded, held_out)
    run_training(trainer, checkpoint)
    if model_arguments.lora:
        config = replace(config, base_model=base_name)
    save_checkpoint(trainer, training.output_dir, config, resolved, base_name, tokenizer)
    if held_out:
        write_evaluation(trainer, training.output_dir)


def build_model(
    folder: str,
    arguments: ModelArguments,
    config: ProtectorConfig,
    checkpointing: bool = False,
    device: torch.device | None = None,
) -> torch.nn.Module:
    """Return the network to train: frozen base with adapter and trained head, or everything trainable.

    Args:
        folder: The base.
        arguments: How it is loaded and adapted.
        config: Layers and pooling.
        checkpointing: Whether the backward pass recomputes activations to save memory.
        device: Where it will be trained; None detects.
    """
    classifier = load_sequence_classifier(folder, num_layers=config.num_layers, **loading_options(arguments, device))
    if checkpointing:
        classifier.gradient_checkpointing_enable({"use_reentrant": False})
    model = HarmClassifier(classifier, config.pooling, config.stretches, config.stretch_margin)
    model.score.to(torch.float32)
    return add_adapter(model, arguments, "SEQ_CLS", head="score")


def build_trainer(
    model: torch.nn.Module,
    pad_token_id: int,
    detector: DetectorArguments,
    data: DataArguments,
    training: RunArguments,
    encoded: Sequence[EncodedRow],
    held_out: Sequence[EncodedRow],
) -> DetectorTrainer:
    """Return the trainer for encoded rows."""
    units = form_units(encoded, pairs=detector.loss == "bce+pairwise")
    sampling = {
        "lengths": [max(row.length for row in unit) for unit in units],
        "sources": [unit[0].row.source for unit in units],
        "shares": {part.name: part.share for part in parse_mixture(data.train_data)},
    }
    balance = balance_factors(encoded) if detector.balance_classes else None
    held_out = sorted(held_out, key=lambda row: -row.length)
    trainer = DetectorTrainer(
        model=model,
        args=training,
        train_dataset=units,
        eval_dataset=[(row,) for row in held_out] or None,
        data_collator=DetectorCollator(pad_token_id, balance),
        compute_metrics=lambda prediction: _metrics_while_training(held_out, prediction),
        detector=detector,
        sampling=sampling,
    )
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    logger.info(
        "training on %d responses in %d units, evaluating on %d; %d trained numbers",
        len(encoded),
        len(units),
        len(held_out),
        trainable,
    )
    return trainer


def _metrics_while_training(held_out: Sequence[EncodedRow], prediction: Any) -> dict[str, float]:
    """Return the overall metrics for the Trainer's log, without intervals."""
    scores = torch.sigmoid(torch.tensor(prediction.predictions, dtype=torch.float64)).tolist()
    overall = evaluate_detector([row.row for row in held_out], scores, resamples=0)["overall"]
    return {name: value for name, value in overall.items() if isinstance(value, float)}


def write_evaluation(trainer: DetectorTrainer, folder: str) -> None:
    """Score the held-out rows and write the figures; the threshold is 0.5 until the detector is calibrated."""
    prediction = trainer.predict(trainer.eval_dataset, metric_key_prefix="eval")
    if not trainer.is_world_process_zero():
        return
    scores = torch.sigmoid(torch.tensor(prediction.predictions, dtype=torch.float64)).tolist()
    metrics = write_figures(folder, [unit[0].row for unit in trainer.eval_dataset], scores)
    for name, part in {"overall": metrics["overall"], **metrics["by_source"]}.items():
        shown = {key: round(value, 4) for key, value in part.items() if isinstance(value, float)}
        logger.info("%s: n=%d %s", name, part["n"], shown)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    from llava.train.states import command as states

    on_states = states.is_asked(sys.argv[1:] if argv is None else argv)
    return states.main(argv) if on_states else run_entry_point(train, argv)


if __name__ == "__main__":
    end_process(main())
