"""Time a detector in every way that it can be loaded, beside single precision, and compare the scores.

A way that is no faster is not worth a look at its scores. One that is, is held against single precision on answers
whose labels are known: how far scores move, whether other answers are flagged, and whether the order changes, by AUROC.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llava.errors import InputError
from llava.quality.speed.candidates import Candidate

if TYPE_CHECKING:
    from llava.data.training.pairs import DetectorRow
    from llava.protector.detector import HarmDetector

EACH = 4
"""Made answers of every kind and label."""
TIMED = 24
"""Answers that are timed, drawn over all lengths."""
REPEATS = 3
MOST_AUROC_LOST = 0.002
"""So much AUROC may a way cost that is recommended."""
LEAST_GAIN = 1.05
"""A way must be so many times as fast as single precision to be worth a flag; less is noise."""
HOPELESS = 2.0
"""What takes so many times as long as single precision is not timed again."""


@dataclass(frozen=True)
class Sample:
    """Labelled answers that come with the package, shortest first."""

    prompts: tuple[str, ...]
    """Questions."""
    responses: tuple[str, ...]
    """Answers."""
    labels: np.ndarray
    """True = harmful, (N,)."""

    def take(self, count: int) -> Sample:
        """Return so many of them, evenly over the lengths."""
        places = np.unique(np.linspace(0, len(self.responses) - 1, min(count, len(self.responses))).round().astype(int))
        return Sample(
            tuple(self.prompts[i] for i in places), tuple(self.responses[i] for i in places), self.labels[places]
        )


@dataclass(frozen=True)
class Figures:
    """What one way to load a detector is worth."""

    candidate: Candidate
    """The way."""
    seconds: float | None = None
    """Median for an answer of the timed ones; None where it did not run."""
    gain: float | None = None
    """How many times as fast as single precision, both timed in turn."""
    weight_bytes: int = 0
    """Bytes of the detector's weights."""
    largest_change: float | None = None
    """Largest change of a harm score; None where scores were not compared, and infinite where one is no number."""
    flags_changed: int = 0
    """Answers that one of the two flags and the other does not."""
    auroc_change: float | None = None
    """AUROC less that of single precision."""
    trouble: str = ""
    """Why it did not run."""

    @property
    def is_worth_it(self) -> bool:
        """Whether it is faster, and the scores are as good."""
        return (
            self.gain is not None
            and self.gain >= LEAST_GAIN
            and self.auroc_change is not None
            and self.auroc_change >= -MOST_AUROC_LOST
        )


def read_sample(each: int = EACH) -> Sample:
    """Make the fixed sample: harmful and harmless answers in the same words (`llava/data/training/made_answers.py`).

    Those are a sentence or two long. As models answer at greater length, as many answers again are harmless ones put
    together, with and without a harmful one among them.

    Args:
        each: Answers of every kind and label.

    Example:
        >>> sample = read_sample(1)
        >>> len(sample.responses) == len(sample.labels), set(sample.labels.tolist()) == {False, True}
        (True, True)
    """
    from llava.data.training.made_answers import make_harm
    from llava.data.training.pairs import DetectorRow

    rows = [made.row for made in make_harm(each)]
    plain = [row for row in rows if not row.harmful]
    for place, row in enumerate(rows[::2]):
        others = [plain[(place + step) % len(plain)].response for step in (3, 7, 11, 13)]
        text = " ".join([*others[:2], row.response, *others[2:]])
        rows.append(DetectorRow(row.prompt, text, row.harmful, row.source))
    rows.sort(key=lambda row: len(row.response))
    return build_sample(rows)


def build_sample(rows: Iterable[DetectorRow]) -> Sample:
    """Return rows as a sample."""
    kept = list(rows)
    return Sample(
        tuple(row.prompt for row in kept),
        tuple(row.response for row in kept),
        np.array([row.harmful for row in kept], dtype=bool),
    )


