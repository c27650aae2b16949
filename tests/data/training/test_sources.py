import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.training.sources import MixturePart, iter_source, parse_mixture
from llava.errors import InputError


@given(
    parts=st.lists(
        st.tuples(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.floats(0.01, 100)),
        min_size=1,
        max_size=4,
        unique_by=lambda p: p[0],
    )
)
def test_a_mixture_is_read_as_written(parts):
    text = ",".join(f"folder/{name}.jsonl:{share!r}" for name, share in parts)
    assert parse_mixture(text) == [MixturePart(f"folder/{name}.jsonl", share) for name, share in parts]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        (",", "empty"),
        ('""', "empty name"),
        ("a,' ':2", "empty name"),
        ("a:0", "above 0"),
        ("a:-1", "above 0"),
        ("x/a.jsonl,x/../x/a.jsonl:2", "twice"),
    ],
)
def test_bad_mixtures(text, word):
    with pytest.raises(InputError, match=word):
        parse_mixture(text)


def test_rows_come_with_their_place(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    found = list(iter_source(str(path)))
    assert [row for _, row in found] == [{"a": 1}, {"a": 2}]
    assert len({str(where) for where, _ in found}) == 2


def test_a_source_that_is_nowhere(tmp_path):
    with pytest.raises(InputError, match="gone"):
        list(iter_source(str(tmp_path / "gone.jsonl")))


def test_folders_of_one_name_are_told_apart():
    parts = parse_mixture("x1/train.jsonl,x2/train.jsonl:0.5,other.jsonl")
    assert [(part.source, part.share, part.name) for part in parts] == [
        ("x1/train.jsonl", 1.0, "x1/train"),
        ("x2/train.jsonl", 0.5, "x2/train"),
        ("other.jsonl", 1.0, "other"),
    ]
    assert [part.name for part in parse_mixture("hh/a/train.jsonl,hh/b/train.jsonl")] == ["a/train", "b/train"]
    assert [part.name for part in parse_mixture("x/a/train.jsonl,y/a/train.jsonl")] == ["x/a/train", "y/a/train"]
    assert [part.name for part in parse_mixture("a/name,b/name")] == ["a/name", "b/name"]
    assert [part.name for part in parse_mixture("x/a.jsonl,x/a.json")] == ["x/a.jsonl", "x/a.json"]


def test_commas_in_paths(tmp_path):
    path = tmp_path / "a, b,c.jsonl"
    path.write_text("")
    assert parse_mixture(f"{path},d.jsonl:2") == [MixturePart(str(path)), MixturePart("d.jsonl", 2.0)]
    assert parse_mixture(f"d.jsonl,{path}:0.5")[1] == MixturePart(str(path), 0.5)
    assert parse_mixture('"new,one.jsonl":0.5,x') == [MixturePart("new,one.jsonl", 0.5), MixturePart("x")]


def read(folder, split):
    return [row["from"] for _, row in iter_source(str(folder), split)]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train/0.jsonl", "test/0.jsonl"),
        ("train.jsonl", "test.jsonl"),
        ("data/330k_train.jsonl", "data/30k_test.jsonl"),
        ("safetyTrain.json", "safetyTest.json"),
        ("en/train/a.csv", "en/test/a.csv"),
        ("training/latest.jsonl", "testing/latest.jsonl"),
        ("train/0.jsonl", "train/sub/test.jsonl"),
    ],
)
def test_names_of_files_and_folders_say_of_which_split_they_are(tmp_path, train, test):
    for name, content in ((train, "train"), (test, "test"), ("dev/0.jsonl", "dev"), (".cache/train.jsonl", "hidden")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"from\n{content}\n" if name.endswith(".csv") else f'{{"from": "{content}"}}\n' * 2)
    assert set(read(tmp_path, "train")) == {"train"}
    assert set(read(tmp_path, "test")) == {"test"}


def test_a_folder_whose_files_say_nothing_is_read_whole(tmp_path):
    for name in ("latest.jsonl", "contest.jsonl", "developer.jsonl"):
        (tmp_path / name).write_text(f'{{"from": "{name}"}}\n')
    (tmp_path / "dataset_info.json").write_text("{}")
    assert read(tmp_path, "train") == ["contest.jsonl", "developer.jsonl", "latest.jsonl"]


def test_a_saved_data_set_is_no_folder_of_rows(tmp_path):
    from datasets import Dataset

    Dataset.from_list([{"a": 1}]).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(InputError, match=r"training data .*saved is a folder of Dataset.save_to_disk"):
        read(tmp_path / "saved", "train")


@pytest.mark.parametrize("source", ["x" * 300 + ".jsonl", "~nobody-of-that-name/a.jsonl", "a/b/c", "./a"])
def test_sources_that_cannot_be(source):
    with pytest.raises(InputError, match="does not exist"):
        list(iter_source(source))
