from __future__ import annotations

import pytest

from llava.data.rows.columns import (
    UnreadColumns,
    find_column,
    list_images,
    match_columns,
    refuse_media,
    rename_columns,
)
from llava.errors import InputError


def test_columns_are_known_by_case_and_blanks_when_one_could_be_meant():
    assert match_columns((" Prompt", "ID "), ("prompt", "id")) == {" Prompt": "prompt", "ID ": "id"}
    assert match_columns(("Prompt", "PROMPT"), ("prompt",)) == {}
    assert match_columns(("Prompt", "prompt"), ("prompt",)) == {}
    assert rename_columns({"Prompt": 1, "x": 2}, ("prompt",)) == {"prompt": 1, "x": 2}


def test_the_first_name_that_holds_something_counts():
    assert find_column({"prompt": None, "question": "?"}, "prompt") == "question"
    assert find_column({"prompt": "a", "question": "?"}, "prompt") == "prompt"
    assert find_column({"answer": None}, "response") == "answer"
    assert find_column({"x": 1}, "response") is None
    assert find_column({"chosen": 1}, "chosen") == "chosen"


@pytest.mark.parametrize(
    ("row", "paths"),
    [
        ({}, []),
        ({"image": None, "images": []}, []),
        ({"image": "a.png"}, ["a.png"]),
        ({"images": ["a.png"]}, ["a.png"]),
        ({"image_path": "a.png"}, ["a.png"]),
        ({"image": "a.png", "images": ["a.png"]}, ["a.png"]),
        ({"image": ["a.png", "b.png"]}, ["a.png", "b.png"]),
    ],
)
def test_images_are_found_in_every_column(row, paths):
    assert list_images(row, "row 1") == paths


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": 7}, "row 1: image is 7; it must be a path or a list of paths"),
        ({"images": [{"bytes": "x", "path": None}]}, "images is an object"),
        ({"images": [""]}, "images is ''"),
        ({"image": "a.png", "images": ["b.png"]}, "image and images name different images"),
    ],
)
def test_images_that_cannot_be_read(row, message):
    with pytest.raises(InputError, match=message):
        list_images(row, "row 1")


@pytest.mark.parametrize("column", ["video", "audio", "videos"])
def test_media_that_are_not_read_are_refused(column):
    with pytest.raises(InputError, match=f"row 1 has a column '{column}', which is not read"):
        refuse_media({column: "v.mp4"}, "row 1")
    refuse_media({column: None}, "row 1")


def test_unread_columns_are_named_once_and_by_their_weight():
    unread = UnreadColumns("a.csv")
    for number in range(3):
        row = {"prompt": "?", "Label": "x", "note": number or None, "": 1, "split": "test", "empty": ""}
        unread.see(row, {"prompt"})
    assert unread.warn() == "a.csv: these columns are not read, as if they were not there: Label, split"
    assert unread.note() == "a.csv: these columns are kept and not read: note"
    many = UnreadColumns("a.csv")
    many.see({f"c{number}": 1 for number in range(300)}, ())
    assert many.note().endswith("c8, c9 and 290 more")
    assert (UnreadColumns("a").warn(), UnreadColumns("a").note()) == ("", "")
