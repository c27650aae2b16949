from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.data.benchmarks.question_files import load_question_file
from llava.data.benchmarks.selection import Selection
from llava.data.rows.labels import parse_truth
from llava.data.schema import ImageType
from llava.errors import InputError
from tests.data.layouts import save_image


def write_jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# Text that survives every format: no surrogates, no NUL, and not blank.
TEXTS = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), min_size=1, max_size=20
).filter(str.strip)
ROWS = st.lists(
    st.fixed_dictionaries({"id": TEXTS, "prompt": TEXTS, "scenario": TEXTS, "harmful": st.booleans(), "extra": TEXTS}),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row["id"],
)


@given(ROWS, st.sampled_from([".jsonl", ".json", ".csv"]))
@settings(deadline=None)
def test_every_format_round_trips(tmp_path_factory, rows, suffix):
    path = tmp_path_factory.mktemp("questions") / f"mine{suffix}"
    if suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0], quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        write_jsonl(path, *rows)
    questions = load_question_file(path).questions
    assert [(q.id, q.prompt, q.scenario, q.harmful) for q in questions] == [
        (row["id"], row["prompt"], row["scenario"], row["harmful"]) for row in rows
    ]
    assert [q.fields["extra"] for q in questions] == [row["extra"] for row in rows]
    assert {(q.benchmark, q.image_type, q.image) for q in questions} == {("mine", ImageType.TEXT, None)}


