import pytest

from llava import Detoxifier, HarmDetector
from llava.protector.jsonl import CHUNK, detect_rows, detoxify_rows


def test_many_rows_keep_their_order(tiny_detector):
    detector = HarmDetector.from_pretrained(tiny_detector, dtype="float32")
    rows = [{"response": f"Step {i % 7}.", "id": i} for i in range(CHUNK + 10)]
    done = list(detect_rows(detector, rows))
    assert [row["id"] for row in done] == list(range(CHUNK + 10))
    assert done[0]["harm_score"] == pytest.approx(done[7]["harm_score"], abs=1e-5)


def test_nothing_to_rewrite(tiny_detoxifier):
    detoxifier = Detoxifier.from_pretrained(tiny_detoxifier)
    rows = [{"response": "a", "flagged": False}]
    assert list(detoxify_rows(detoxifier, rows)) == [{"response": "a", "flagged": False, "detoxified": "a"}]
