import os
from pathlib import Path

import pytest

from llava.errors import InputError
from llava.places import LONGEST_NAME, check_new_folder, check_output_file, check_output_folder, to_file_name


def test_output_below_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        check_output_file(tmp_path / "file" / "out.jsonl")
    check_output_file(tmp_path / "new" / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/dev/full", "no regular file"),
        ("/proc/out.jsonl", "cannot be written"),
        ("/proc/new/out.jsonl", "cannot be written"),
        (".", "is a folder"),
        ("x" * 300, "more than 255 bytes"),
        ("a" * 300 + "/b", "more than 255 bytes"),
        ("x\0y", "null"),
    ],
)
def test_files_that_cannot_be_written(path, words):
    with pytest.raises(InputError, match=words):
        check_output_file(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into every folder")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        check_output_folder(tmp_path / "run")


def test_folders(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        check_new_folder(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        check_new_folder(tmp_path / "file")
    with pytest.raises(InputError, match="is a file"):
        check_output_folder(tmp_path / "file")
    check_new_folder(tmp_path / "a" / "b")
    check_output_folder(tmp_path)
    assert not (tmp_path / "a").exists()


def test_names_from_data_stay_in_their_folder():
    hostile = ["../../etc", "/etc/passwd", "..", "", "a/b", "a\\b", "x\0y", "run.json", "x" * 300, "\ud83d"]
    names = [to_file_name(text, frozenset({"run.json"})) for text in hostile]
    assert len(set(names)) == len(names)
    for name in names:
        assert Path(name).name == name
        assert len(name.encode()) <= LONGEST_NAME + 9
    assert to_file_name("01-Illegal_Activitiy") == "01-Illegal_Activitiy"
    assert to_file_name("Hate speech, threats") == "Hate speech, threats"
