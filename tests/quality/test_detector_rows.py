import json

import pytest

from llava.data.training.made_answers import HARM_SOURCE, SOURCE
from llava.data.training.splits import split_of
from llava.errors import InputError
from llava.files import write_jsonl
from llava.quality import cards
from llava.quality.detector_rows import FILES, KeyedRow, load_rows, load_side, read_group


@pytest.fixture
def data(tmp_path):
    for name in FILES:
        rows = [
            {"prompt": f"{name} {i // 2}?", "response": f"{name} answer {i}.", "harmful": i % 3 == 0} for i in range(30)
        ]
        if name == "benign_answers":
            rows = [
                {"prompt": "Describe the image.", "response": f"a cat {i}", "harmful": False, "source": "coco_captions"}
                for i in range(30)
            ]
        if name == "msts_responses":
            rows = [{**row, "case_id": f"case {i // 5}", "source": "msts"} for i, row in enumerate(rows)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def test_sides_share_no_key(data):
    keys = {
        side: {keyed.key for keyed in load_rows(data) if keyed.side == side} for side in ("train", "dev", "held_out")
    }
    assert all(keys.values())
    assert not keys["train"] & keys["dev"]
    assert not keys["held_out"] & (keys["train"] | keys["dev"])
    assert sum(len(load_side(data, side)) for side in keys) == len(load_rows(data))


def test_cases_stay_together_and_general_prompts_do_not(data):
    rows = load_rows(data)
    assert {keyed.key for keyed in rows if keyed.row.source == "msts_responses"} == {f"case {i}" for i in range(6)}
    captions = [keyed for keyed in rows if keyed.row.source == "coco_captions"]
    assert len({keyed.key for keyed in captions}) == 30
    assert len({keyed.side for keyed in captions}) > 1
    assert {keyed.key for keyed in rows if keyed.row.source == "gptfuzz_responses"} == {
        f"gptfuzz_responses {i}?" for i in range(15)
    }
    assert sum(keyed.row.source == SOURCE for keyed in rows) > 1000


def test_rows_of_a_made_sentence_stay_together(data):
    """So that a held-out row says how well other sentences are told."""
    made = [keyed for keyed in load_rows(data) if keyed.row.source == HARM_SOURCE]
    sides = {keyed.key: {other.side for other in made if other.key == keyed.key} for keyed in made[::20]}
    assert all(len(found) == 1 for found in sides.values())
    assert {keyed.side for keyed in made if keyed.row.harmful} == {"train", "dev", "held_out"}


def test_empty_responses_are_left_out_and_labels_are_needed(tmp_path):
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [{"prompt": "a", "response": " ", "harmful": True}, {"response": "b", "harmful": "no"}])
    with pytest.raises(InputError, match=r"line 2"):
        read_group(path)
    path.write_text(json.dumps({"prompt": None, "response": "b", "harmful": False}))
    assert [(row.prompt, row.source, key) for row, key in read_group(path)] == [("", "x", "b")]
    with pytest.raises(InputError, match=r"gone\.jsonl"):
        read_group(tmp_path / "gone.jsonl")


def test_the_held_out_goals_are_those_of_the_card(shared_data):
    """Nothing that the card measures is trained on or chosen by, under whichever name its prompt comes."""
    _, held_out = cards.load_detector_split(shared_data)
    labelled = {row.response for row in held_out if row.source != cards.PAIRS}
    mine = {keyed.row.response for keyed in load_rows(shared_data) if keyed.side == "held_out"}
    assert labelled <= mine
    prompts = {row.prompt for row in held_out if row.source == cards.RESPONSES}
    for keyed in load_rows(shared_data):
        assert keyed.side == "held_out" or keyed.row.prompt not in prompts or keyed.row.source == "msts_responses"


def test_the_side_is_the_splits():
    from llava.data.training.pairs import DetectorRow

    for number in range(50):
        keyed = KeyedRow(DetectorRow("", "x", False, "s"), f"key {number}")
        assert (keyed.side == "held_out") == (split_of(keyed.key) == "held_out")
