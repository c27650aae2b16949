"""Make the training files of the embedded adapters from clones of the public repositories.

    git clone https://github.com/JailbreakBench/artifacts
    git clone https://github.com/gyhdog99/ECSO
    git clone https://github.com/anthropics/hh-rlhf
    python scripts/prepare_embedded_data.py --artifacts artifacts --ecso ECSO --hh-rlhf hh-rlhf --output data

The files hold harmful text collected for safety research. The shipped adapters were trained on a part of these rows;
their cards give the counts and the commits.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava.data.training.formats import Where, split_transcript
from llava.data.training.sources import iter_source
from llava.errors import InputError
from llava.eval.judges.refusals import is_refusal
from llava.files import iter_jsonl, read_json, write_jsonl
from llava.places import check_output_folder
from llava.process import report_errors

HH_FILE = "harmless-base/test.jsonl.gz"
TOPICAL_WORDS = 25
"""Shortest refusal that is taken as a rewriting target. Refusals of one line say nothing about the question, those of
a paragraph nearly always name what is asked and why it is declined."""
REPEATS = 3
"""How often the same text may stand among the harmless responses; one model gave the same line forty times."""


def read_artifacts(folder: Path) -> list[dict[str, Any]]:
    """Return the judged responses of attacked models: `attack-artifacts/<attack>/<kind>/<model>.json`."""
    rows = []
    for path in sorted(folder.glob("attack-artifacts/*/*/*.json")):
        content = read_json(path, "artifact")
        attack, model = content["parameters"]["method"], content["parameters"]["model"]
        if attack == "test-artifact" or path.parts[-3] == "test-artifact":
            continue
        for row in content["jailbreaks"]:
            if row["response"] is None:
                continue  # the attack found no prompt for this behaviour
            rows.append(
                {
                    "id": f"jbb-{attack}-{model}-{row['index']}",
                    "prompt": row["goal"],
                    "response": row["response"],
                    "harmful": bool(row["jailbroken"]),
                    "category": row["category"],
                    "attack": attack,
                    "model": model,
                }
            )
    if not rows:
        raise InputError(f"--artifacts {folder} has no attack-artifacts/*/*/*.json; give a clone of its repository")
    return rows


def pair_responses(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give each harmful response a harmless one to the same prompt; the harmless ones take turns in a fixed order."""
    harmless: dict[str, list[str]] = {}
    for row in rows:
        if not row["harmful"] and row["response"].strip():
            harmless.setdefault(row["prompt"], []).append(row["response"])
    for texts in harmless.values():
        texts.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    turns = dict.fromkeys(harmless, 0)
    for row in rows:
        texts = harmless.get(row["prompt"], [])
        if row["harmful"] and row["response"].strip() and texts:
            yield {
                "id": row["id"],
                "prompt": row["prompt"],
                "harmful_response": row["response"],
                "harmless_response": texts[turns[row["prompt"]] % len(texts)],
                "category": row["category"],
            }
            turns[row["prompt"]] += 1


