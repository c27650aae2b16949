"""LLaVA's rows, changed: turns that alternate and images that are there, or one line that names the row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.training.conversations import load_conversations
from llava.data.training.sources import MixturePart
from tests.data.layouts import save_image
from tests.fuzz.support import check_parser, fuzz, list_tree, row_files, write

TURNS = [
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "A cat.", "weight": 1},
    {"from": "human", "value": "Sure?"},
    {"from": "gpt", "value": "Yes."},
]
TWO = [{"from": "user", "value": "<image><image>\nAlike?"}, {"from": "assistant", "value": "Yes."}]
ROWS = [
    {"id": "1", "image": "a.png", "conversations": TURNS},
    {"id": 2, "images": ["a.png", "a.png"], "conversations": TWO, "system": "Be short."},
    {"conversations": TURNS[2:], "video": None, "split": "train"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an image."""
    root = tmp_path_factory.mktemp("conversations")
    save_image(root / "a.png")
    return root


def check_conversations(rows):
    """Assert what the encoder relies on."""
    for row in rows:
        spoken = [turn for turn in row.turns if turn.role != "system"]
        assert spoken
        assert [turn.role for turn in spoken] == ["user", "assistant"] * (len(spoken) // 2)
        assert len(row.turns) - len(spoken) <= 1
        assert sum(turn.images for turn in row.turns) == len(row.images)
        assert all(turn.text or turn.images for turn in row.turns)
        assert isinstance(row.id, str)


@fuzz
@given(file=st.sampled_from(ROWS).flatmap(lambda row: row_files([row, row])))
def test_conversation_files(folder, file):
    suffix, content = file
    path = write(folder, f"rows{suffix}", content)
    before = list_tree(folder)
    check_parser(lambda: load_conversations([MixturePart(str(path))]), check_conversations)
    assert list_tree(folder) == before
    path.unlink()
