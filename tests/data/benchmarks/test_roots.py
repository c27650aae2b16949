from __future__ import annotations

import pytest

from llava.data.benchmarks.roots import check_root, find_below
from llava.errors import InputError


def test_the_preferred_entry_wins_over_the_nearer_folder(tmp_path):
    for name in ("second.csv", "sub/first.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_below(tmp_path, ["first.csv", "second.csv"], ["", "sub"], "b", "get it")
    assert found == tmp_path / "sub" / "first.csv"


def test_the_current_folder_is_searched_without_a_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").touch()
    assert find_below(None, ["x"], ["", "sub"], "b", "get it").resolve() == tmp_path / "sub" / "x"
    with pytest.raises(InputError, match="benchmark b: no y below the current folder; get it, then give --data-root"):
        find_below(None, ["y"], [""], "b", "get it")


def test_nothing_there_is_said_with_the_remedy(tmp_path):
    with pytest.raises(InputError, match=r"no x or y in .*; get it"):
        find_below(tmp_path, ["x", "y"], ["", "sub"], "b", "get it")


def test_a_root_that_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(InputError, match="is not a folder; check --data-root"):
            check_root(root)
