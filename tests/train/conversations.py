"""Small LLaVA data with a signal that a tiny model can learn: coloured pictures and mild words."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

STAGES = {
    "pretrain": ["--stage", "pretrain"],
    "full": [],
    "lora": ["--lora"],
    "tower": ["--train-vision-tower"],
}
"""Ways of training and their flags."""

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (90, 90, 90)}


def write_pictures(folder: Path) -> Path:
    """Write a picture of each colour, of different shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, colour) in enumerate(COLOURS.items()):
        Image.new("RGB", (40 + 10 * number, 30), colour).save(folder / f"{name}.png")
    return folder


def picture_row(number: int, colour: str, question: str = "Which colour?", answer: str | None = None) -> dict:
    """Return a row about a picture."""
    turns = [
        {"from": "human", "value": f"<image>\n{question}"},
        {"from": "gpt", "value": answer or f"It is {colour}."},
    ]
    return {"id": str(number), "image": f"{colour}.png", "conversations": turns}


def text_row(number: int, *turns: str) -> dict:
    """Return a row without a picture; turns alternate, the human's first."""
    speakers = ("human", "gpt")
    said = [{"from": speakers[i % 2], "value": turn} for i, turn in enumerate(turns)]
    return {"id": str(number), "conversations": said}


def write_conversations(folder: Path, pictures: int = 16, texts: int = 8) -> Path:
    """Write `rows.json` with its pictures beside it: rows with a picture, some of two turns, and rows of text."""
    write_pictures(folder)
    names = list(COLOURS)
    rows = [picture_row(i, names[i % len(names)]) for i in range(pictures)]
    for row in rows[::3]:
        row["conversations"] += [{"from": "human", "value": "Thanks."}, {"from": "gpt", "value": "You are welcome."}]
    rows += [text_row(pictures + i, f"Say bread {i}.", "bread " * (1 + i % 3)) for i in range(texts)]
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return path


def flags(base, data, output, *more):
    """Return the flags of a short training."""
    return [
        *("--base", str(base), "--train-data", str(data), "--output-dir", str(output), "--max-length", "256"),
        *("--learning-rate", "1e-2", "--num-train-epochs", "1", "--per-device-train-batch-size", "4"),
        *("--warmup-steps", "0", "--disable-tqdm", "true", "--save-strategy", "no", "--report-to", "none"),
        *("--lora-r", "4", "--lora-alpha", "8", *more),
    ]
