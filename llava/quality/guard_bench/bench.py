"""Run a guard over labelled responses, plain and in disguise, and write its figures down."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.bounds import check_bounds
from llava.data.evasions import choose_evasions, disguise
from llava.errors import InputError
from llava.files import write_json, write_text_atomic
from llava.model.options import LoadOptions, collect_options
from llava.places import check_output_folder
from llava.protector.guard import build_guard, check_guard
from llava.quality.bootstrap import RESAMPLES
from llava.quality.guard_bench.figures import Scored, measure, measure_evasion
from llava.quality.guard_bench.plots import draw_roc
from llava.quality.guard_bench.published import load_published
from llava.quality.guard_bench.readers import Answer, Source, read_sources
from llava.quality.guard_bench.report import render_markdown
from llava.quality.guard_bench.scores import ScoreBook, count_megabytes

JSON_NAME, MARKDOWN_NAME = "guard_bench.json", "guard_bench.md"
ALL = "all"
"""Name of the figures over all sources together."""


@dataclass
class Part:
    """One source with its scores."""

    name: str
    answers: list[Answer]
    scores: list[float]

    def scored(self, scores: Sequence[float] | None = None) -> Scored:
        """Return labels, scores and questions; other scores of the same responses where they are given."""
        return Scored.build(
            [answer.harmful for answer in self.answers],
            self.scores if scores is None else scores,
            [answer.group for answer in self.answers],
        )


def run_bench(
    inputs: Sequence[str | Path],
    output: str | Path,
    detector: str = "embedded",
    *,
    threshold: float | None = None,
    evasions: Collection[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    batch_size: int | None = None,
    options: LoadOptions | None = None,
    **keywords: Any,
) -> dict[str, Any]:
    """Measure a guard on labelled responses.

    Writes `guard_bench.json`, `guard_bench.md` and `roc.png` into a folder, and the scores as they come, so that a run
    that was killed goes on where it stopped.

    Args:
        inputs: Files of labelled responses, see `readers.read_sources`.
        output: Folder to write into; it may be one of a former run.
        detector: Any guard, see `build_guard`.
        threshold: Score from which a response is flagged; None takes the guard's own.
        evasions: Names of disguises to measure too, or `all`; see `llava.data.evasions`.
        limit: At most so many responses of each source.
        seed: Seed of the limit's draw, the bootstrap and the disguises.
        resamples: Draws of the bootstrap; 0 leaves intervals out.
        batch_size: Texts at a time; None leaves it to the guard.
        options: How the guard is loaded; None stands for the defaults.
        keywords: Fields of `LoadOptions` by name; they win over `options`.

    Returns:
        What `guard_bench.json` holds.

    Raises:
        InputError: When an input, the guard or the folder cannot be used. Nothing is written then.
        FailedRunError: When the guard returns no scores, or the disk is full.
    """
    check_bounds("seed", seed)
    if threshold is not None:
        check_bounds("threshold", threshold)
    names = choose_evasions(evasions)
    folder = Path(output)
    check_output_folder(folder)
    if not inputs:
        raise InputError("--input is missing; give at least one file of labelled responses")
    reading = read_sources(inputs, limit, seed)
    chosen = collect_options(options, keywords)
    check_guard(detector, chosen)
    guard = build_guard(detector, chosen, batch_size=batch_size)
    flags_at = guard.threshold if threshold is None else threshold
    book = ScoreBook(folder, guard, chosen)
    parts = [
        Part(source.name, source.answers, score_answers(book, source.answers, source.name))
        for source in reading.sources
    ]
    every = Part(ALL, [a for part in parts for a in part.answers], [s for part in parts for s in part.scores])
    report: dict[str, Any] = {
        "detector": detector,
        "guard": guard.name,
        "identity": guard.identity,
        "threshold": flags_at,
        "seed": seed,
        "limit": limit,
        "resamples": resamples,
        "device": str(chosen.pick_device()),
        "dtype": chosen.dtype,
        "milliseconds": 1000 * book.seconds_of(*columns_of(every.answers)),
        "megabytes": count_megabytes(guard),
        "remarks": [*reading.remarks, *describe_unscored(every)],
        ALL: measure(every.scored(), flags_at, resamples=resamples, seed=seed),
        "sources": [
            describe_source(source, part, flags_at, resamples, seed)
            for source, part in zip(reading.sources, parts, strict=True)
        ],
        "evasions": measure_evasions(book, parts, every, names, flags_at, resamples, seed),
    }
    report["published"] = list_published(reading.sources)
    write_json(folder / JSON_NAME, report)
    write_text_atomic(folder / MARKDOWN_NAME, render_markdown(report))
    drawn = parts if len(parts) == 1 else [*parts, every]
    draw_roc([(part.name, part.scored()) for part in drawn], folder, flags_at)
    return report


def columns_of(answers: Sequence[Answer], evasion: str | None = None, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return questions and answers as two lists, the answers in disguise where one is named."""
    texts = [answer.response if evasion is None else disguise(answer.response, evasion, seed) for answer in answers]
    return [answer.prompt for answer in answers], texts


def score_answers(
    book: ScoreBook, answers: Sequence[Answer], label: str, evasion: str | None = None, seed: int = 0
) -> list[float]:
    """Return the harm score of each answer, in disguise where one is named."""
    return book.score(*columns_of(answers, evasion, seed), label=label)


def describe_source(source: Source, part: Part, threshold: float, resamples: int, seed: int) -> dict[str, Any]:
    """Return the figures of one source, and what it is."""
    return {
        "name": source.name,
        "form": source.form,
        "benchmark": source.benchmark or None,
        "unlabelled": source.unlabelled,
        "empty": source.empty,
        **measure(part.scored(), threshold, resamples=resamples, seed=seed),
    }


def describe_unscored(every: Part) -> list[str]:
    """Return the sentence about responses that the guard could not score, if there are any."""
    count = sum(score != score for score in every.scores)
    if not count:
        return []
    return [f"{count} of {len(every.scores)} responses could not be scored and count as flagged: such are withheld"]


def measure_evasions(
    book: ScoreBook,
    parts: Sequence[Part],
    every: Part,
    names: Sequence[str],
    threshold: float,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return what each disguise does to the guard: over all sources, and by source without intervals."""
    found = []
    for name in names:
        hidden = [score_answers(book, part.answers, name, name, seed) for part in parts]
        together = every.scored([score for scores in hidden for score in scores])
        found.append(
            {
                "name": name,
                **measure_evasion(every.scored(), together, threshold, resamples=resamples, seed=seed),
                "by_source": {
                    part.name: measure_evasion(part.scored(), part.scored(scores), threshold, resamples=0)
                    for part, scores in zip(parts, hidden, strict=True)
                },
            }
        )
    return found


def list_published(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return the published figures on the sets that were measured."""
    measured = {source.benchmark for source in sources}
    return [vars(each) for each in load_published() if each.benchmark in measured]
