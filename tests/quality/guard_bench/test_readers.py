"""Files of labelled responses: every form, counted, named, drawn from by chance."""

import csv
import json

import pytest

from llava.errors import InputError
from llava.files import write_json, write_jsonl
from llava.quality.guard_bench.readers import read_sources
from tests.quality.guard_bench.rows import MEAN, NICE, SETS, UNCLEAR


@pytest.mark.parametrize("name", SETS)
def test_json_lines(tmp_path, name):
    write_jsonl(tmp_path / "rows.jsonl", SETS[name])
    (source,) = read_sources([tmp_path / "rows.jsonl"]).sources
    assert (source.name, source.form) == ("rows", name)
    assert [(answer.response, answer.harmful) for answer in source.answers] == [(NICE, False), (MEAN, True)]


@pytest.mark.parametrize("name", SETS)
def test_csv_says_the_same(tmp_path, name):
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(SETS[name][0]))
        writer.writeheader()
        writer.writerows(SETS[name])
    write_jsonl(tmp_path / "other" / "rows.jsonl", SETS[name])
    table, lines = read_sources([tmp_path / "rows.csv", tmp_path / "other" / "rows.jsonl"]).sources
    assert table.answers == lines.answers
    assert (table.name, lines.name) == (f"{tmp_path.name}/rows", "other/rows")


@pytest.mark.parametrize("name", SETS)
def test_unclear_labels_are_counted_and_said(tmp_path, name):
    write_jsonl(tmp_path / "rows.jsonl", [*SETS[name], {**SETS[name][0], **UNCLEAR[name]}])
    reading = read_sources([tmp_path / "rows.jsonl"])
    (source,) = reading.sources
    assert len(source.answers) == 2
    assert source.unlabelled == len(UNCLEAR[name]) if name in ("PKU-SafeRLHF", "Do-Not-Answer") else 1
    assert f"{source.unlabelled} without a clear label, left out" in " ".join(reading.remarks)


def test_harmbench_as_it_is_published(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "behavior_id"} for row in SETS["HarmBench"]]
    write_json(tmp_path / "val.json", {"one": rows[:1], "two": rows[1:]})
    (source,) = read_sources([tmp_path / "val.json"]).sources
    assert (source.form, source.benchmark) == ("HarmBench", "HarmBench")
    assert [answer.group for answer in source.answers] == ["one", "two"]


def test_a_json_list_and_parquet(tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = SETS["WildGuardTest"]
    write_json(tmp_path / "a.json", rows)
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "b.parquet")
    first, second = read_sources([tmp_path / "a.json", tmp_path / "b.parquet"]).sources
    assert first.answers == second.answers


def test_sources_within_a_file(tmp_path):
    rows = [{"prompt": "?", "response": "Yes.", "harmful": False, "source": name} for name in "aab"]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    sources = read_sources([tmp_path / "rows.jsonl"]).sources
    assert {source.name: len(source.answers) for source in sources} == {"rows/a": 2, "rows/b": 1}


def test_columns_that_are_not_read_and_empty_rows_are_said(tmp_path):
    rows = [{"prompt": "?", "response": "Yes.", "harmful": False, "image": "a.png", "mood": "fine"}]
    write_jsonl(tmp_path / "rows.jsonl", [*rows, {"prompt": "?", "response": " ", "harmful": True}])
    remarks = " ".join(read_sources([tmp_path / "rows.jsonl"]).remarks)
    assert "not read, as if they were not there: image" in remarks
    assert "kept and not read: mood" in remarks
    assert "1 without a response, left out" in remarks


def test_toxic_chat_has_a_remark(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", SETS["ToxicChat"])
    assert "of what the user wrote" in " ".join(read_sources([tmp_path / "rows.jsonl"]).remarks)


def test_the_limit_is_drawn_by_chance_and_the_same_each_time(tmp_path):
    rows = [{"prompt": str(number), "response": "Yes.", "harmful": False} for number in range(50)]
    write_jsonl(tmp_path / "rows.jsonl", rows)

    def draw(seed):
        (source,) = read_sources([tmp_path / "rows.jsonl"], limit=5, seed=seed).sources
        return [answer.prompt for answer in source.answers]

    assert draw(0) == draw(0) != draw(1)
    assert len(draw(0)) == 5
    assert draw(0) == sorted(draw(0), key=int)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("rows.jsonl", "", "has no rows"),
        ("rows.jsonl", '{"prompt": "?"}\n', "line 1 has columns prompt; known forms are"),
        ("rows.jsonl", '{"response": "a", "harmful": "?"}\n', "no response with a clear label"),
        ("rows.jsonl", "{", "line 1 is not valid JSON"),
        ("rows.json", '{"a": [1]}', "row 1 is not an object"),
        ("rows.csv", "prompt,response\n?,a\n", "line 2 has columns prompt, response; known forms"),
        ("rows.jsonl", '{"response": ["a"], "harmful": true}\n', "line 1: 'response' is a list, not a text"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        read_sources([tmp_path / name])
    assert told in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_given_twice(tmp_path):
    with pytest.raises(InputError, match=r"input file .* does not exist"):
        read_sources([tmp_path / "none.jsonl"])
    (tmp_path / "a.jsonl").write_text(json.dumps(SETS["labelled responses"][0]))
    with pytest.raises(InputError, match="is given twice"):
        read_sources([tmp_path / "a.jsonl", tmp_path / "a.jsonl"])


def test_the_projects_own_sets(shared_data):
    names = ("msts_responses", "benign_answers", "jailjudge_mini")
    sources = read_sources([shared_data / f"{name}.jsonl" for name in names]).sources
    counts = {source.name: (len(source.answers), sum(a.harmful for a in source.answers)) for source in sources}
    assert counts["msts_responses"] == (2808, 115)
    assert counts["jailjudge_mini"] == (994, 315)
    assert sum(n for name, (n, _) in counts.items() if name.startswith("benign_answers/")) == 3658
    assert {answer.group[:5] for answer in sources[0].answers} == {"case_"}
