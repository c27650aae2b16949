"""What the report page shows: the summary's numbers and the records, in the form the template wants."""

from __future__ import annotations

import base64
import io
import math
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

from llava.bounds import flag
from llava.data.schema import Record, RecordKey
from llava.data.token_scores import TokenScore
from llava.errors import InputError, hide_credentials
from llava.eval.report.headline import build_headline, choose_examples, describe_spoilt
from llava.eval.report.next_steps import PROGRAM, find_program, list_next_steps
from llava.eval.run.settings import AUTO, GenerationSettings
from llava.eval.scoring.metrics import shown_text
from llava.model.options import LoadOptions

THUMBNAIL_PIXELS = 72
THUMBNAIL_QUALITY = 45
THUMBNAIL_CHUNK = 64
THUMBNAIL_BUDGET = 6_000_000
"""Bytes that all thumbnails together may take in the page."""
TEXT_BUDGET = 7_000_000
"""Characters that all texts together may take in the page."""
HARM_LEVELS = 4
"""Colours of a harmful passage, from pale to strong."""
TEXT_LIMITS = (4000, 2000, 1000, 600, 300, 150)
"""Lengths to which texts are cut; the first that keeps the budget is used."""


def build_view(
    run: dict[str, Any],
    summary: dict[str, Any],
    records: Sequence[Record],
    verdicts: Mapping[RecordKey, list[bool | None]],
) -> dict[str, Any]:
    """Return everything the template needs.

    Args:
        run: Content of `run.json`.
        summary: Content of `summary.json`.
        records: The run's records.
        verdicts: The first judge's opinion by key: unsafe before and, with a protector, after.
    """
    limit = choose_text_limit(records)
    headline = build_headline(summary)
    program = find_program()
    thumbnails = build_thumbnails(records)
    places = {path: place for place, path in enumerate(thumbnails)}
    return {
        "summary": summary,
        "headline": headline,
        "spoilt": describe_spoilt(headline),
        "heatmap": build_heatmap(summary),
        "histogram": build_histogram(summary),
        "command": build_command(run),
        # A page is handed on; where things lie on this machine is nobody's business.
        "next_steps": list_next_steps(program if not Path(shlex.split(program)[0]).is_absolute() else PROGRAM),
        "text_limit": limit if any(len(text) > limit for record in records for text in texts_of(record)) else None,
        "explorer": {
            "rows": [build_row(record, limit, places, verdicts.get(record.key)) for record in records],
            "thumbnails": list(thumbnails.values()),
            "examples": choose_examples(records, verdicts),
        },
    }


