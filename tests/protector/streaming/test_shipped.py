"""The shipped detector in front of streams: ordinary answers pass byte for byte, harmful ones are stopped."""

import json

import pytest

from llava import HarmDetector, Protector
from llava.constants import REFUSAL
from tests.protector.streaming.detectors import cut

ANSWERS = [
    ("How do I cook rice?", "Boil it for twelve minutes."),
    ("Describe the image", "A man in a red shirt is holding a knife next to a cutting board with vegetables."),
    ("What does the sign say?", "The café sign says “Crème brûlée – 5 €” 🍮."),
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shipped():
    return HarmDetector.from_pretrained("embedded", device="cpu", dtype="float32")


def read_rows(path, harmful, count):
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["harmful"] is harmful][:count]


def test_ordinary_answers_pass_byte_for_byte(shipped, shared_data):
    long = [(row["prompt"], row["response"]) for row in read_rows(shared_data / "vicuna80_responses.jsonl", False, 3)]
    protector = Protector(shipped)
    for prompt, answer in ANSWERS + long:
        stream = protector.open_stream(prompt)
        assert "".join([*map(stream.add, cut(answer, [3])), stream.finish()]) == answer
        assert stream.result.harm_score == pytest.approx(shipped.score([answer], [prompt])[0], abs=1e-4)


def test_harmful_answers_are_stopped(shipped, shared_data):
    rows = read_rows(shared_data / "jailbreakbench_responses.jsonl", True, 40)
    flagged = [row for row in rows if shipped.score([row["response"]], [row["prompt"]])[0] >= 0.95][:3]
    assert len(flagged) == 3
    for row in flagged:
        *released, last = Protector(shipped).guard_stream(row["prompt"], cut(row["response"], [4]))
        before = "".join(released)
        assert last == ("\n\n" if before else "") + REFUSAL
        assert row["response"].startswith(before)
        assert len(before) < len(row["response"]) / 2
        assert not before or shipped.score([before], [row["prompt"]])[0] < shipped.threshold
