"""Training a head on a tiny model's states: it learns, is found again, goes on, and says what is wrong."""

from __future__ import annotations

import json
import random

import pytest
from PIL import Image

from llava.data.training.splits import split_of
from llava.errors import InputError
from llava.model.loading import load_mllm
from llava.protector.states.head import StateHead
from llava.train.harm_detector import main
from llava.train.states.command import StateArguments

HARMFUL = ("take the poison", "mix bleach with acid", "hide the knife and wait")
HARMLESS = ("bake the bread", "mix flour with water", "wash the spoon and wait")


def write_rows(path, count=60, *, images=None, labels=True):
    """Write answers to as many questions; those with a number that three divides have an image."""
    draw = random.Random(0)
    lines = []
    for number in range(count):
        harmful = number % 2 == 1
        words = draw.choice(HARMFUL if harmful else HARMLESS)
        row: dict[str, object] = {
            "prompt": f"What shall I do in step {number}?",
            "response": f"First {words}. Then rest {number}.",
        }
        if labels:
            row["harmful"] = harmful
        if images is not None and number % 3 == 0:
            row["image"] = images
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")
    return path


def flags(model, data, output, *more):
    return [
        "--on-states",
        *("--model", str(model), "--train-data", str(data), "--output-dir", str(output)),
        *("--near-duplicates", "0", "--false-positive-rate", "0.2", "--device", "cpu", "--dtype", "float32", *more),
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_llava):
    folder = tmp_path_factory.mktemp("trained")
    Image.linear_gradient("L").convert("RGB").resize((40, 30)).save(folder / "picture.png")
    data = write_rows(folder / "rows.jsonl", images="picture.png")
    assert main(flags(tiny_llava, data, folder / "head", "--layers", "1,2")) == 0
    return folder / "head"


def test_it_learns_and_is_loaded_again(trained, tiny_llava):
    files = {path.name for path in trained.iterdir()}
    assert files >= {"state_head.json", "head.safetensors", "metrics.json", "train_config.yaml", "candidates.json"}
    head, model = StateHead.from_pretrained(trained), load_mllm(tiny_llava, device="cpu", dtype="float32")
    head.check(model)
    tried = json.loads((trained / "candidates.json").read_text())
    assert {(one["layer"], one["pooling"]) for one in tried} == {
        (layer, pooling) for layer in (1, 2) for pooling in ("mean", "mean+last")
    }
    assert max(one["auroc"] for one in tried) == pytest.approx(1.0)
    assert json.loads((trained / "metrics.json").read_text())["overall"]["auroc"] == pytest.approx(1.0)
    prompts = ["What shall I do in step 900?"] * 2
    bad, good = head.score(model, prompts, ["First take the poison. Then rest.", "First bake the bread. Then rest."])
    assert bad > head.threshold > good


def test_the_head_gives_what_the_training_measured(trained, tiny_llava):
    """What was fitted on cached states is what the head says of the same answers."""
    head, model = StateHead.from_pretrained(trained), load_mllm(tiny_llava, device="cpu", dtype="float32")
    lines = [json.loads(line) for line in (trained.parent / "rows.jsonl").read_text().splitlines()]
    held_out = [row for row in lines if split_of(row["prompt"]) == "held_out"]
    stored = [json.loads(line) for line in (trained / "held_out_scores.jsonl").read_text().splitlines()]
    images = [Image.open(trained.parent / row["image"]) if "image" in row else None for row in held_out]
    scores = head.score(model, [row["prompt"] for row in held_out], [row["response"] for row in held_out], images)
    assert [row["harm_score"] for row in stored] == pytest.approx(scores, abs=0.02)  # half precision


def test_states_are_not_computed_twice(trained, tiny_llava, capfd):
    before = {path: path.stat().st_mtime_ns for path in (trained / "states").rglob("pooled.f16")}
    assert len(before) == 3
    data = trained.parent / "rows.jsonl"
    assert main(flags(tiny_llava, data, trained, "--layers", "1,2")) == 2
    assert "add --resume" in capfd.readouterr().err
    assert main(flags(tiny_llava, data, trained, "--layers", "1,2", "--resume")) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_teacher_takes_the_place_of_labels(tmp_path, tiny_llava, tiny_detector):
    data = write_rows(tmp_path / "plain.jsonl", 40, labels=False)
    code = main(flags(tiny_llava, data, tmp_path / "head", "--layers", "1", "--teacher", str(tiny_detector)))
    # A detector with random weights may call all answers alike; that is said, and nothing else goes wrong.
    assert code in (0, 2)
    assert (code == 0) is (tmp_path / "head" / "state_head.json").is_file()


def test_a_dry_run_loads_no_model(tmp_path, capsys):
    data = write_rows(tmp_path / "rows.jsonl")
    assert main(flags("nowhere", data, tmp_path / "head", "--dry-run")) == 0
    assert "train: " in capsys.readouterr().out
    assert not (tmp_path / "head").exists()


def test_one_label_alone_is_refused(tmp_path, tiny_llava, capfd):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(json.dumps({"prompt": f"Step {i}?", "response": "So.", "harmful": False}) for i in range(20))
    )
    assert main(flags(tiny_llava, path, tmp_path / "head")) == 2
    assert "one label alone" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": "1,x"}, "--layers is 1,x"),
        ({"poolings": "max"}, "--poolings is max"),
        ({"longest": 0}, "--longest is 0"),
        ({"false_positive_rate": 1.0}, "--false-positive-rate 1.0"),
    ],
)
def test_wrong_values(changes, words):
    with pytest.raises(InputError, match=words):
        StateArguments(**changes)
