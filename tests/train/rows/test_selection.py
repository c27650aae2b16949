import importlib.util

import pytest

from llava.data.training.pairs import load_detector_rows
from llava.data.training.splits import normalise_prompt, split_of
from llava.errors import InputError
from llava.files import write_jsonl
from llava.train.arguments import DataArguments
from llava.train.rows.selection import load_split

LONG = (
    "mix the flour with water and salt then add the yeast and wait an hour until the dough has risen well in its bowl"
)


def write(path, rows):
    write_jsonl(path, ({"prompt": prompt, "response": text, "harmful": False} for prompt, text in rows))
    return str(path)


def load(**options):
    return load_split(DataArguments(**options), load_detector_rows)


@pytest.fixture
def log(caplog):
    caplog.set_level("INFO", logger="llava.train.rows.selection")
    return caplog


def test_training_rows_to_a_prompt_of_the_evaluation_go(tmp_path, log):
    """By prompt, not by row: another answer to the same question goes too, however the question is written."""
    rows = [
        ("How do I bake?", "one"),
        ("how do I  BAKE", "two"),
        ("How do I cook?", "three"),
        ("", "four"),
        ("", "five"),
    ]
    pair = tmp_path / "pairs.jsonl"
    write_jsonl(pair, [{"prompt": "how do i bake!", "chosen": "six", "rejected": "seven"}])
    held = write(tmp_path / "eval.jsonl", [("How do I bake?", "something else"), ("", "Five.")])
    train, held_out = load(train_data=f"{write(tmp_path / 'train.jsonl', rows)},{pair}", eval_data=held)
    assert [row.response for row in train] == ["three", "four"]
    assert [row.response for row in held_out] == ["something else", "Five."]
    assert "dropped 5 training rows whose prompt is among the held-out ones" in log.text


def test_nothing_left_names_the_reason(tmp_path):
    path = write(tmp_path / "rows.jsonl", [("How?", "one")])
    with pytest.raises(InputError, match="its prompts are those of"):
        load(train_data=path, eval_data=path)


def test_equal_rows_go_on_both_sides(tmp_path, log):
    prompts = [f"question {i}" for i in range(40)]
    rows = [(prompt, text) for prompt in prompts for text in ("One.", "two", "one")]
    train, held_out = load(train_data=write(tmp_path / "rows.jsonl", rows), near_duplicates=0.0)
    held = [prompt for prompt in prompts if split_of(prompt) == "held_out"]
    assert 0 < len(held) < 40
    assert [(row.prompt, row.response) for row in held_out] == [(p, text) for p in held for text in ("One.", "two")]
    assert len(train) == 2 * (40 - len(held))
    assert f"dropped {len(held)} held-out rows that repeat others" in log.text
    assert f"dropped {40 - len(held)} training rows that repeat others, 0 that repeat held-out ones" in log.text


def test_near_duplicates_go_by_default(tmp_path, log):
    pytest.importorskip("datasketch")
    rows = [("question", LONG), ("question", f"{LONG} today"), ("question", "something else entirely, of other words")]
    path = write(tmp_path / "rows.jsonl", rows)
    assert [row.response for row in load(train_data=path, held_out_fraction=0.0)[0]] == [rows[0][1], rows[2][1]]
    assert "dropped 1 training rows that repeat others" in log.text
    assert len(load(train_data=path, held_out_fraction=0.0, near_duplicates=0.0)[0]) == 3


def test_without_datasketch_the_log_says_that_near_duplicates_stay(tmp_path, monkeypatch, caplog):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "datasketch" else find(name))
    path = write(tmp_path / "rows.jsonl", [("question", LONG), ("question", f"{LONG} today")])
    assert len(load(train_data=path, held_out_fraction=0.0)[0]) == 2
    assert "pip install datasketch" in caplog.text


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_the_similarity_is_a_share(value):
    with pytest.raises(InputError, match="--near-duplicates"):
        DataArguments(train_data="rows.jsonl", near_duplicates=value)


def test_the_embedded_recipe_trains_on_the_rows_it_did(shared_data):
    """The cards' held-out rows and the recipe's come from one split; equal rows alone are left out."""
    from pathlib import Path

    import yaml

    from llava.data.training.duplicates import drop_duplicates
    from llava.quality import cards

    train, held_out = cards.load_detector_split(shared_data)
    recipe = Path(cards.__file__).parent.parent / "train" / "configs" / "embedded_detector.yaml"
    values = yaml.safe_load(recipe.read_text())
    names = [Path(source).name for source in values["train-data"].split(",")]
    data = ",".join(str(shared_data / name) for name in names)
    found, asked = load(train_data=data, near_duplicates=float(values["near-duplicates"]))
    assert found == drop_duplicates(train, held_out)[0]
    assert {normalise_prompt(row.group) for row in asked} == {normalise_prompt(row.group) for row in held_out}
