import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.training.conversations import load_conversations, parse_conversation
from llava.data.training.formats import Where
from llava.data.training.sources import parse_mixture
from llava.errors import InputError
from tests.train.conversations import picture_row, text_row, write_conversations, write_pictures

WHERE = Where("rows.json", 3, "row")


def load(path, folder=None):
    return load_conversations(parse_mixture(str(path)), folder)


def test_rows_with_and_without_pictures_are_read(tmp_path):
    rows = load(write_conversations(tmp_path, pictures=4, texts=2))
    assert [bool(row.images) for row in rows] == [True] * 4 + [False] * 2
    assert rows[1].images == (str(tmp_path / "green.png"),)
    assert [(turn.role, turn.text, turn.images) for turn in rows[1].turns] == [
        ("user", "Which colour?", 1),
        ("assistant", "It is green.", 0),
    ]
    assert (rows[1].id, rows[1].source, rows[1].where) == ("1", "rows", f"{tmp_path / 'rows.json'} row 2")


def test_json_lines_and_a_folder_of_pictures_elsewhere(tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(picture_row(0, "red")) + "\n\n" + json.dumps(text_row(1, "Hi", "Hello")) + "\n")
    with pytest.raises(InputError, match=r"rows.jsonl line 1: image .*red.png does not exist; .*--image-folder"):
        load(path)
    first, second = load(path, str(pictures))
    assert first.images == (str(pictures / "red.png"),)
    assert second.where == f"{path} line 3"


def test_the_mark_goes_and_the_picture_stays_in_its_turn():
    turns = [
        {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "Write <image> to show one."},
        {"from": "human", "value": "What is it?\n<image>"},
        {"from": "gpt", "value": " A cat. \n"},
    ]
    row = parse_conversation({"image": "a.jpg", "conversations": turns}, WHERE, Path("p"))
    assert [(turn.text, turn.images) for turn in row.turns] == [
        ("Hello", 0),
        ("Write <image> to show one.", 0),
        ("What is it?", 1),
        ("A cat.", 0),
    ]
    assert (row.id, row.images) == ("3", ("p/a.jpg",))


def test_several_pictures():
    turns = [{"from": "human", "value": "<image><image>\nCompare."}, {"from": "gpt", "value": "Alike."}]
    row = parse_conversation({"image": ["a.jpg", "b.jpg"], "conversations": turns}, WHERE, Path("p"))
    assert (row.images, row.turns[0].images) == (("p/a.jpg", "p/b.jpg"), 2)


def test_turns_with_nothing_to_learn_are_left_out_and_counted():
    turns = [("gpt", "Hello."), ("human", "Hi"), ("gpt", "Yes?"), ("human", "Bye")]
    said = [{"from": speaker, "value": value} for speaker, value in turns]
    row = parse_conversation({"conversations": said}, WHERE, Path())
    assert [turn.text for turn in row.turns] == ["Hi", "Yes?"]
    assert row.skipped_turns == 2


def test_a_system_text_may_come_first():
    said = [{"from": name, "value": name} for name in ("system", "human", "gpt")]
    assert [turn.role for turn in parse_conversation({"conversations": said}, WHERE, Path()).turns] == [
        "system",
        "user",
        "assistant",
    ]


