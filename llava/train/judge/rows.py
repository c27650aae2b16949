"""What the shipped judge learns from: rows whose prompt and answer the shipped detector never learnt from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from llava.data.training.made_answers import SENTENCES as DETECTOR_SENTENCES
from llava.data.training.made_answers import draw_pairs, read_sentences
from llava.data.training.pairs import DetectorRow
from llava.data.training.splits import normalise_prompt
from llava.eval.judges.refusals import is_refusal
from llava.quality.cards import load_detector_split
from llava.quality.detector_groups import name_row
from llava.quality.detector_rows import MSTS, KeyedRow, load_rows
from llava.quality.judge.rows import DIASAFETY, GPTFUZZ, is_measured
from llava.train.embedded.detector import collect_pairs, collect_rows, read_recipe
from llava.train.embedded.selection import is_long, middle_sentences

SENTENCES = DETECTOR_SENTENCES.with_name("judge_answers.yaml")
MADE, PLAIN, EXCERPTS = "judge_answers", "judge_ordinary", "excerpts"
"""Sources of made rows: answers to questions that ask for harm, ordinary ones, and sentences out of long answers."""
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SHARES = {
    GPTFUZZ: 3.0,
    MADE: 3.0,
    PLAIN: 1.5,
    EXCERPTS: 1.0,
    DIASAFETY: 1.0,
    MSTS: 0.7,
    "alpaca_eval": 0.7,
    "t0_short": 0.7,
    "ablation_responses": 0.3,
    "self_defense_responses": 0.3,
}
"""The sources, and what the rows of each count together: most where answers to harmful questions are."""
LATER_STEPS = ("embedded_detector_upper.yaml", "embedded_detector_short.yaml")
"""Recipes of the detector's second and third step; the first learns from the training side of its files."""
MADE_EACH = 30
"""Made rows of every kind and label."""
MOST_DIASAFETY = 4000
"""Rows of DiaSafety, chosen by their hash: its labels are wider than harm."""


def list_detector_rows(data: Path) -> list[DetectorRow]:
    """Return every row that a step of the shipped detector's training learnt from.

    Args:
        data: Folder of the data files, see `llava/quality/detector_rows.py`.
    """
    rows, _ = load_detector_split(data)
    for name in LATER_STEPS:
        recipe = read_recipe(CONFIGS / name)
        rows = [*rows, *collect_rows(data, recipe), *collect_pairs(data, recipe.pairs)]
    return rows


def collect_judge_rows(data: Path) -> list[KeyedRow]:
    """Return the labelled rows that the judge learns from, the made ones last.

    None of public data shares its prompt or its answer with a row of the detector's training, nor its prompt with a row
    that the judge is measured on. Made rows may share an everyday question, never a whole row.

    Args:
        data: Folder of the data files.
    """
    learnt = list_detector_rows(data)
    every = load_rows(data)
    prompts = name_prompts(learnt) | name_prompts(keyed.row for keyed in every if is_measured(keyed))
    answers = {normalise_answer(row.response) for row in learnt}
    known = [keyed for keyed in every if keyed.row.source in SHARES and not is_measured(keyed)]
    free = [keyed for keyed in known if is_free(keyed.row, prompts, answers)]
    noisy = sorted((keyed for keyed in free if keyed.row.source == DIASAFETY), key=name_row)[:MOST_DIASAFETY]
    trusted = [keyed for keyed in free if keyed.row.source != DIASAFETY]
    return [*trusted, *cut_rows(trusted), *noisy, *make_rows(MADE_EACH)]


def cut_rows(rows: Sequence[KeyedRow]) -> list[KeyedRow]:
    """Return a sentence or two from the middle of each long answer of two sources, as a row beside it.

    What long answers say in one sentence, a model says in a short answer.
    """
    long = [keyed for keyed in rows if keyed.row.source in (GPTFUZZ, "alpaca_eval") and is_long(keyed.row)]
    cut = [(keyed, middle_sentences(keyed.row)) for keyed in long]
    return [
        KeyedRow(DetectorRow(keyed.row.prompt, text, keyed.row.harmful, EXCERPTS), keyed.key)
        for keyed, text in cut
        if text and not (keyed.row.harmful and is_refusal(text))
    ]


def is_free(row: DetectorRow, prompts: Collection[str], answers: Collection[str]) -> bool:
    """Tell whether neither prompt nor answer of a row is among those taken.

    Example:
        >>> row = DetectorRow("How?", "So.", True, "x")
        >>> is_free(row, {"why"}, {"thus."}), is_free(row, {"how"}, set()), is_free(row, set(), {"so."})
        (True, False, False)
    """
    return normalise_prompt(row.prompt) not in prompts and normalise_answer(row.response) not in answers


def name_prompts(rows: Iterable[DetectorRow]) -> set[str]:
    """Return the prompts of rows, normalised; rows without a prompt have none to share."""
    return {normalise_prompt(row.prompt) for row in rows if row.prompt.strip()}


def normalise_answer(text: str) -> str:
    """Return an answer without differences of case and spacing.

    Example:
        >>> normalise_answer(" So it\\n IS. ")
        'so it is.'
    """
    return " ".join(text.split()).casefold()


def make_rows(each: int) -> list[KeyedRow]:
    """Return made rows: to questions that ask for harm, and ordinary ones; those of a kind belong together.

    Example:
        >>> rows = [keyed.row for keyed in make_rows(2)]
        >>> asked = [row for row in rows if row.source == MADE]
        >>> sum(row.harmful for row in asked) * 2 == len(asked), any(row.harmful for row in rows if row.source == PLAIN)
        (True, False)
    """
    sentences = read_sentences(SENTENCES)
    ordinary = [
        KeyedRow(DetectorRow(question, answer, False, PLAIN), f"{PLAIN}/{kind}")
        for kind, parts in sentences["ordinary"].items()
        for question, answer, _ in draw_pairs(parts["q"], parts["a"], sentences["words"], 2 * each, f"0/{kind}")
    ]
    return ordinary + [
        KeyedRow(DetectorRow(question, answer[0].upper() + answer[1:], label == "harmful", MADE), f"{MADE}/{kind}")
        for kind, parts in sentences["kinds"].items()
        for label in ("harmful", "harmless")
        for question, answer, _ in draw_pairs(parts["q"], parts[label], sentences["words"], each, f"0/{kind}/{label}")
    ]
