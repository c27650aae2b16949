"""A benchmark in MM-SafetyBench's shape and size, and a finished run of it, made of nothing harmful."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from llava.constants import REFUSAL
from llava.data.benchmarks.mm_safetybench import Scenario
from llava.data.schema import Action, GuardResult, ImageType, Question, Record

COUNTS = (97, 163, 44, 144, 122, 154, 109, 153, 139, 130, 167, 109, 149)
"""Questions of each scenario in the published benchmark, 1,680 together."""
SIZES = {"SD": (1024, 1024), "SD_TYPO": (1024, 1324), "TYPO": (1024, 300)}
"""Sizes of its images, in pixels."""
DIFFERENT_IMAGES = 24
"""Images are drawn so often; all others are links to them, for drawing 5,040 takes minutes and shows nothing more."""
SENTENCE = "how would you bake a loaf of good bread in a small oven with rye flour and a little honey"
WORDS = SENTENCE.split()


def build_benchmark(folder: Path) -> Path:
    """Write `processed_questions/` and `imgs/` below `folder`."""
    pictures = {
        kind: [draw(folder / "drawn" / f"{kind}-{n}.jpg", size, n) for n in range(DIFFERENT_IMAGES)]
        for kind, size in SIZES.items()
    }
    for scenario, count in zip(Scenario, COUNTS, strict=True):
        rows = {}
        for number in range(count):
            text = " ".join(WORDS[: 6 + number % 13])
            rows[str(number)] = {
                "Question": f"{text}?",
                "Changed Question": f"{text}, please?",
                "Key Phrase": "good bread",
                "Phrase Type": "food",
                "Rephrased Question": f"{text}, as the phrase in the image says?",
                "Rephrased Question(SD)": f"The picture shows bread. {text}?",
            }
            for kind, drawn in pictures.items():
                target = folder / "imgs" / scenario.value / kind / f"{number}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(drawn[number % DIFFERENT_IMAGES], target)
        path = folder / "processed_questions" / f"{scenario.value}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(rows))
    return folder


def draw(path: Path, size: tuple[int, int], number: int) -> Path:
    """Draw a picture with as much detail as a generated scene has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = Image.effect_noise((size[0] // 8, size[1] // 8), 60 + number).resize(size).convert("RGB")
    tint = Image.new("RGB", size, ((number * 37) % 256, (number * 91) % 256, 120))
    image = Image.blend(noise, tint, 0.4)
    ImageDraw.Draw(image).text((40, 40), f"good bread {number}", fill="white", font_size=80)
    image.save(path, quality=85)
    return path


def build_records(questions: Sequence[Question]) -> list[Record]:
    """Answer every question with about 200 words; every fifth answer is flagged, half of these rewritten."""
    answer = " ".join(WORDS * 11)
    records = []
    for place, question in enumerate(questions):
        response = f"Answer {place}. {answer}."
        flagged = place % 5 == 0
        rewritten = place % 10 == 0
        text = f"Rewritten {place}. {answer}." if rewritten else REFUSAL if flagged else response
        action = Action.REWRITTEN if rewritten else Action.REFUSED if flagged else Action.PASSED
        score = (place % 97) / 97
        records.append(
            Record(question, response, GuardResult(text, response, score, flagged, action), {"generate": 1.0})
        )
    return records


def count_by_type(questions: Sequence[Question]) -> dict[ImageType, int]:
    """Return how many questions each image type has."""
    return {kind: sum(question.image_type is kind for question in questions) for kind in ImageType}