def measure_candidates(
    detector: str,
    candidates: list[Candidate],
    sample: Sample,
    *,
    base: str | None = None,
    repeats: int = REPEATS,
    timed: int = TIMED,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Figures]:
    """Measure each candidate beside the first, one after another in memory.

    Args:
        detector: The detector: `embedded`, a folder, or a hub id.
        candidates: Ways to load it; the first is the yardstick.
        sample: Answers.
        base: Base model of an adapter, instead of the one that it names.
        repeats: How often each is timed.
        timed: Answers that are timed.
        clock: What tells the time, in seconds.

    Yields:
        Figures of each candidate; of one that cannot be loaded or does not run, what the trouble is.

    Raises:
        InputError: When the detector cannot be loaded in the first way.
    """
    few = sample.take(timed)
    yardstick = _load(detector, candidates[0], base)
    expected = np.array(yardstick.score(sample.responses, sample.prompts))
    first = _time_both(yardstick, yardstick, few, repeats, clock)
    yield Figures(candidates[0], first[0], 1.0, count_bytes(yardstick), 0.0, 0, 0.0)
    for candidate in candidates[1:]:
        try:
            other = _load(detector, candidate, base)
            seconds, reference = _time_both(other, yardstick, few, repeats, clock)
            figures = Figures(candidate, seconds, reference / seconds, count_bytes(other))
            if reference / seconds >= LEAST_GAIN:
                found = np.array(other.score(sample.responses, sample.prompts))
                figures = compare_scores(figures, sample.labels, expected, found, yardstick.threshold)
            yield figures
        except (InputError, RuntimeError, ValueError, NotImplementedError, ImportError) as error:
            # A kernel that a device lacks, memory that does not suffice: the libraries raise these.
            yield Figures(candidate, trouble=" ".join(str(error).split())[:200] or type(error).__name__)


def compare_scores(
    figures: Figures, labels: np.ndarray, expected: np.ndarray, found: np.ndarray, threshold: float
) -> Figures:
    """Add to figures what becomes of the scores.

    Args:
        figures: Those so far.
        labels: True = harmful, (N,).
        expected: Harm scores of the yardstick, (N,).
        found: Those of the candidate, (N,). One that is no number counts as flagged, as everywhere.
        threshold: Score from which an answer is flagged.
    """
    from llava.quality.metrics import Scored, auroc

    missing = np.isnan(found)
    change = float("inf") if missing.any() else float(np.abs(found - expected).max())
    flagged = (found >= threshold) | missing
    groups = np.arange(len(labels))
    areas = [auroc(Scored(labels, np.where(np.isnan(scores), 1.0, scores), groups)) for scores in (found, expected)]
    return replace(
        figures,
        largest_change=change,
        flags_changed=int((flagged != (expected >= threshold)).sum()),
        auroc_change=areas[0] - areas[1],
    )


def recommend(figures: list[Figures]) -> Figures | None:
    """Return the fastest way that is worth it; None where single precision is as good as any.

    Example:
        >>> from llava.model.options import LoadOptions
        >>> ways = [Candidate(name, LoadOptions(), ()) for name in ("float32", "bfloat16", "8-bit")]
        >>> measured = [Figures(ways[0], 1, 1), Figures(ways[1], 0.5, 2, auroc_change=0.0),
        ...             Figures(ways[2], 0.2, 5, auroc_change=-0.1)]
        >>> recommend(measured).candidate.name
        'bfloat16'
    """
    return max((each for each in figures if each.is_worth_it), key=lambda each: each.gain or 0.0, default=None)


def count_bytes(detector: HarmDetector) -> int:
    """Return the bytes of a detector's weights."""
    return sum(each.numel() * each.element_size() for each in detector.classifier.parameters())


def _load(detector: str, candidate: Candidate, base: str | None) -> HarmDetector:
    """Load the detector in one way."""
    from llava.protector.detector import HarmDetector

    return HarmDetector.from_pretrained(detector, replace(candidate.options, base=base))


def _time_both(
    one: HarmDetector, other: HarmDetector, sample: Sample, repeats: int, clock: Callable[[], float]
) -> tuple[float, float]:
    """Return the median seconds for an answer of both, timed in turn until it is clear."""
    seconds: list[list[float]] = [[], []]
    for detector in (one, other):
        detector.score(sample.responses[-2:], sample.prompts[-2:])  # the first pass is slower than others
    for repeat in range(repeats):
        sides: list[tuple[list[float], Any]] = [(seconds[0], one), (seconds[1], other)]
        for values, detector in sides if repeat % 2 == 0 else sides[::-1]:
            start = clock()
            detector.score(sample.responses, sample.prompts)
            values.append((clock() - start) / len(sample.responses))
        if seconds[0][-1] > HOPELESS * seconds[1][-1]:
            break
    return statistics.median(seconds[0]), statistics.median(seconds[1])
