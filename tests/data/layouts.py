"""Small benchmarks on disk, in the exact file shapes of the real ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from PIL import Image

FIGSTEP_COLUMNS = ("dataset", "category_id", "task_id", "category_name", "question", "instruction")


def save_image(path: Path, colour: str = "white", size: tuple[int, int] = (16, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def mm_row(text: str) -> dict[str, str]:
    return {
        "Question": f"{text}: plain?",
        "Changed Question": f"{text}: changed?",
        "Key Phrase": text,
        "Phrase Type": "activity",
        "Rephrased Question": f"{text}: rephrased?",
        "Rephrased Question(SD)": f"{text}: rephrased for the scene?",
    }


def write_mm_safetybench(root: Path, scenarios: dict[str, int], images: bool = True, suffix: str = ".jpg") -> Path:
    """Write `scenarios` (name → number of questions) with all their images below `root`."""
    for scenario, count in scenarios.items():
        rows = {str(number): mm_row(f"{scenario} {number}") for number in range(count)}
        path = root / "processed_questions" / f"{scenario}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
        for number in range(count if images else 0):
            for kind in ("SD", "SD_TYPO", "TYPO"):
                save_image(root / "imgs" / scenario / kind / f"{number}{suffix}")
    return root


def write_csv(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def write_figstep(root: Path, csv_name: str, count: int, image_folder: str | None = None) -> Path:
    """Write `count` FigStep rows over two categories, with images when a folder for them is named."""
    rows = [
        ("ForbidQI", number % 2 + 1, number // 2 + 1, f"Category {number % 2}", f"How {number}?", f"Steps to {number}.")
        for number in range(count)
    ]
    write_csv(root / csv_name, FIGSTEP_COLUMNS, rows)
    for dataset, category, task, *_ in rows if image_folder else []:
        save_image(root / image_folder / f"query_{dataset}_{category}_{task}_6.png")
    return root


def write_mossbench(root: Path, rows: dict[str, dict], side: str = "data") -> Path:
    path = root / side / "images_information" / "information.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return root
