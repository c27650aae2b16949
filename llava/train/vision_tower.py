"""Train the embedded model's vision tower and projector on synthetic pictures; the language model stays frozen.

    python -m llava.train.vision_tower --config llava/train/configs/embedded_vision.yaml --output-dir DIR

Two stages (docs/vision_tower.md): first every cell learns to say its token, without the language model; then the slots
around the tokens are tuned through it. DIR gets `model.safetensors` and `vision.json`, which go to
`llava/assets/vision`. It runs on one CPU core.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from llava.data.pictures import Picture, Typeface, Vocabulary, load_vocabulary, make_picture
from llava.errors import InputError
from llava.files import write_json, write_text_atomic
from llava.model.embedded.reading_tower import ReadingTowerConfig
from llava.model.files.tensors import write_tensors
from llava.places import check_output_folder
from llava.process import end_process
from llava.train.arguments import RESOLVED_NAME, parse_arguments
from llava.train.base import run_entry_point
from llava.train.vision.arguments import PictureArguments, TowerArguments, TowerRunArguments
from llava.train.vision.language import (
    Speaker,
    ask_pictures,
    load_language_model,
    said_tokens,
    set_projector,
    train_slots,
)
from llava.train.vision.reader import Reader, fast_modulation, total
from llava.train.vision.targets import LETTERS, PLACES, TargetBuilder, TokenClasses, seeded

logger = logging.getLogger(__name__)

WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "vision.json"
CHECKPOINT_NAME = "reader.pt"
NOTE = (
    "the embedded model reads printed English words, with errors (llava/assets/vision/README.md says how many); "
    "photographs carry no meaning for it"
)
"""What readers of results are told."""
SPEAK_MIXTURE = {"phrase": 0.35, "attack": 0.15, "list": 0.12, "shapes": 0.28, "captioned": 0.1}
"""Pictures of the second stage: those with an answer short enough for a small language model."""


class Trainer:
    """The parts of a run, built from its arguments."""

    def __init__(self, pictures: PictureArguments, tower: TowerArguments, run: TowerRunArguments) -> None:
        self.pictures, self.run = pictures, run
        self.output = Path(run.output_dir)
        self.vocabulary: Vocabulary = load_vocabulary(pictures.common_words, pictures.rare_words, pictures.rare_share)
        self.typefaces: list[Typeface] = pictures.find_typefaces()
        self.base, self.language_model, self.tokenizer = load_language_model(tower.base)
        self.classes = TokenClasses(self.tokenizer, self.vocabulary)
        lexicon = self.classes.lexicon()
        self.vision_config = ReadingTowerConfig(
            tower.backbone(),
            tower.num_slots,
            tower.num_prefix_slots,
            lexicon_size=len(lexicon),
            num_places=PLACES,
            num_letters=len(LETTERS) + 1,
        )
        torch.manual_seed(run.seed)
        self.reader = Reader(self.vision_config, lexicon)
        self.optimisers, self.step = _optimisers(self.reader, run.read_learning_rate), 0
        self.projector = _projector(self.vision_config, self.language_model.config)
        self.speaker = Speaker(self.language_model, self.tokenizer, tower.num_slots, tower.num_prefix_slots)
        self.targets = TargetBuilder(self.classes, tower.image_size, tower.grid)

    def stream(self, part: str, mixture: dict[str, float]) -> Iterator[Picture]:
        """Yield pictures without end."""
        rng = seeded(self.run.seed, part)
        while True:
            yield make_picture(rng, mixture, self.vocabulary, self.typefaces)

    def read(self) -> None:
        """Run the first stage, from the step that the checkpoint is at."""
        run, reader, first = self.run, self.reader.train(), self.step
        source, running = self.stream(f"read{first}", self.pictures.weights()), dict[str, float]()
        for step in range(first, run.read_steps):
            rate = _rate(step, run.read_steps, run.read_learning_rate)
            for group in itertools.chain.from_iterable(optimiser.param_groups for optimiser in self.optimisers):
                group["lr"] = rate
            losses = reader.losses(self.targets.batch(source, run.read_batch_size))
            reader.zero_grad()
            total(losses).backward()
            torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            for optimiser in self.optimisers:
                optimiser.step()
            self.step = step + 1
            for name, loss in losses.items():
                running[name] = 0.95 * running.get(name, loss.item()) + 0.05 * loss.item()
            if self.step % run.logging_steps == 0:
                parts = "  ".join(f"{name} {value:.3f}" for name, value in running.items())
                logger.info("read %d/%d  %s", self.step, run.read_steps, parts)
            if self.step % run.checkpoint_steps == 0:
                self.save()

    def speak(self) -> None:
        """Run the second stage; it goes on from the slots of the checkpoint."""
        run = self.run
        pictures = said_tokens(self.stream("speak", SPEAK_MIXTURE), self.targets)
        train_slots(
            self.speaker,
            ask_pictures(pictures, seeded(run.seed, "questions")),
            steps=run.speak_steps,
            batch_size=run.speak_batch_size,
            learning_rate=run.speak_learning_rate,
            logging_steps=max(1, run.logging_steps // 5),
        )
        embeddings = self.language_model.get_input_embeddings().weight[self.classes.ids]
        set_projector(self.projector, embeddings.float(), self.speaker.slots)

    def export(self) -> None:
        """Write the weights in half precision, and what they are."""
        parts = {"vision_tower": self.reader.vision_tower, "multi_modal_projector": self.projector}
        weights = {
            f"{part}.{key}": (value.half() if value.is_floating_point() else value).contiguous()
            for part, module in parts.items()
            for key, value in module.state_dict().items()
        }
        write_tensors(self.output / WEIGHTS_NAME, weights)
        config, vision = self.language_model.config, self.vision_config
        description = {
            "vision_config": {
                key: getattr(vision, key)
                for key in (
                    "model_type",
                    "backbone",
                    "num_slots",
                    "num_prefix_slots",
                    "lexicon_size",
                    "num_places",
                    "num_letters",
                )
            },
            "language_model": {"hidden_size": config.hidden_size, "vocab_size": config.vocab_size},
            "language_model_name": self.base,
            "training": {"pictures": self.step * self.run.read_batch_size, "steps": self.step},
            "notes": [NOTE],
        }
        write_json(self.output / DESCRIPTION_NAME, description)

    def save(self) -> None:
        """Write a checkpoint by one rename."""
        state = {
            "step": self.step,
            "reader": self.reader.state_dict(),
            "slots": self.speaker.slots.data,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        temporary = self.output / f".{CHECKPOINT_NAME}"
        torch.save(state, temporary)
        temporary.replace(self.output / CHECKPOINT_NAME)

    def resume(self) -> None:
        """Load the checkpoint."""
        state = torch.load(self.output / CHECKPOINT_NAME, weights_only=True)
        self.reader.load_state_dict(state["reader"])
        self.speaker.slots.data.copy_(state["slots"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step = int(state["step"])


def train(argv: list[str] | None) -> None:
    """Read the arguments, run both stages, write the weights."""
    arguments = parse_arguments((PictureArguments, TowerArguments, TowerRunArguments), argv, __doc__ or "")
    run: TowerRunArguments = arguments[2]
    output = Path(run.output_dir)
    if not run.output_dir:
        raise InputError("--output-dir is missing; give a folder for the weights")
    check_output_folder(output)
    if output.is_dir() and any(output.iterdir()) and not run.resume:
        raise InputError(f"--output-dir {output} is not empty; add --resume to go on, or choose another folder")
    if run.resume and not (output / CHECKPOINT_NAME).is_file():
        raise InputError(f"--resume: there is no {output / CHECKPOINT_NAME}; leave the flag out to start anew")
    with use_fast_modulation():
        trainer = Trainer(*arguments)
        output.mkdir(parents=True, exist_ok=True)
        resolved = {key: value for part in arguments for key, value in asdict(part).items() if key != "output_dir"}
        write_text_atomic(output / RESOLVED_NAME, yaml.safe_dump(resolved, sort_keys=False))
        if run.resume:
            trainer.resume()
        trainer.read()
        trainer.save()
        trainer.speak()
        trainer.save()
        trainer.export()
    logger.info("wrote %s and %s to %s", WEIGHTS_NAME, DESCRIPTION_NAME, output)


class use_fast_modulation:  # noqa: N801 - reads as a verb where it is used
    """FocalNet runs `vision_reader.fast_modulation` inside the block."""

    def __enter__(self) -> None:
        """Put it in."""
        from transformers.models.focalnet.modeling_focalnet import FocalNetModulation

        self._own = FocalNetModulation.forward
        FocalNetModulation.forward = fast_modulation

    def __exit__(self, *problem: object) -> None:
        """Put FocalNet's own back."""
        from transformers.models.focalnet.modeling_focalnet import FocalNetModulation

        FocalNetModulation.forward = self._own


def _projector(vision_config: ReadingTowerConfig, text_config: Any) -> Any:
    """Return LLaVA's projector, two linear layers with nothing between them."""
    from transformers import LlavaConfig
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    # A copy: a config that becomes a part of another loses its attention kernel, and the model with it its causal mask.
    text_config = copy.deepcopy(text_config)
    return LlavaMultiModalProjector(
        LlavaConfig(
            vision_config=vision_config, text_config=text_config, projector_hidden_act="linear", vision_feature_layer=-1
        )
    )


def _optimisers(reader: Reader, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the weight matrices and AdamW for everything else of the first stage."""
    matrices = [weight for weight in reader.vision_tower.backbone.parameters() if weight.ndim == 2]
    taken = {id(weight) for weight in matrices}
    rest = [weight for weight in reader.parameters() if id(weight) not in taken]
    return [
        torch.optim.AdamW(rest, lr=rate, weight_decay=0.01, betas=(0.9, 0.98)),
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
    ]


def _rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate: a warm-up of 200 steps and half a cosine down to a fiftieth."""
    return peak * min(1.0, (step + 1) / 200) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    return run_entry_point(train, argv)


if __name__ == "__main__":
    end_process(main())