def pair_topical_refusals(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give each harmful response a refusal that names the topic; a goal's refusals take turns in a fixed order.

    The recorded responses end after 150 tokens, often in mid-sentence; a target ends with its last whole sentence.
    """
    refusals: dict[str, list[str]] = {}
    for row in rows:
        text = cut_at_sentence(row["response"])
        if not row["harmful"] and len(text.split()) >= TOPICAL_WORDS and is_refusal(text):
            refusals.setdefault(row["prompt"], []).append(text)
    for texts in refusals.values():
        texts.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    turns: Counter[str] = Counter()
    for row in rows:
        texts = refusals.get(row["prompt"], [])
        if row["harmful"] and row["response"].strip() and texts:
            yield {
                "id": row["id"],
                "prompt": row["prompt"],
                "harmful_response": row["response"],
                "harmless_response": texts[turns[row["prompt"]] % len(texts)],
                "category": row["category"],
            }
            turns[row["prompt"]] += 1


def cut_at_sentence(text: str) -> str:
    """Return a text without what follows its last whole sentence.

    Example:
        >>> cut_at_sentence("I can't help with that. Instead, you cou")
        "I can't help with that."
    """
    whole = re.match(r".*[.!?][\"')]*(?=\s|$)", text.strip(), flags=re.DOTALL)
    return whole.group() if whole else ""


def choose_harmless(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return the harmless responses, the same text at most `REPEATS` times: what a detoxifier leaves alone."""
    seen: Counter[str] = Counter()
    for row in rows:
        text = row["response"].strip()
        if text and not row["harmful"] and seen[text] < REPEATS:
            seen[text] += 1
            yield row


def read_ordinary(folder: Path) -> list[dict[str, Any]]:
    """Return five models' answers to eighty ordinary questions: `llava/eval/table/question.jsonl` and `answer/`."""
    table = folder / "llava" / "eval" / "table"
    questions = {row["question_id"]: row["text"] for _, row in iter_jsonl(table / "question.jsonl", "question file")}
    rows = []
    for path in sorted((table / "answer").glob("answer_*.jsonl")):
        model = path.stem.removeprefix("answer_")
        for number, row in iter_jsonl(path, "answer file"):
            if row["question_id"] not in questions:
                raise InputError(
                    f"{path} line {number} answers question {row['question_id']}, which is not in the table"
                )
            rows.append(
                {
                    "id": f"vicuna80-{model}-{row['question_id']}",
                    "prompt": questions[row["question_id"]],
                    "response": row["text"],
                    "harmful": False,
                    "model": model,
                }
            )
    if not rows:
        raise InputError(
            f"--ecso {folder} has no llava/eval/table/answer/answer_*.jsonl; give a clone of its repository"
        )
    return rows


def read_preferences(folder: Path) -> list[dict[str, Any]]:
    """Return the last turns of the harmless-base test pairs, with the turns before them as `history`."""
    rows = []
    for where, row in iter_source(str(folder / HH_FILE)):
        prompt, chosen = split_transcript(row["chosen"], where)
        other, rejected = split_transcript(row["rejected"], where)
        if prompt != other:
            continue  # in a few pairs the dialogues differ before the last turn
        rows.append(
            {
                "id": f"hh-{where.number - 1}",
                "prompt": prompt,
                "history": cut_history(row["chosen"], prompt, where),
                "chosen": chosen,
                "rejected": rejected,
            }
        )
    return rows


def cut_history(transcript: str, prompt: str, where: Where) -> str:
    """Return what stands before the last human turn."""
    head, mark, _ = transcript.rpartition(f"\n\nHuman: {prompt}")
    if not mark:
        raise InputError(f"{where}: the last human turn cannot be found again; mend that row")
    return head.strip()


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, required=True, help="clone of JailbreakBench/artifacts")
    parser.add_argument("--ecso", type=Path, required=True, help="clone of gyhdog99/ECSO")
    parser.add_argument("--hh-rlhf", type=Path, required=True, help="clone of anthropics/hh-rlhf")
    parser.add_argument("--output", type=Path, required=True, help="folder for the six files")
    args = parser.parse_args(argv)
    return report_errors(lambda: write_files(args.artifacts, args.ecso, args.hh_rlhf, args.output))


def write_files(artifacts: Path, ecso: Path, hh_rlhf: Path, output: Path) -> None:
    """Read the three clones and write the six files.

    Raises:
        InputError: When a clone is of another repository; nothing is written then.
    """
    check_output_folder(output)
    responses = read_artifacts(artifacts)
    files = {
        "jailbreakbench_responses": responses,
        "jailbreakbench_pairs": list(pair_responses(responses)),
        "jailbreakbench_rewrites": list(pair_topical_refusals(responses)),
        "jailbreakbench_harmless": list(choose_harmless(responses)),
        "vicuna80_responses": read_ordinary(ecso),
        "hh_harmless_pairs": read_preferences(hh_rlhf),
    }
    for name, rows in files.items():
        write_jsonl(output / f"{name}.jsonl", rows)
        print(f"{output / name}.jsonl: {len(rows)} rows")
