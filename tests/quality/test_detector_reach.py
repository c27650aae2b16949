import json

import pytest

from llava import HarmDetector
from llava.data.evasions import EVASIONS, disguise
from llava.files import write_jsonl
from llava.model.embedded.stack import ASSETS
from llava.model.options import LoadOptions
from llava.protector.config import ProtectorConfig
from llava.quality.cards import REACH_NAME, name_weights, read_reach
from llava.quality.detector_groups import hash_row, name_row
from llava.quality.detector_reach import (
    LANGUAGES,
    PLAIN,
    SPOKEN,
    choose_disguised,
    compute_reach,
    read_languages,
    score_reach,
)
from llava.quality.detector_rows import FILES, JAILBREAKBENCH, VICUNA, KeyedRow
from llava.quality.guard_bench.scores import ScoreBook
from tests.tiny_adapters import build_detector_adapter

MEASURED_AGAIN = 2
"""Rows of every disguise whose score is compared with what the adapter gives, one harmful and one ordinary."""


@pytest.fixture
def shipped():
    folder = ASSETS / "detector"
    return json.loads((folder / REACH_NAME).read_text()), json.loads((folder / "metrics.json").read_text())["reach"]


def test_every_language_has_the_same_rows():
    found: dict[str, list[KeyedRow]] = {}
    for keyed in read_languages():
        found.setdefault(keyed.row.source, []).append(keyed)
    assert list(found) == list(LANGUAGES.values())
    labels = [[keyed.row.harmful for keyed in rows] for rows in found.values()]
    assert all(each == labels[0] for each in labels)
    for rows in found.values():
        assert len({name_row(keyed) for keyed in rows}) == len(rows)


def test_reach_of_a_tiny_detector(tiny_lm, tmp_path):
    for name in FILES:
        calm = name in (VICUNA, "benign_answers")
        texts = [
            {"prompt": f"{name} {i}?", "response": f"answer {i} to it.", "harmful": i % 2 == 0 and not calm}
            for i in range(60)
        ]
        write_jsonl(tmp_path / f"{name}.jsonl", texts)
    folder = build_detector_adapter(tmp_path / "d", tiny_lm, pooling="mean_response", threshold=0.4)
    detector = HarmDetector.from_pretrained(folder, dtype="float32")
    rows = choose_disguised(tmp_path)
    harmful = [keyed for keyed in rows if keyed.row.harmful]
    assert harmful
    assert {keyed.row.source for keyed in harmful} == {JAILBREAKBENCH}
    book = ScoreBook(tmp_path / "work", detector, LoadOptions(dtype="float32"))
    scores = score_reach(book, rows)
    assert set(scores) == {PLAIN, SPOKEN, *EVASIONS}
    row = harmful[0]
    (expected,) = detector.score([disguise(row.row.response, "base64")], [row.row.prompt])
    assert scores["base64"][name_row(row)] == pytest.approx(expected, abs=1e-5)
    figures = compute_reach(rows, scores, detector.threshold, resamples=20)
    assert set(figures["disguises"]) == set(EVASIONS)
    flagged = [scores[PLAIN][name_row(keyed)] >= 0.4 for keyed in harmful]
    assert figures["recall"] == pytest.approx(sum(flagged) / len(flagged))


def test_figures_of_another_detector_leave_the_card(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "protector_config.json").write_text("{}")
    assert read_reach(tmp_path) == {}
    reach = {"weights": name_weights(tmp_path), "recall": 1.0}
    (tmp_path / "metrics.json").write_text(json.dumps({"reach": reach}))
    assert read_reach(tmp_path) == {"reach": reach}
    (tmp_path / "adapter_model.safetensors").write_bytes(b"others")
    assert read_reach(tmp_path) == {}


def test_reach_of_the_shipped_detector_follows_from_its_scores(shared_data, shipped):
    scores, card = shipped
    rows = choose_disguised(shared_data)
    assert {name_row(keyed) for keyed in rows} == set(scores[PLAIN])
    assert card["weights"] == name_weights(ASSETS / "detector")
    threshold = ProtectorConfig.load(ASSETS / "detector", "detector").threshold
    computed = compute_reach(rows, scores, threshold, resamples=0)
    for name, figures in computed["disguises"].items():
        assert card["disguises"][name]["recall_kept"] == pytest.approx(figures["recall_kept"], abs=1e-3), name
        assert figures["recall_kept"] >= figures["wanted"], name
    for name, figures in computed["languages"].items():
        assert card["languages"][name]["auroc"] == pytest.approx(figures["auroc"], abs=1e-3), name
        assert card["languages"][name]["recall"] == pytest.approx(figures["recall"], abs=1e-3), name
        # Half of the harmless ones are in the words of harmful ones; five English ones are flagged.
        assert figures["fpr"] <= (0.15 if name == "English" else 0.05), name


@pytest.mark.slow
def test_reach_of_the_shipped_detector_is_measured_again(shared_data, shipped):
    scores, _ = shipped
    detector = HarmDetector.from_pretrained("embedded", dtype="float32")
    rows = sorted(choose_disguised(shared_data), key=hash_row)
    chosen = [next(keyed for keyed in rows if keyed.row.harmful is label) for label in (True, False)]
    assert len(chosen) == MEASURED_AGAIN
    for name in EVASIONS:
        texts = [disguise(keyed.row.response, name) for keyed in chosen]
        again = detector.score(texts, [keyed.row.prompt for keyed in chosen])
        assert again == pytest.approx([scores[name][name_row(keyed)] for keyed in chosen], abs=0.005), name
    spoken = read_languages()
    again = detector.score([keyed.row.response for keyed in spoken], [keyed.row.prompt for keyed in spoken])
    assert again == pytest.approx([scores[SPOKEN][name_row(keyed)] for keyed in spoken], abs=0.005)
