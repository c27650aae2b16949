"""The accelerator's benchmark runs on a CPU in its tiny form; its figures mean nothing there."""

import json

import pytest
import torch

from benchmarks.device import SHAPES, TINY, choose_sizes, main, measure


def test_the_tiny_form_measures_everything(tmp_path, capsys):
    output, page = tmp_path / "device.json", tmp_path / "device.md"
    options = ["--output", str(output), "--markdown", str(page), "--device", "cpu", "--repeats", "1"]
    assert main(options) == 0
    rows = json.loads(output.read_text())
    assert [row["name"] for row in rows] == [
        "answers scored in a batch against one after another",
        "writing with a guard of the model's size against writing alone",
        "scoring with SDPA against eager attention",
        "time for a prompt: predicted by the formulas of docs/cost.md against measured",
        "time for a token: predicted by the formulas of docs/cost.md against measured",
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in rows)
    assert "bfloat16, batch 4, 48 tokens" in page.read_text()


def test_when_the_time_is_up_nothing_is_begun(capsys):
    device = torch.device("cpu")
    assert list(measure(device, torch.float32, choose_sizes(device), 1, seconds=0.0)) == []
    assert "the time is up" in capsys.readouterr().err


def test_sizes_fit_the_device():
    assert choose_sizes(torch.device("cpu")).shape == TINY
    # Two models in half precision, with as much again for what they calculate with.
    for memory, shape in SHAPES[:-1]:
        weights = 12 * shape.hidden**2 * shape.layers + 2 * shape.hidden * shape.vocabulary
        assert 2 * 2 * weights / 2**30 < 0.7 * memory


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")
def test_without_an_accelerator_it_says_what_to_do(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "device.json")]) == 2
    assert "--device cpu" in capsys.readouterr().err
