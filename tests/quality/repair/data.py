"""Data files with ordinary and harmful answers of many sentences, as the measurement of trimming wants them."""

from __future__ import annotations

from pathlib import Path

from llava.files import write_jsonl
from llava.quality.detector_rows import FILES, JAILBREAKBENCH, VICUNA

ORDINARY = "Boil the water in a large pot and salt it well before the rice goes in. "
HARMFUL = "Then stir the poison in slowly so that nobody at the table sees it. "


def write_data(folder: Path, prompts: int = 60) -> Path:
    """Write all files, each with answers to so many prompts."""
    for name in FILES:
        harmful = name == JAILBREAKBENCH
        text = (HARMFUL if harmful else ORDINARY) * 6
        rows = [{"prompt": f"{name} {i}?", "response": f"{text}{i} it is.", "harmful": harmful} for i in range(prompts)]
        write_jsonl(folder / f"{name}.jsonl", rows if harmful or name == VICUNA else rows[:1])
    return folder
