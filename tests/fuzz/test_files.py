from hypothesis import given
from hypothesis import strategies as st

from llava.fields import Fields
from llava.files import iter_jsonl, read_json, write_json
from llava.places import LONGEST_NAME, check_output_file, to_file_name
from tests.fuzz.support import check_parser, damaged, dump, fuzz, list_tree, mutated, values, write

ROW = {"id": "7", "score": 0.5, "tags": ["a", "b"], "inner": {"deep": [1, 2, {"x": None}]}}


def is_json(value):
    assert value is None or isinstance(value, (bool, int, float, str, list, dict))


@fuzz
@given(text=values.map(dump) | damaged(dump(ROW).encode()))
def test_json(tmp_path, text):
    path = write(tmp_path, "x.json", text)
    value = check_parser(lambda: read_json(path), is_json)
    if value is not None:
        write_json(tmp_path / "copy.json", value)


@fuzz
@given(rows=st.lists(mutated(ROW).map(dump), max_size=4), tail=damaged(dump(ROW).encode()))
def test_jsonl(tmp_path, rows, tail):
    path = write(tmp_path, "x.jsonl", "\n".join(rows).encode() + b"\n" + tail)

    def check(pairs):
        assert all(isinstance(row, dict) and number > 0 for number, row in pairs)

    check_parser(lambda: list(iter_jsonl(path)), check)


@fuzz
@given(row=mutated(ROW) | values)
def test_fields(row):
    def read():
        fields = Fields(row, "row")
        return (
            fields.text("id"),
            fields.number("score", least=0, most=1),
            fields.texts("tags", None),
            fields.inner("inner").items("deep"),
        )

    def check(found):
        assert isinstance(found[0], str)
        assert 0 <= found[1] <= 1
        assert found[2] is None or all(isinstance(tag, str) for tag in found[2])

    check_parser(read, check)


@fuzz
@given(text=st.text(max_size=300) | st.sampled_from(["..", ".", "", "/", "a/../../b", "\x00", "run.json", "\ud83d"]))
def test_file_names(tmp_path, text):
    name = to_file_name(text, frozenset({"run.json"}))
    assert name
    assert "/" not in name
    assert name not in (".", "..", "run.json")
    assert len(name.encode()) <= LONGEST_NAME + 9
    (tmp_path / name).write_text("x")
    assert list_tree(tmp_path) == {name: 1}
    (tmp_path / name).unlink()


@fuzz
@given(name=st.text(max_size=300))
def test_output_places(tmp_path, name):
    before = list_tree(tmp_path)
    check_parser(lambda: check_output_file(f"{tmp_path}/{name}" if name else tmp_path))
    assert list_tree(tmp_path) == before
