"""Tune the shipped slots so that the embedded model answers about what it reads, instead of repeating it.

    python -m llava.train.vision.answers --output-dir DIR

The target of a question about an image of words is the model's own answer to the same question with the words in
their place (`llava/data/pictures/topics.py`), so nothing is taught but to read on; questions that ask for the words
themselves are mixed in. Tower, projector and language model stay as they are; only the slots around the words learn,
and pictures that show shapes keep those that they had, as a second set.
DIR gets `model.safetensors` and `vision.json`, which go to `llava/assets/vision`. It runs on one CPU core.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from llava.data.pictures import COLOURS, SHAPES, load_vocabulary, make_picture
from llava.data.pictures.topics import Topic, make_topics
from llava.errors import InputError
from llava.files import read_json, read_jsonl, write_json, write_jsonl
from llava.model.embedded.stack import EMBEDDED, VISION_DESCRIPTION, VISION_WEIGHTS
from llava.model.files.tensors import write_tensors
from llava.places import check_output_folder
from llava.process import end_process
from llava.train.arguments import option, parse_arguments
from llava.train.base import run_entry_point
from llava.train.vision.arguments import PictureArguments, TowerArguments, parse_mixture
from llava.train.vision.language import (
    Lesson,
    Speaker,
    ask_pictures,
    load_language_model,
    said_tokens,
    train_slots,
)
from llava.train.vision.targets import TargetBuilder, TokenClasses, seeded

logger = logging.getLogger(__name__)

PROJECTOR, LEXICON = "multi_modal_projector.linear_1.weight", "vision_tower.lexicon"
"""One column for each token of the lexicon, then one for each slot of each set; and how those tokens are spelled."""
ANSWERS_NAME = "answers.jsonl"


@dataclass
class AnswerArguments:
    """How the slots are tuned."""

    output_dir: str = option("", "Folder for the weights.")
    start: str = option("", "Folder with the weights to start from; empty takes the shipped ones.")
    topics: int = option(400, "Questions about images of words.")
    answer_tokens: int = option(28, "Longest part of an answer that is learned.")
    steps: int = option(300, "Optimiser steps.")
    batch_size: int = option(4, "Questions a step.")
    read_share: float = option(0.35, "Share of questions that ask for the words themselves, in [0, 1).")
    read_mixture: str = option("phrase:0.33,attack:0.29,list:0.38", "KIND:WEIGHT,… of the pictures that those show.")
    learning_rate: float = option(8e-3, "Peak learning rate.")
    logging_steps: int = option(10, "Steps between log lines.")
    seed: int = option(0, "Seed of topics and questions.")

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 <= self.read_share < 1:
            raise InputError(f"--read-share is {self.read_share}; give a number in [0, 1)")
        parse_mixture(self.read_mixture, "--read-mixture")


def read_slots(weights: dict[str, torch.Tensor], tokens: int, number: int) -> list[torch.Tensor]:
    """Return the sets of slots in the weights of tower and projector, each (S, hidden).

    Args:
        weights: The weights.
        tokens: Columns before the slots, one for each token of the lexicon.
        number: Slots of a set.
    """
    return list(weights[PROJECTOR][:, tokens:].T.float().split(number))


def write_slots(weights: dict[str, torch.Tensor], tokens: int, sets: Sequence[torch.Tensor]) -> None:
    """Put sets of slots behind the tokens of the lexicon; see `read_slots`."""
    columns = torch.cat([weights[PROJECTOR][:, :tokens].float(), *(slots.T for slots in sets)], dim=1)
    weights[PROJECTOR] = columns.half().contiguous()


def answer_topics(topics: list[Topic], longest: int, file: Path) -> list[tuple[str, bool]]:
    """Return the model's own answer to each question without an image, and whether it was cut off.

    Args:
        topics: The questions.
        longest: Tokens of an answer.
        file: Where the answers are kept; those of the same questions are read from it.
    """
    if file.is_file():
        rows = read_jsonl(file, "answers")
        if [row["question"] for row in rows] == [topic.text_question for topic in topics]:
            return [(row["answer"], row["cut"]) for row in rows]
    from llava.model.loading import load_mllm

    model = load_mllm(EMBEDDED, dtype="float32")
    answers: list[tuple[str, bool]] = []
    for start in range(0, len(topics), 16):
        texts = model.generate([topic.text_question for topic in topics[start : start + 16]], max_new_tokens=longest)
        lengths = [len(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        answers += [(text, length >= longest - 1) for text, length in zip(texts, lengths, strict=True)]
        logger.info("answered %d of %d questions", len(answers), len(topics))
    rows = [
        {"question": topic.text_question, "answer": answer, "cut": cut}
        for topic, (answer, cut) in zip(topics, answers, strict=True)
    ]
    write_jsonl(file, rows)
    return answers


def build_lessons(topics: list[Topic], answers: list[tuple[str, bool]], classes: TokenClasses) -> list[Lesson]:
    """Return the lessons of topics whose phrases the tower can say.

    Args:
        topics: Questions about phrases.
        answers: What `answer_topics` returned.
        classes: What the tower can say.
    """
    lessons = []
    for topic, (answer, cut) in zip(topics, answers, strict=True):
        if (encoded := classes.encode(topic.phrase)) is not None:
            tokens = [classes.ids[number] for number in encoded[0]]
            lessons.append(Lesson(tokens, topic.image_question, answer, "topic", cut))
    return lessons


def mix_lessons(lessons: list[Lesson], reading: Iterator[Lesson], share: float, rng: random.Random) -> Iterator[Lesson]:
    """Yield lessons without end: all in ever new order, and between them questions for the words themselves.

    Args:
        lessons: What `build_lessons` returned.
        reading: Lessons that ask for the words or shapes themselves, without end.
        share: Share of the second kind.
        rng: Source of chance.
    """
    left: list[Lesson] = []
    while True:
        if rng.random() < share:
            yield next(reading)
            continue
        if not left:
            left = rng.sample(lessons, len(lessons))
        yield left.pop()


def train(argv: list[str] | None) -> None:
    """Read the arguments, let the model answer, tune the slots, write the weights."""
    from safetensors.torch import load_file

    pictures, tower, run = parse_arguments((PictureArguments, TowerArguments, AnswerArguments), argv, __doc__ or "")
    if not run.output_dir:
        raise InputError("--output-dir is missing; give a folder for the weights")
    output = Path(run.output_dir)
    check_output_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    start = Path(run.start) / VISION_WEIGHTS.name if run.start else VISION_WEIGHTS
    if not start.is_file():
        raise InputError(f"--start: there is no {start}; give a folder with the weights of tower and projector")
    topics = make_topics(run.topics, held_out=False, seed=run.seed)
    answers = answer_topics(topics, run.answer_tokens, output / ANSWERS_NAME)
    _, language_model, tokenizer = load_language_model(tower.base, torch.float32)
    vocabulary = load_vocabulary(pictures.common_words, pictures.rare_words, pictures.rare_share)
    typefaces = pictures.find_typefaces()
    classes = TokenClasses(tokenizer, vocabulary)
    speaker = Speaker(language_model, tokenizer, tower.num_slots, tower.num_prefix_slots)
    weights = load_file(start)
    if not torch.equal(classes.lexicon(), weights[LEXICON]):
        raise InputError(f"{start} was trained on other words; give --config with the recipe of its training")
    sets = read_slots(weights, len(classes.ids), tower.num_slots)
    speaker.slots.data.copy_(sets[0])
    source = seeded(run.seed, "pictures")
    mixture = parse_mixture(run.read_mixture, "--read-mixture")
    drawn = (make_picture(source, mixture, vocabulary, typefaces) for _ in itertools.count())
    shown = said_tokens(drawn, TargetBuilder(classes, tower.image_size, tower.grid))
    reading = ask_pictures(shown, seeded(run.seed, "questions"))
    lessons = build_lessons(topics, answers, classes)
    logger.info("%d lessons of %d topics", len(lessons), len(topics))
    train_slots(
        speaker,
        mix_lessons(lessons, reading, run.read_share, seeded(run.seed, "lessons")),
        steps=run.steps,
        batch_size=run.batch_size,
        learning_rate=run.learning_rate,
        logging_steps=run.logging_steps,
    )
    # Pictures of shapes keep the slots that were trained to name them.
    write_slots(weights, len(classes.ids), [speaker.slots.data, sets[-1]])
    write_tensors(output / VISION_WEIGHTS.name, weights)
    description = read_json(start.with_name(VISION_DESCRIPTION.name), "description of the vision weights")
    description["vision_config"] |= {
        "colour_tokens": classes.first_of(COLOURS),
        "form_tokens": classes.first_of(SHAPES),
    }
    trained = description["training"]
    trained["answer_steps"] = trained.get("answer_steps", 0) + run.steps
    write_json(output / VISION_DESCRIPTION.name, description)
    logger.info("wrote %s and %s to %s", VISION_WEIGHTS.name, VISION_DESCRIPTION.name, output)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_entry_point(train, argv)


if __name__ == "__main__":
    end_process(main())
