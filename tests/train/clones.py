"""Small stand-ins for the clones that the shipped adapters' data is made from, with mild texts."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from llava.files import write_jsonl
from tests.train.samples import sentence

REFUSAL = "I'm sorry, but I can't help with {goal}. " + "It could do harm to others, and that is why. " * 3


def build_clones(folder: Path, goals: int = 30) -> Path:
    """Write `artifacts`, `ECSO` and `hh-rlhf` with as many goals, questions and pairs."""
    generator = random.Random(0)
    for model, jailbroken in (("one", True), ("two", False)):
        rows = [
            {
                "index": i,
                "goal": f"goal {i}",
                "category": "c",
                "prompt": "p",
                "response": f"{sentence(generator)} thorn" if jailbroken else REFUSAL.format(goal=f"goal {i}").strip(),
                "jailbroken": jailbroken,
            }
            for i in range(goals)
        ]
        path = folder / "artifacts" / "attack-artifacts" / "PAIR" / "black_box" / f"{model}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"parameters": {"method": "PAIR", "model": model}, "jailbreaks": rows}))
    table = folder / "ECSO" / "llava" / "eval" / "table"
    write_jsonl(table / "question.jsonl", ({"question_id": i, "text": f"question {i}"} for i in range(goals)))
    write_jsonl(
        table / "answer" / "answer_bard.jsonl",
        ({"question_id": i, "text": f"{sentence(generator)} bloom"} for i in range(goals)),
    )
    pairs = folder / "hh-rlhf" / "harmless-base" / "test.jsonl.gz"
    pairs.parent.mkdir(parents=True)
    lines = []
    for i in range(goals):
        start = f"\n\nHuman: pair question {i}\n\nAssistant: "
        chosen, rejected = (f"{start}{sentence(generator)} {word}" for word in ("bloom", "thorn"))
        lines.append(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")
    pairs.write_bytes(gzip.compress("".join(lines).encode()))
    return folder
