"""Train a detoxifier: `python -m llava.train.detoxifier --train-data FILE --output-dir DIR`.

On a CPU: `--base embedded --base-dtype bfloat16 --bf16 true --max-length 384`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import torch

from llava.data.training.pairs import load_detoxifier_rows
from llava.errors import InputError
from llava.model.quiet import quiet_transformers
from llava.model.tokenizers import load_tokenizer
from llava.process import end_process
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
from llava.train.base import (
    loading_options,
    prepare_output,
    resolve_base,
    run_entry_point,
    run_training,
    save_checkpoint,
)
from llava.train.lora import add_adapter
from llava.train.paper import apply_paper
from llava.train.rows.detoxifier import count_cuts, encode_rewrites
from llava.train.rows.selection import load_split
from llava.train.token_loss import write_token_metrics

logger = logging.getLogger(__name__)


@dataclass
class DetoxifierArguments:
    """What the detoxifier reads and writes."""

    text_form: str = option("prompt+response", "What the detoxifier reads: prompt+response, or response.")
    max_length: int = option(512, "Longest prompt and target together, in tokens; the response is cut to fit.")
    max_target_tokens: int = option(256, "Longest target in tokens; a longer one is cut, and then has no end mark.")
    keep_harmless: bool = option(
        False, "Learn to leave harmless responses (harmful: false) as they are; without it they are skipped."
    )

    def __post_init__(self) -> None:
        """Check that prompt and target both find room."""
        if not 1 <= self.max_target_tokens <= self.max_length // 2:
            raise InputError(
                f"--max-target-tokens is {self.max_target_tokens}; it must be from 1 to half of --max-length "
                f"({self.max_length // 2}), so that the response finds room"
            )


def train(argv: list[str] | None = None) -> None:
    """Train a detoxifier as the command line says."""
    detoxifier, data, model_arguments, training = parse_arguments(
        (DetoxifierArguments, DataArguments, ModelArguments, RunArguments),
        apply_paper("detoxifier", argv),
        "Train a detoxifier. --paper takes the paper's recipe, with DeepSpeed where it and a GPU are there.",
    )
    if find_spec("trl") is None:
        raise InputError("training a detoxifier needs TRL; install it: pip install 'trl>=1.14,<2'")
    config = ProtectorConfig(kind="detoxifier", text_form=detoxifier.text_form, max_length=detoxifier.max_length)
    resolved = resolved_arguments(detoxifier, data, model_arguments, training)
    checkpoint = None if data.dry_run else prepare_output(training.output_dir, training.resume)
    train_rows, held_out_rows = load_split(data, partial(load_detoxifier_rows, keep_harmless=detoxifier.keep_harmless))
    folder, base_name = resolve_base(model_arguments)
    tokenizer = load_tokenizer(folder)
    encoded = encode_rewrites(tokenizer, config, train_rows, detoxifier.max_target_tokens)
    held_out = encode_rewrites(tokenizer, config, held_out_rows, detoxifier.max_target_tokens)
    if data.dry_run:
        from llava.train.rows.description import describe_detoxifier_data

        print(describe_detoxifier_data(encoded, held_out))
        return
    # Imported late: TRL is a heavy import, which --help and a refused run do without.
    from llava.train import detoxifier_trainer

    torch.manual_seed(training.seed)
    with quiet_transformers():
        base = load_causal_lm(folder, **loading_options(model_arguments, training.device))
        model = add_adapter(base, model_arguments, "CAUSAL_LM")
    trainer = detoxifier_trainer.build_trainer(model, tokenizer, data, training, encoded, held_out)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    logger.info("training on %d rows, evaluating on %d; %d trained numbers", len(encoded), len(held_out), trained)
    logger.info("%s", count_cuts([*encoded, *held_out]))
    run_training(trainer, checkpoint)
    if model_arguments.lora:
        config = replace(config, base_model=base_name)
    save_checkpoint(trainer, training.output_dir, config, resolved, base_name, tokenizer)
    if held_out:
        logger.info("held-out: %s", write_token_metrics(trainer, training.output_dir))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_entry_point(train, argv)


if __name__ == "__main__":
    end_process(main())