def said(*turns):
    return [{"from": speaker, "value": value} for speaker, value in turns]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "has no conversations"),
        ({"conversations": []}, "has no conversations"),
        ({"conversations": ["Hi"]}, "a turn has no from and value"),
        ({"conversations": [{"from": "human"}]}, "a turn has no from and value"),
        ({"conversations": said(("robot", "Hi"))}, "unknown speaker 'robot'; known are human"),
        ({"conversations": said(("human", 3))}, "a value is int, not a text"),
        ({"conversations": said(("human", " "), ("gpt", "Yes"))}, "a turn of human is empty"),
        ({"conversations": said(("human", "Hi"), ("gpt", ""))}, "a turn of gpt is empty"),
        ({"conversations": said(("human", "Hi"))}, "has no question with an answer"),
        ({"conversations": said(("gpt", "Hi"))}, "has no question with an answer"),
        ({"conversations": said(("human", "a"), ("human", "b"), ("gpt", "c"))}, "do not take turns"),
        ({"conversations": said(("human", "a"), ("system", "b"), ("gpt", "c"))}, "do not take turns"),
        ({"conversations": said(("human", "<image>"), ("gpt", "c"))}, "has 1 <image> in its human turns but 0 images"),
        ({"image": "a.jpg", "conversations": said(("human", "a"), ("gpt", "c"))}, "has 0 <image> .* but 1 images"),
        ({"image": 7, "conversations": said(("human", "a"), ("gpt", "c"))}, "image is 7"),
    ],
)
def test_bad_rows_are_named(row, message):
    with pytest.raises(InputError, match=rf"rows.json row 3:? .*{message}") as caught:
        parse_conversation(row, WHERE, Path())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "not valid JSON"),
        ('{"id": 1}', "not a JSON list"),
        ('[{"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x"}]}]', "row 1 has 1"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


speakers = st.sampled_from(["human", "gpt", "system", "robot", None])
values = st.one_of(st.text(max_size=20), st.none(), st.just("<image>"))
rows = st.fixed_dictionaries(
    {},
    optional={
        "conversations": st.lists(st.fixed_dictionaries({"from": speakers, "value": values}), max_size=6),
        "image": st.one_of(st.none(), st.text(max_size=3), st.lists(st.just("a.png"), max_size=2)),
        "id": st.integers(),
    },
)


@given(rows)
def test_any_row_is_read_or_refused_in_one_line(row):
    try:
        read = parse_conversation(row, WHERE, Path("p"))
    except InputError as error:
        assert str(error).startswith("rows.json row 3")  # noqa: PT017
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return
    turns = [turn for turn in read.turns if turn.role != "system"]
    assert [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
    assert sum(turn.images for turn in turns) == len(read.images)


def ask(value, **row):
    return parse_conversation({**row, "conversations": said(("human", value), ("gpt", "x"))}, WHERE, Path("p"))


@pytest.mark.parametrize("value", ["<image>\n<image>\nCompare.", "Compare.<image> <image>", "<image><image>"])
def test_images_of_a_turn_that_stand_together_go_in_front(value):
    turn = ask(value, image=["a.png", "b.png"]).turns[0]
    assert (turn.images, turn.text) == (2, "Compare." if "Compare" in value else "")


def test_images_with_text_between_them_are_refused():
    with pytest.raises(InputError, match="text stands between the <image> of a turn; put them together"):
        ask("Source: <image>\nTarget: <image>\nWhich?", image=["a.png", "b.png"])


@pytest.mark.parametrize("column", ["image", "images", "image_path"])
def test_images_are_read_from_whichever_column_names_them(column):
    assert ask("<image>\nWhat?", **{column: ["a.png"]}).images == ("p/a.png",)


@pytest.mark.parametrize(
    ("row", "value", "message"),
    [
        ({"video": "v.mp4"}, "<video>\nWhat?", "has a column 'video', which is not read"),
        ({}, "<video>\nWhat?", "a turn speaks of <video>, which is not read"),
        ({"system": ["x"]}, "What?", "system is a list; it must be a text"),
    ],
)
def test_what_is_not_shown_to_the_model_is_refused(row, value, message):
    with pytest.raises(InputError, match=f"rows.json row 3:? .*{message}"):
        ask(value, **row)


def test_a_rows_own_system_text_comes_first():
    row = ask("What?", system="Be short.")
    assert [(turn.role, turn.text) for turn in row.turns][:2] == [("system", "Be short."), ("user", "What?")]


@pytest.mark.parametrize("speaker", [[], {}, None, 3, "x" * 1000])
def test_speakers_that_are_no_names(speaker):
    with pytest.raises(InputError, match="unknown speaker"):
        parse_conversation({"conversations": [{"from": speaker, "value": "x"}]}, WHERE, Path())


def test_a_weight_of_a_turn_is_refused():
    turns = said(("human", "a"), ("gpt", "b"))
    assert parse_conversation({"conversations": [turns[0], {**turns[1], "weight": 1}]}, WHERE, Path())
    with pytest.raises(InputError, match="a turn has a weight, which is not read"):
        parse_conversation({"conversations": [turns[0], {**turns[1], "weight": 0}]}, WHERE, Path())


def test_unread_columns_are_named(tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**text_row(1, "Hi", "Hello"), "split": "test", "origin": "x"}) + "\n")
    with caplog.at_level("INFO"):
        load(path)
    assert "not read, as if they were not there: split" in caplog.text
    assert "kept and not read: origin" in caplog.text
