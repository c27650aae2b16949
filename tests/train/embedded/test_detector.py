import json

import pytest
import yaml

from llava.data.training.pairs import DetectorRow
from llava.errors import InputError
from llava.files import write_jsonl
from llava.quality.detector_rows import FILES
from llava.train.embedded.detector import RECIPE, collect_pairs, collect_rows, encode, form_examples, main, read_recipe


def test_the_recipe_is_read():
    recipe = read_recipe()
    assert recipe.settings.first_layer == 12
    assert recipe.settings.stretches == (32, 64)
    assert recipe.groups["msts_responses", True] == (100, 1.2)
    groups = {group for group, _ in recipe.groups}
    assert groups >= {*FILES} - {"benign_answers"}
    assert "jailjudge_mini" not in groups


def test_a_bad_recipe_is_one_line(tmp_path):
    values = yaml.safe_load(RECIPE.read_text())
    for change in ({"prompt_dropout": 2}, {"pairs": "many"}, {"groups": [1]}, {"longest_answer": 0}):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**values, **change}))
        with pytest.raises(InputError, match=next(iter(change))):
            read_recipe(tmp_path / "recipe.yaml")


@pytest.fixture
def data(tmp_path):
    words = " ".join(f"word{i}" for i in range(90))
    for name in FILES:
        rows = [
            {"prompt": f"{name} {i}?", "response": f"{i} {words if i % 2 else 'short'}", "harmful": i % 4 == 1}
            for i in range(40)
        ]
        if name == "benign_answers":
            rows = [{**row, "harmful": False, "source": "alpaca_eval"} for row in rows]
        if name in ("diasafety_dialogues", "vicuna80_responses"):
            rows = [{**row, "harmful": False} for row in rows]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    pairs = [{"prompt": f"why {i}?", "chosen": f"no {i}", "rejected": f"yes {i}"} for i in range(20)]
    write_jsonl(tmp_path / "hh_harmless_pairs.jsonl", pairs)
    return tmp_path


def test_each_group_weighs_what_the_recipe_says(data):
    recipe = read_recipe()
    rows = collect_rows(data, recipe)
    assert sum(row.weight for row in rows) == pytest.approx(len(rows))
    totals: dict[tuple[str, bool], float] = {}
    for row in rows:
        totals[row.source, row.harmful] = totals.get((row.source, row.harmful), 0.0) + row.weight
    unit = totals["jailbreakbench_responses", True]
    for part, total in totals.items():
        assert total / unit == pytest.approx(recipe.groups[part][1])
    assert ("hidden_passages", True) in totals
    pairs = collect_pairs(data, 5)
    assert len(pairs) == 10
    assert [row.chosen for row in pairs] == [True, False] * 5
    assert all(one.pair_id == other.pair_id for one, other in zip(pairs[::2], pairs[1::2], strict=True))
    assert collect_pairs(data, 0) == []


def test_a_heavy_row_comes_several_times():
    rows = [DetectorRow("", "x", True, "s", weight) for weight in (0.5, 6.0)]
    pairs = [DetectorRow("", "a", False, "p"), DetectorRow("", "b", True, "p")]
    units = form_examples(rows, pairs)
    assert [tuple(row.number for row in unit) for unit in units] == [(0,), (1,), (1,), (1,), (1,), (2, 3)]
    assert sum(unit[0].weight for unit in units[1:5]) == 6.0
    assert len(set(units)) == len(units)


def test_an_answer_is_cut_and_some_rows_lose_their_question(tiny_lm):
    from llava.model.tokenizers import load_tokenizer

    tokenizer, recipe = load_tokenizer(str(tiny_lm)), read_recipe()
    rows = [DetectorRow("Why is that so?", f"{i} " + "word " * 300, False, "s") for i in range(60)]
    windows = [encode(tokenizer, row, recipe) for row in rows]
    assert {len(window.ids) - window.head for window in windows} == {recipe.longest_answer}
    without = [window for window in windows if window.head < 12]
    assert 1 <= len(without) < 30


def test_the_command_trains_and_says_how_it_pools(data, tmp_path, tiny_lm, monkeypatch, capsys):
    """All of it on a tiny base: rows, states, training, an adapter that loads."""
    from llava.protector.detector import HarmDetector
    from tests.tiny_adapters import build_detector_adapter

    adapter = build_detector_adapter(tmp_path / "first", tiny_lm, pooling="mean_response", stretches=())
    values = yaml.safe_load(RECIPE.read_text())
    values |= {"first_layer": 1, "batch_tokens": 4096, "stretches": [8]}
    values["dev_rows"] = {name: {"harmful": 9, "harmless": 9} for name in ("gptfuzz_responses", "made_answers")}
    values["groups"] = {
        "jailbreakbench_responses": {"harmful": [4, 1.0], "harmless": [4, 1.0]},
        "made_answers": {"harmless": [20, 1.0]},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    options = ("--data", data, "--adapter", adapter, "--output", tmp_path / "out", "--recipe", tmp_path / "recipe.yaml")
    assert main([*map(str, options), "--base", str(tiny_lm)]) == 0, capsys.readouterr().err
    last = tmp_path / "out" / "epoch-1"
    saved = json.loads((last / "protector_config.json").read_text())
    assert (saved["stretches"], saved["max_length"]) == ([8], 64)
    assert f"threshold {saved['threshold']:.6f}" in capsys.readouterr().out
    assert saved["threshold"] != 0.5
    assert 0 < HarmDetector.from_pretrained(last).score(["So it is."])[0] < 1