def test_defaults_and_second_names(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", {"question": "One?"}, {"prompt": "Two?", "category": "C", "id": 7})
    first, second = load_question_file(tmp_path / "a.jsonl").questions
    assert (first.id, first.scenario, first.harmful, first.prompt) == ("1", "all", True, "One?")
    assert (second.id, second.scenario, second.fields) == ("7", "C", {"prompt": "Two?", "category": "C", "id": 7})


def test_images_are_relative_to_the_file_or_absolute(tmp_path, monkeypatch):
    image = save_image(tmp_path / "pictures" / "a.png")
    rows = [{"prompt": "?", "image": "pictures/a.png"}, {"prompt": "?", "image": str(image), "image_type": "typo"}]
    write_jsonl(tmp_path / "a.jsonl", *rows)
    monkeypatch.chdir("/")
    questions = load_question_file(tmp_path / "a.jsonl").questions
    assert [q.image for q in questions] == [str(image), str(image)]
    assert [q.image_type for q in questions] == [ImageType.IMAGE, ImageType.TYPO]


def test_json_object_gives_the_ids(tmp_path):
    (tmp_path / "a.json").write_text('{"x": {"prompt": "One?"}, "y": {"prompt": "Two?"}}')
    assert [q.id for q in load_question_file(tmp_path / "a.json").questions] == ["x", "y"]


def test_the_same_id_may_stand_in_two_scenarios_and_types(tmp_path):
    save_image(tmp_path / "a.png")
    rows = [
        {"id": 1, "prompt": "?"},
        {"id": 1, "prompt": "?", "image": "a.png"},
        {"id": 1, "prompt": "?", "scenario": "s"},
    ]
    assert len(load_question_file(write_jsonl(tmp_path / "a.jsonl", *rows)).questions) == 3


def test_contrast_pairs_become_two_questions(tmp_path):
    save_image(tmp_path / "a.png")
    row = {"id": "p", "unsafe_prompt": "Bad?", "safe_prompt": "Good?", "image": "a.png", "scenario": "s"}
    unsafe, safe = load_question_file(write_jsonl(tmp_path / "a.jsonl", row)).questions
    assert (unsafe.id, unsafe.prompt, unsafe.harmful) == ("p-unsafe", "Bad?", True)
    assert (safe.id, safe.prompt, safe.harmful) == ("p-safe", "Good?", False)
    assert unsafe.fields["pair"] == safe.fields["pair"] == "p"
    assert unsafe.image == safe.image == str(tmp_path / "a.png")


def test_selection_applies(tmp_path):
    rows = [{"id": n, "prompt": "?", "scenario": f"s{n % 2}"} for n in range(6)]
    path = write_jsonl(tmp_path / "a.jsonl", *rows)
    assert [q.id for q in load_question_file(path, Selection.parse(limit=2)).questions] == ["0", "1"]
    assert [q.id for q in load_question_file(path, Selection.parse(["s1"])).questions] == ["1", "3", "5"]
    with pytest.raises(InputError, match="it has TEXT"):
        load_question_file(path, Selection.parse(image_types=["IMAGE"]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "a.png"}, "line 2 has no prompt"),
        ({"prompt": "  "}, "line 2: 'prompt' is ' '"),
        ({"prompt": 3}, "line 2: 'prompt' is 3"),
        ({"prompt": "?", "image": "none.png"}, "line 2: image none.png does not exist"),
        ({"prompt": "?", "image": "."}, "does not exist"),
        ({"prompt": "?", "harmful": "maybe"}, "line 2: 'harmful' is 'maybe'; write true or false"),
        ({"prompt": "?", "harmful": None}, "'harmful' is None"),
        ({"prompt": "?", "id": [1]}, r"line 2 has the id \[1\]"),
        ({"prompt": "?", "id": True}, "has the id True"),
        ({"prompt": "?", "id": " "}, "has the id ' '"),
        ({"prompt": "?", "id": "1"}, "line 2 repeats id '1' of line 1 in scenario 'all'"),
        ({"prompt": "?", "image_type": "PHOTO"}, "unknown image_type 'PHOTO'"),
        ({"prompt": "?", "image_type": "SD"}, "image_type SD does not go .* give an image"),
        ({"prompt": "?", "image_type": "TEXT", "image": "a.png"}, "leave the image out"),
        ({"id": 2, "unsafe_prompt": "?"}, "line 2 is a contrast pair without 'safe_prompt'"),
        ({"id": 2, "unsafe_prompt": "?", "safe_prompt": ""}, "line 2: 'prompt' is ''"),
    ],
)
def test_bad_rows_are_named_with_file_and_line(tmp_path, row, message):
    save_image(tmp_path / "a.png")
    path = write_jsonl(tmp_path / "bad.jsonl", {"prompt": "fine"}, row)
    with pytest.raises(InputError, match=message) as raised:
        load_question_file(path)
    assert "bad.jsonl" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "has no questions"),
        ("a.jsonl", "{\n", "line 1 is not valid JSON"),
        ("a.jsonl", "[1]\n", "line 1 is not an object|not a JSON object"),
        ("a.json", "3", "neither a list of rows nor an object"),
        ("a.json", "[3]", "row 1 is not an object"),
        ("a.json", '{"x": 3}', "row 1 is not an object"),
        ("a.csv", "prompt\n", "has no questions"),
        ("a.csv", "prompt,id\nx\n", "line 2 has 1 cells"),
        ("a.csv", "id,prompt\n1,\n", "line 2 has no prompt"),
        ("a.txt", "x", "ends in '.txt'; use .jsonl, .csv, .json"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_question_file(tmp_path / name)
    with pytest.raises(InputError, match=r"does not exist|ends in"):
        load_question_file(tmp_path / f"none-{name}")


@pytest.mark.parametrize("value", [True, "TRUE", "yes", 1, "1"])
def test_true_values(value):
    assert parse_truth(value, "x") is True


@pytest.mark.parametrize("value", [False, "false", "No", 0, "0"])
def test_false_values(value):
    assert parse_truth(value, "x") is False


@pytest.mark.parametrize("value", ["", "2", 2, 1.0, None, [], "y"])
def test_no_truth_values(value):
    with pytest.raises(InputError, match=r"x is .*; write true or false"):
        parse_truth(value, "x")


def load_rows(tmp_path, *rows):
    return load_question_file(write_jsonl(tmp_path / "a.jsonl", *rows))


@pytest.mark.parametrize("column", ["image", "images", "image_path"])
@pytest.mark.parametrize("listed", [True, False])
def test_an_image_is_read_from_whichever_column_names_it(tmp_path, column, listed):
    image = save_image(tmp_path / "a.png")
    (question,) = load_rows(tmp_path, {"prompt": "?", column: ["a.png"] if listed else "a.png"}).questions
    assert (question.image, question.image_type) == (str(image), ImageType.IMAGE)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"images": ["a.png", "b.png"]}, "line 1 has 2 images; a question is asked with one"),
        ({"video": "v.mp4"}, "line 1 has a column 'video', which is not read"),
        ({"image": "x" * 300}, "does not exist beside the question file"),
        ({"image": "a\0b"}, "does not exist beside the question file"),
        ({"label": "fraud"}, "'label' is 'fraud', which names no side"),
        ({"label": 1}, "'label' is 1, which names no side"),
        ({"label": "safe", "harmful": True}, "contradict each other"),
    ],
)
def test_what_would_be_asked_otherwise_than_it_was_meant_is_refused(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        load_rows(tmp_path, {"prompt": "?", **row})


@pytest.mark.parametrize(
    ("row", "harmful"),
    [({"label": "safe"}, False), ({"label": "Unsafe"}, True), ({"is_safe": True}, False), ({"unsafe": "no"}, False)],
)
def test_labels_decide_whatever_their_column_is_called(tmp_path, row, harmful):
    assert load_rows(tmp_path, {"prompt": "?", **row}).questions[0].harmful is harmful


def test_columns_that_are_not_read_are_named(tmp_path):
    rows = [{"prompt": "?", "id": n, "source": "x", "system": "Be short.", "split": "test"} for n in range(3)]
    first, second = load_rows(tmp_path, *rows).notes
    assert first.endswith("a.jsonl: these columns are not read, as if they were not there: system, split")
    assert second.endswith("a.jsonl: these columns are kept and not read: source")
    assert load_rows(tmp_path, {"prompt": "?", "harmful": True, "category": "c"}).notes == []


def test_the_mark_of_an_image_in_front_of_its_prompt_goes(tmp_path):
    save_image(tmp_path / "a.png")
    rows = [
        {"prompt": "<image>\nWhat is it?", "image": "a.png"},
        {"prompt": "What is <image>?", "image": "a.png"},
        {"prompt": "<image>\nWhat is it?"},
    ]
    benchmark = load_rows(tmp_path, *rows)
    assert [q.prompt for q in benchmark.questions] == ["What is it?", "What is <image>?", "<image>\nWhat is it?"]
    assert benchmark.notes == ["1 prompts begin with <image> but have no image, and are asked as text"]


def test_a_table_of_another_hand(tmp_path):
    (tmp_path / "a.csv").write_bytes('\ufeff Prompt ;Harmful;Scenario\r\n"Eins; zwei?";FALSE;\r\n'.encode())
    (question,) = load_question_file(tmp_path / "a.csv").questions
    assert (question.prompt, question.harmful, question.scenario) == ("Eins; zwei?", False, "all")


def test_xstest_by_its_columns(tmp_path):
    (tmp_path / "xstest_prompts.csv").write_text(
        "id,prompt,type,label,focus,note\n1,One?,homonyms,safe,f,\n2,Two?,contrast_homonyms,unsafe,f,\n"
    )
    benchmark = load_question_file(tmp_path / "xstest_prompts.csv")
    assert [(q.id, q.scenario, q.harmful) for q in benchmark.questions] == [
        ("1", "homonyms", False),
        ("2", "contrast_homonyms", True),
    ]
    assert "is read as XSTest" in benchmark.notes[0]
    rows = [{"prompt": "?", "type": "homonyms", "label": "safe"}, {"prompt": "?", "type": "homonyms"}]
    with pytest.raises(InputError, match="line 2 has not the columns of the first row"):
        load_rows(tmp_path, *rows)
    assert benchmark.name == "xstest_prompts"
