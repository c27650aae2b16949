"""What a reader wants to know first: led astray without the protector, with it, and what it costs harmless users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from llava.data.schema import ImageType, Record, RecordKey
from llava.eval.report.tables import SIDES, format_percent, print_table
from llava.eval.scoring.metrics import shown_text
from llava.terminal import build_console, clean_text

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = 3
"""Answers that the page shows before and after."""

BLIND_SPOTS = {
    "keyword": "counts every answer that is not a refusal. It cannot see whether an answer helps anybody: nonsense and "
    "harmless rewrites count as led astray.",
    "detector": "is a harm detector. It cannot see what the protector's own detector misses, where the two are one or "
    "were trained alike.",
}
"""Kind of judge → what it counts, and what it cannot see."""


class Count(NamedTuple):
    """So many of so many."""

    hits: int
    of: int

    @property
    def rate(self) -> float:
        """The share of them."""
        return self.hits / self.of


def build_headline(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the three answers, taken from a summary.

    Args:
        summary: Content of `summary.json`.

    Returns:
        `astray`: for each side (`unprotected`, and `protected` where there was a protector) the harmful questions that
        led the model astray, by `text` alone and with an `image`, each a `Count` or None when none was asked; `spoilt`:
        the harmless questions whose answer the protector changed, None without any or without a protector; `judge`, and
        `judge_note`, what is known of its kind.
    """
    by_type = summary["by_image_type"]
    text = [group for name, group in by_type.items() if name == ImageType.TEXT.value]
    image = [group for name, group in by_type.items() if name != ImageType.TEXT.value]
    overall = summary["overall"]
    benign = overall["benign"]
    return {
        "astray": {
            side: {"text": count_astray(text, side), "image": count_astray(image, side)}
            for side in SIDES
            if overall[side]
        },
        "spoilt": Count(benign["changed"], benign["unprotected"]["n"])
        if benign and benign["changed"] is not None and benign["unprotected"]["n"]
        else None,
        "benign": benign is not None,
        "judge": summary["judge"],
        "judge_note": BLIND_SPOTS.get(summary["judge"].partition(":")[0]),
    }


def count_astray(groups: Iterable[Mapping[str, Any]], side: str) -> Count | None:
    """Return how many harmful questions of all groups led the model astray; None when none was asked and scored.

    Example:
        >>> group = {"unprotected": {"n": 8, "attack_success_rate": 0.25}}
        >>> count_astray([group, group], "unprotected")
        Count(hits=4, of=16)
    """
    sides = [group[side] for group in groups if group[side] and group[side]["n"]]
    if not sides:
        return None
    return Count(
        sum(round(each["attack_success_rate"] * each["n"]) for each in sides), sum(each["n"] for each in sides)
    )


def format_count(count: Count | None) -> str:
    """Return a count as the terminal shows it.

    Example:
        >>> format_count(Count(13, 52)), format_count(None)
        ('13 of 52 (25 %)', '–')
    """
    return "–" if count is None else f"{count.hits} of {count.of} ({format_percent(count.rate, 0)} %)"


def describe_spoilt(headline: Mapping[str, Any]) -> str:
    """Return in one sentence what the protector did to harmless questions."""
    if headline["spoilt"]:
        spoilt = headline["spoilt"]
        return f"harmless questions whose answer the protector changed: {spoilt.hits} of {spoilt.of}"
    if "protected" not in headline["astray"]:
        return "no protector stood behind the model in this run"
    return "harmless questions: none could be counted" if headline["benign"] else "harmless questions: none were asked"


def print_headline(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the three answers to the terminal, in a few lines.

    Args:
        summary: Content of `summary.json`.
        console: Where to print; None takes stdout.
    """
    console = console or build_console()
    headline = build_headline(summary)
    names = {"unprotected": "without the protector", "protected": "with the protector"}
    rows = [
        [names[side], format_count(counts["text"]), format_count(counts["image"])]
        for side, counts in headline["astray"].items()
    ]
    title = f"{summary['model']} on {summary['benchmark']}"
    caption = "harmful questions that the judge saw answered"
    print_table(title, caption, ("led astray", "by text", "by images"), rows, console)
    console.print(describe_spoilt(headline))
    console.print(clean_text(f"judge {headline['judge']} {headline['judge_note'] or 'made these numbers.'}"))


def choose_examples(records: Sequence[Record], verdicts: Mapping[RecordKey, Sequence[bool | None]]) -> list[int]:
    """Return the places of the answers to show before and after: harmful questions, those that changed most first.

    Most is: the judge called the answer unsafe before and safe after; then any that the protector changed; then by harm
    score. Of answers that are alike in this, each comes from another scenario or image type as long as there are some.
    Without a protector there is no after, and no example.
    """
    candidates = [(place, record) for place, record in enumerate(records) if record.guard and record.question.harmful]

    def rank(item: tuple[int, Record]) -> tuple[bool, bool, float]:
        record = item[1]
        turned = list(verdicts.get(record.key, ())) == [True, False]
        score = record.guard.harm_score if record.guard and record.guard.harm_score is not None else 0.0
        return not turned, shown_text(record) == record.response, -score

    left = sorted(candidates, key=rank)
    chosen: list[tuple[int, Record]] = []
    while left and len(chosen) < EXAMPLES:
        best = rank(left[0])[:2]
        scenarios = {record.question.scenario for _, record in chosen}
        types = {record.question.image_type for _, record in chosen}
        alike = [item for item in left if rank(item)[:2] == best]
        new = [item for item in alike if item[1].question.scenario not in scenarios] or alike
        found = next((item for item in new if item[1].question.image_type not in types), new[0])
        chosen.append(found)
        left.remove(found)
    return [place for place, _ in chosen]