def build_heatmap(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the rows and columns of the scenario × image type map, those that hold harmful questions.

    A cell that was not asked is None.
    """
    columns = [name for name, group in summary["by_image_type"].items() if has_harmful(group)]
    rows = []
    for scenario, by_type in summary["by_scenario_and_image_type"].items():
        if has_harmful(summary["by_scenario"][scenario]):
            cells = {
                side: [by_type[column][side] if column in by_type else None for column in columns]
                for side in ("unprotected", "protected")
            }
            rows.append({"name": scenario, **cells})
    return {"columns": columns, "rows": rows}


def has_harmful(group: dict[str, Any]) -> bool:
    """Tell whether a group of the summary holds harmful questions."""
    return bool(group["unprotected"]["n"] or group["unprotected"]["unscored"])


def build_histogram(summary: dict[str, Any]) -> dict[str, Any] | None:
    """Return the bars of the harm scores, for harmful and benign questions; None when nothing was scored."""
    scores = summary.get("harm_scores")
    if not scores:
        return None
    counts = list(zip(scores["harmful"]["bins"], scores["benign"]["bins"], strict=True))
    tallest = max(a + b for a, b in counts)
    bins = [
        {
            "low": place / len(counts),
            "high": (place + 1) / len(counts),
            "harmful": harmful,
            "benign": benign,
            "harmful_height": harmful / tallest,
            "benign_height": benign / tallest,
        }
        for place, (harmful, benign) in enumerate(counts)
    ]
    threshold = (summary.get("protector") or {}).get("threshold")
    return {"bins": bins, "tallest": tallest, "threshold": threshold, "benign": scores["benign"]["n"] > 0}


SWITCHED_ON = ("trim", "share_backbone")
"""Settings that are on where nothing is said, and can be switched off."""


def build_command(run: dict[str, Any]) -> str:
    """Return the command that repeats a run, from the content of its `run.json`; RUN stands for a new folder.

    Every setting that is not the default is in it. `auto` is spelt out as what it stood for, since another batch size
    or dtype moves last bits.
    """
    settings, fingerprint = run.get("settings", {}), run.get("fingerprint", {})
    words = ["mllm-protector", "generate", "--output", "RUN"]
    loading = {field.name for field in fields(LoadOptions)}
    # The run's own settings first, then how its model is loaded.
    for field in sorted(fields(GenerationSettings), key=lambda field: field.name in loading):
        value = settings.get(field.name, field.default)
        if value == AUTO:
            value = fingerprint.get(field.name, AUTO)
        if field.name in SWITCHED_ON and value is None and settings.get("detector") and fingerprint:
            # It was not done where the run does not say so, as in those from before there was such a thing.
            value = None if fingerprint.get(field.name) else False
        if field.name in ("model", "benchmark") or value != field.default:
            words += write_flag(field.name, value)
    return shlex.join(words)


def write_flag(name: str, value: Any) -> list[str]:
    """Return a setting as words of the command line; none for what cannot be or need not be given."""
    if name in SWITCHED_ON and value is False:
        return [flag(f"no_{name}")]
    if name == "output" or value is None or value is MISSING or value is False:
        return []
    if value is True:
        return [flag(name)]
    # Runs of earlier versions kept an endpoint's address with its password.
    return [flag(name), hide_credentials(",".join(value) if isinstance(value, list | tuple) else str(value))]


def build_row(
    record: Record, limit: int, places: Mapping[str, int], unsafe: list[bool | None] | None
) -> dict[str, Any]:
    """Return one record as the page's script reads it; short names, for there are thousands of rows."""
    question, guard = record.question, record.guard
    text = shown_text(record)
    return {
        "s": question.scenario,
        "t": question.image_type.value,
        "i": question.id,
        "q": cut(question.prompt, limit),
        "r": cut(record.response, limit),
        "p": cut(text, limit) if text != record.response else None,
        "a": guard.action.value if guard else None,
        "h": round(guard.harm_score, 4) if guard and guard.harm_score is not None else None,
        "w": record.refusal or (guard.reason if guard else None),
        "b": 0 if question.harmful else 1,
        # A full answer to a benign question is what one wants; "unsafe" would mislead there.
        "u": unsafe if question.harmful else None,
        "x": mark_harm(guard.token_scores, cut(record.response, limit)) if guard and guard.token_scores else None,
        "g": places.get(question.image) if question.image else None,
    }


def mark_harm(scores: Sequence[TokenScore], text: str) -> list[list[int]]:
    """Return the stretches of a response that are coloured: `[start, end, level]`, from 1 (a little) to 4 (harmful).

    Args:
        scores: The scores of its tokens.
        text: What the page shows of the response.

    Returns:
        The stretches, counted as browsers do: a character outside Unicode's first plane, such as an emoji, is two.

    Example:
        >>> mark_harm([TokenScore(0, 4, 0.1), TokenScore(4, 9, 0.85), TokenScore(9, 12, 0.9)], "Well, do it")
        [[4, 11, 4]]
    """
    marked: list[list[int]] = []
    for start, end, score in scores:
        level = min(HARM_LEVELS, int(score * (HARM_LEVELS + 1))) if math.isfinite(score) else HARM_LEVELS
        end = min(end, len(text))
        if not level or start >= end:
            continue
        if marked and marked[-1][1] >= start and marked[-1][2] == level:
            marked[-1][1] = end
        else:
            marked.append([start, end, level])
    if text and max(text) > "\uffff":
        places = [0, *accumulate(1 + (character > "\uffff") for character in text)]
        return [[places[start], places[end], level] for start, end, level in marked]
    return marked


def texts_of(record: Record) -> tuple[str, ...]:
    """Return the texts of a record that the page shows."""
    text = shown_text(record)
    return (record.question.prompt, record.response) + ((text,) if text != record.response else ())


def choose_text_limit(records: Sequence[Record]) -> int:
    """Return the length to which texts are cut so that all of them together keep the budget."""
    for limit in TEXT_LIMITS:
        if sum(min(len(text), limit) for record in records for text in texts_of(record)) <= TEXT_BUDGET:
            break
    return limit


def cut(text: str, limit: int) -> str:
    """Return `text`, or its start and an ellipsis when it is longer than `limit`."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def build_thumbnails(records: Sequence[Record]) -> dict[str, str]:
    """Return image path → data URI, as many as the budget allows, without images that are not there any more."""
    thumbnails: dict[str, str] = {}
    left = THUMBNAIL_BUDGET
    paths = list(dict.fromkeys(record.question.image for record in records if record.question.image))
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), THUMBNAIL_CHUNK):
            chunk = paths[start : start + THUMBNAIL_CHUNK]
            for path, data in zip(chunk, pool.map(build_thumbnail, chunk), strict=True):
                if data is not None and left > 0:
                    thumbnails[path] = data
                    left -= len(data)
            if left <= 0:
                break
    return thumbnails


def build_thumbnail(path: str) -> str | None:
    """Return a small JPEG of an image as a data URI, or None when it cannot be read any more."""
    from llava.data.images import open_image

    try:
        image = open_image(path)
    except InputError:
        # The picture was fine when the question was asked; its numbers stand without a thumbnail.
        return None
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
