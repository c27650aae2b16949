"""Finding models by folder or hub id."""

from __future__ import annotations

import pytest

from llava.errors import InputError
from llava.model.hub import fetch, locate


def test_a_folder_is_itself(tmp_path):
    assert locate(str(tmp_path)) == str(tmp_path)
    assert fetch(str(tmp_path), "base", "give --base") == tmp_path


@pytest.mark.parametrize("name", ["llava-hf/llava-1.5-7b-hf", "gpt2", "a.b/c_d-1.5"])
def test_what_can_be_a_hub_id_passes(name):
    assert locate(name) == name


@pytest.mark.parametrize("name", ["/no/such", "./x", "a/b/c", "-x", "a b", "~/x"])
def test_what_cannot_be_a_hub_id_is_a_missing_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        locate(name)
    with pytest.raises(InputError, match=r"vision tower .* does not exist; give --vision-tower"):
        fetch(name, "vision tower", "give --vision-tower")


def test_an_unreachable_hub_is_one_line():
    with pytest.raises(InputError, match="base someone/thing is no folder and could not be fetched") as caught:
        fetch("someone/thing", "base", "give --base")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("give --base")


@pytest.mark.parametrize("name", ["~\0", "~\ud800"])
def test_a_name_that_no_folder_can_have_is_one_line(name):
    with pytest.raises(InputError, match="does not exist"):
        locate(name)
    with pytest.raises(InputError, match="give another"):
        fetch(name, "model", "give another")
