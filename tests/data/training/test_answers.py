"""Answers to learn from: labels in every form, images beside their file, and rows without labels."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from llava.data.training.answers import build_loader
from llava.data.training.sources import parse_mixture
from llava.errors import InputError


def load(path, rows, *, labelled=True):
    path.write_text("\n".join(map(json.dumps, rows)))
    return build_loader(labelled=labelled)(parse_mixture(str(path)), "train")


def test_labels_images_and_pairs(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows = load(
        tmp_path / "rows.jsonl",
        [
            {"question": "How?", "answer": "So.", "label": "unsafe", "image": "a.png"},
            {"prompt": "Why?", "response": "  ", "harmful": False},
        ],
    )
    assert [(row.prompt, row.response, row.target, row.image) for row in rows] == [
        ("How?", "So.", 1.0, str(tmp_path / "a.png"))
    ]
    pair = load(tmp_path / "pairs.jsonl", [{"prompt": "How?", "harmful_response": "So.", "harmless_response": "No."}])
    assert [(row.response, row.target, row.image) for row in pair] == [("No.", 0.0, None), ("So.", 1.0, None)]


def test_rows_without_labels(tmp_path):
    rows = load(tmp_path / "rows.jsonl", [{"response": "So."}, {"prompt": "Why?", "response": "Yes."}], labelled=False)
    assert [(row.prompt, row.response, row.target) for row in rows] == [("", "So.", 0.0), ("Why?", "Yes.", 0.0)]
    with pytest.raises(InputError, match="no text in 'response'"):
        load(tmp_path / "bad.jsonl", [{"prompt": "Why?"}], labelled=False)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image": ["a.png", "b.png"]}, "has 2 images"),
        ({"image": "nowhere.png"}, "nowhere.png"),
        ({"image": 7}, "image is 7"),
    ],
)
def test_images_that_cannot_be_read(tmp_path, row, words):
    with pytest.raises(InputError, match=words):
        load(tmp_path / "rows.jsonl", [{"prompt": "?", "response": "So.", "harmful": True, **row}])
