"""Training data in any form, however damaged: whole rows with true labels, or one line."""

import math

from hypothesis import given
from hypothesis import strategies as st

from llava.data.training.pairs import load_detector_rows, load_detoxifier_rows
from llava.data.training.sources import MixturePart, find_split, parse_mixture
from tests.fuzz.support import check_parser, fuzz, list_tree, row_files, tables, write

MESSAGES = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": [{"type": "text", "text": "no"}]}]
TRANSCRIPT = "\n\nHuman: How?\n\nAssistant: no"
ROWS = [
    {"prompt": "q", "response": "r", "harmful": True, "weight": 0.5, "split": "train"},
    {"question": "q", "answer": "r", "label": "safe"},
    {"prompt": "q", "chosen": TRANSCRIPT, "rejected": MESSAGES},
    {"chosen": MESSAGES, "rejected": MESSAGES},
    {"prompt": MESSAGES, "harmful_response": "h", "harmless_response": "g"},
    {"prompt": "q", "response_0": "a", "response_1": "b", "is_response_0_safe": False, "is_response_1_safe": 1}
    | {"safer_response_id": 1},
    {"question": "q", "unharmful": "g", "harmful": "h"},
]


def check_rows(rows):
    """Assert what training relies on."""
    assert rows
    for row in rows:
        assert isinstance(row.prompt, str)
        assert row.response.strip()
        assert isinstance(getattr(row, "harmful", True), bool)
        assert getattr(row, "target", "t").strip()
        weight = getattr(row, "weight", 1.0)
        assert isinstance(weight, float)
        assert math.isfinite(weight)
        assert weight >= 0
        (row.prompt + row.response).encode()


@fuzz
@given(file=st.sampled_from(ROWS).flatmap(lambda row: row_files([row, row])))
def test_training_files(tmp_path, file):
    suffix, content = file
    path = write(tmp_path, f"rows{suffix}", content)
    before = list_tree(tmp_path)
    for load in (load_detector_rows, load_detoxifier_rows):
        check_parser(lambda load=load: load([MixturePart(str(path))]), check_rows)
    assert list_tree(tmp_path) == before
    path.unlink()


@fuzz
@given(content=tables(("prompt", "response", "harmful", "weight"), [("q", "r", "True", "0.5"), ("q", "s", "0", "")]))
def test_training_tables(tmp_path, content):
    path = write(tmp_path, "rows.csv", content)
    check_parser(lambda: load_detector_rows([MixturePart(str(path))]), check_rows)


@fuzz
@given(text=st.text(max_size=60) | st.text("ab/.,:'\"0 \x00", max_size=30))
def test_mixtures(text):
    def check(parts):
        names = [part.name for part in parts]
        assert len(set(names)) == len(names)
        assert all(part.source and 0 < part.share < math.inf for part in parts)

    check_parser(lambda: parse_mixture(text), check)


@fuzz
@given(names=st.lists(st.text("trainesdvlTE_-.0", min_size=1, max_size=12), min_size=1, max_size=3))
def test_names_of_splits(tmp_path, names):
    assert find_split((tmp_path / "/".join(names)).relative_to(tmp_path)) in ("", "train", "test", "validation")
