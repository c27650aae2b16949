import pytest

from llava import Detoxifier, HarmDetector
from llava.errors import InputError
from llava.files import write_jsonl
from llava.protector.jsonl import CHUNK, detect_rows, detoxify_rows, read_responses


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


def write(tmp_path, *rows):
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return tmp_path / "rows.jsonl"


def test_questions_and_answers_are_read_by_their_other_names(tmp_path):
    rows = read_responses(write(tmp_path, {"question": "Why?", "answer": "So.", "id": 3}))
    assert rows == [{"question": "Why?", "answer": "So.", "id": 3, "prompt": "Why?", "response": "So."}]
    (tmp_path / "rows.csv").write_text("Prompt;Response\nWhy?;So.\n")
    assert read_responses(tmp_path / "rows.csv") == [{"prompt": "Why?", "response": "So."}]


def test_a_question_by_another_name_reaches_the_detector(tiny_detector, tmp_path):
    detector = HarmDetector.from_pretrained(tiny_detector, dtype="float32")
    scores = [
        next(detect_rows(detector, read_responses(write(tmp_path, {name: "Why?", "response": "So."}))))["harm_score"]
        for name in ("prompt", "question", "unread")
    ]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q"}, "line 1 has no text in 'response'"),
        ({"response": ["r"]}, "line 1 has no text in 'response'"),
        ({"response": "r", "question": 3}, "line 1: 'question' is not text"),
        ({"response": "r", "flagged": "maybe"}, "line 1: 'flagged' is 'maybe'; write true or false"),
        ({"response": "r", "flagged": 0.5}, "'flagged' is 0.5"),
    ],
)
def test_rows_that_cannot_be_read(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read_responses(write(tmp_path, row), flags=True)


def test_columns_of_what_else_was_shown_are_named(tmp_path, caplog):
    path = write(tmp_path, {"response": "r", "image": "a.png", "system": "s", "id": 1})
    with caplog.at_level("INFO"):
        read_responses(path)
    assert "these columns are not read, as if they were not there: image, system" in caplog.text
    assert "kept and not read: id" in caplog.text


@pytest.mark.parametrize("flagged", [False, 0, "False", "0"])
def test_rows_that_are_not_flagged_keep_their_response(tiny_detoxifier, tmp_path, flagged):
    rows = read_responses(write(tmp_path, {"response": "a", "flagged": flagged}), flags=True)
    assert [row["detoxified"] for row in detoxify_rows(Detoxifier.from_pretrained(tiny_detoxifier), rows)] == ["a"]


@pytest.mark.parametrize("flagged", [True, 1, "true", None])
def test_rows_that_are_flagged_or_unscored_are_rewritten(tmp_path, flagged):
    rows = read_responses(write(tmp_path, {"response": "a", "flagged": flagged}), flags=True)
    assert rows[0]["flagged"] is not False
