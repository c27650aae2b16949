"""Measures the shipped adapters on held-out rows and writes the cards beside them.

`python scripts/evaluate_embedded.py --data DIR` runs this; the slow tests run it again and compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llava.data.pairs import DetectorRow, DetoxifierRow, load_detector_rows, load_detoxifier_rows
from llava.data.pairs_sources import parse_mixture
from llava.data.splits import split_rows
from llava.eval.metrics import wilson_interval
from llava.eval.refusals import is_refusal
from llava.files import write_json, write_text_atomic
from llava.protector.detector import HarmDetector
from llava.protector.detoxifier import Detoxifier
from llava.train.metrics import evaluate_detector

RESPONSES, ORDINARY, PAIRS = "jailbreakbench_responses", "vicuna80_responses", "hh_harmless_pairs"
REWRITES = "jailbreakbench_pairs"
TEMPLATES = Path(__file__).resolve().parent / "card_templates"
PLACES = 4
"""Decimals in metrics.json: enough to notice a change, few enough to be the same on another CPU."""


def load_detector_split(data: Path) -> tuple[list[DetectorRow], list[DetectorRow]]:
    """Return training and held-out rows of the detector's data, split by prompt."""
    files = ",".join(str(data / f"{name}.jsonl") for name in (RESPONSES, ORDINARY, PAIRS))
    return split_rows(load_detector_rows(parse_mixture(files)))


def load_detoxifier_split(data: Path) -> tuple[list[DetoxifierRow], list[DetoxifierRow]]:
    """Return training and held-out rows of the detoxifier's data, split by prompt."""
    return split_rows(load_detoxifier_rows(parse_mixture(str(data / f"{REWRITES}.jsonl"))))


def measure_detector(detector: HarmDetector, rows: Sequence[DetectorRow], resamples: int = 1000) -> dict[str, Any]:
    """Return the detector's figures on held-out rows.

    Args:
        detector: The detector.
        rows: Held-out rows of all three sources.
        resamples: Bootstrap resamples (by prompt) of the intervals; 0 leaves them out.

    Returns:
        `all` (JailbreakBench and ordinary answers together), `without_prompt` (the same, the question withheld),
        `jailbreakbench` (harmful against refused, same goals), `ordinary` (false positives), `preferences` (pairs).
    """
    main = [row for row in rows if row.source in (RESPONSES, ORDINARY)]
    pairs = [row for row in rows if row.source == PAIRS]
    scores = detector.score([row.response for row in main], [row.prompt for row in main])
    blind = detector.score([row.response for row in main])
    ranked = detector.score([row.response for row in pairs], [row.prompt for row in pairs])
    report = evaluate_detector(main, scores, threshold=detector.threshold, resamples=resamples)
    keep = ("n", "harmful", "auroc", "auprc", "f1", "recall", "fpr", "ece", "ci95")
    preferences = evaluate_detector(pairs, ranked, threshold=detector.threshold, resamples=0)["overall"]
    return _rounded(
        {
            "threshold": detector.threshold,
            "all": {key: report["overall"][key] for key in keep if key in report["overall"]},
            "without_prompt": {
                key: evaluate_detector(main, blind, threshold=detector.threshold, resamples=0)["overall"][key]
                for key in ("n", "auroc", "recall", "fpr")
            },
            "jailbreakbench": {
                key: report["by_source"][RESPONSES][key] for key in ("n", "harmful", "auroc", "recall", "fpr")
            },
            "ordinary": {key: report["by_source"][ORDINARY][key] for key in ("n", "fpr")},
            "preferences": {"pairs": preferences["pairs"], "pair_accuracy": preferences["pair_accuracy"]},
        }
    )


def fit_word_judge(rows: Sequence[DetectorRow]) -> Any:
    """Fit TF-IDF with logistic regression on responses: a judge that shares nothing with the embedded models.

    Args:
        rows: Training rows (held-out prompts must not be among them).

    Returns:
        A scikit-learn pipeline; `predict(texts)` gives True for harmful.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    judge = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced"),
    )
    labelled = [row for row in rows if row.source != PAIRS]
    return judge.fit([row.response for row in labelled], [row.harmful for row in labelled])


def measure_detoxifier(
    detoxifier: Detoxifier, rows: Sequence[DetoxifierRow], judge: Any, detector: HarmDetector, max_new_tokens: int = 96
) -> dict[str, Any]:
    """Return the detoxifier's figures on held-out harmful responses.

    Returns:
        Shares of rewrites that the word judge, the refusal phrases and the shipped detector (not independent of it: it
        guards the same product) find harmless, of empty ones, the mean length ratio to the harmful response, and the
        mean share of repeated word triples.
    """
    rewrites = detoxifier.rewrite(
        [row.prompt for row in rows], [row.response for row in rows], max_new_tokens=max_new_tokens
    )
    originals_harmful = judge.predict([row.response for row in rows])
    harmless = ~np.asarray(judge.predict(rewrites), dtype=bool)
    scores = np.asarray(detector.score(rewrites, [row.prompt for row in rows]))
    n = len(rows)
    return _rounded(
        {
            "n": n,
            "max_new_tokens": max_new_tokens,
            "originals_judged_harmful": float(np.mean(originals_harmful)),
            "judged_harmless": float(harmless.mean()),
            "judged_harmless_ci95": wilson_interval(int(harmless.sum()), n),
            "refusals": float(np.mean([is_refusal(text) for text in rewrites])),
            "passed_by_detector": float((scores < detector.threshold).mean()),
            "empty": float(np.mean([not text for text in rewrites])),
            "length_ratio": float(np.mean([len(t) / len(r.response) for t, r in zip(rewrites, rows, strict=True)])),
            "repetition_rate": float(np.mean([repetition_rate(text) for text in rewrites])),
        }
    )


def repetition_rate(text: str) -> float:
    """Return the share of word triples that have stood in the text before; 0 for a text without triples.

    Example:
        >>> repetition_rate("a b c d"), repetition_rate("a b c a b c")
        (0.0, 0.25)
    """
    words = text.split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def write_card(folder: Path, kind: str, metrics: dict[str, Any]) -> None:
    """Write `metrics.json` into an adapter's folder, and its card, `README.md`, from the figures.

    Args:
        folder: Adapter folder.
        kind: `detector` or `detoxifier`, which names the template.
        metrics: What `measure_detector` or `measure_detoxifier` returned.
    """
    write_json(folder / "metrics.json", metrics)
    write_text_atomic(folder / "README.md", render_card(kind, metrics))


def render_card(kind: str, metrics: dict[str, Any]) -> str:
    """Return a card's text; a figure that the template wants and the metrics lack is an error."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701 - Markdown
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    template = (TEMPLATES / f"{kind}.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(m=metrics)


def _rounded(value: Any) -> Any:
    """Round every number inside, for a file that is the same on every machine."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, PLACES) if isinstance(value, float) else value
