"""The formulas, against values computed by hand; and the page, against the formulas."""

import json
import shutil
import subprocess

import pytest

from benchmarks.cost.check import Shape, Stages, measure_stages, predict
from benchmarks.cost.check import main as check
from benchmarks.cost.model import ASSUMPTIONS, FORMULAS, KINDS, MODELS, compute, main, render_table
from benchmarks.cost.page import PAGE, fill_page, render_function
from llava.errors import InputError

ROUND = {
    "parameters": 10,
    "layers": 10,
    "kv_width": 1000,
    "hidden_width": 1000,
    "detector_parameters": 2,
    "detoxifier_parameters": 4,
    "adapter_share": 0.1,
    "depth_share": 0.5,
    "bytes_per_weight": 2,
    "bytes_per_number": 2,
    "prompt_tokens": 1000,
    "question_tokens": 100,
    "answer_tokens": 400,
    "rewrite_tokens": 100,
    "flagged_share": 0.1,
    "uncertain_share": 0.2,
    "operations": 100,
    "bandwidth": 1000,
    "compute_efficiency": 0.5,
    "bandwidth_efficiency": 0.5,
}
"""Numbers that one can compute with by hand: 5e13 operations and 5e11 bytes a second."""


def test_the_model_by_hand():
    values = compute(**ROUND)
    assert values["weight_bytes"] == 20e9
    # 2 · 10 layers · 1000 wide · 2 bytes
    assert values["cache_bytes_per_token"] == 40_000
    assert values["cache_bytes"] == pytest.approx(56e6)
    # 2 · 10e9 · 1000 operations at 5e13 are 0.4 s; its weights are read in 0.04 s
    assert values["prompt_seconds"] == pytest.approx(0.4)
    # 20e9 + 40,000 · 1,200 bytes at 5e11
    assert values["token_seconds"] == pytest.approx(0.040096)
    assert values["model_seconds"] == pytest.approx(0.4 + 400 * 0.040096)
    assert values["model_bytes"] == pytest.approx(20.056e9)


def test_separate_guards_by_hand():
    values = compute(**ROUND)
    # reading 500 tokens: 2 · 2e9 · 500 / 5e13 = 0.04 s, weights in 0.008 s; 200 tokens: 0.016 s
    assert values["separate_read_seconds"] == pytest.approx(0.04)
    assert values["separate_recheck_seconds"] == pytest.approx(0.016)
    # 2 · 4e9 · 500 / 5e13 = 0.08 s, then 100 tokens of 8e9 bytes at 5e11: 1.6 s
    assert values["separate_rewrite_seconds"] == pytest.approx(1.68)
    assert values["separate_seconds"] == pytest.approx(0.04 + 0.1 * (1.68 + 0.016))
    assert values["separate_bytes"] == pytest.approx(12e9)


def test_the_shared_backbone_and_the_cascade_by_hand():
    values = compute(**ROUND)
    # 11e9 parameters with the adapter, half of the layers: 0.5 · 2 · 11e9 · 500 / 5e13
    assert values["shared_read_seconds"] == pytest.approx(0.11)
    assert values["shared_recheck_seconds"] == pytest.approx(0.044)
    # 2 · 11e9 · 500 / 5e13 = 0.22 s, then 100 tokens of 22e9 bytes: 4.4 s
    assert values["shared_rewrite_seconds"] == pytest.approx(4.62)
    assert values["shared_seconds"] == pytest.approx(0.11 + 0.1 * 4.664)
    assert values["shared_bytes"] == pytest.approx(4e9)
    assert values["head_seconds"] == pytest.approx(2 * 1000 * 400 / 5e13)
    assert values["cascade_seconds"] == pytest.approx(1.6e-8 + 0.2 * 0.11 + 0.1 * 4.664)
    assert values["cascade_bytes"] == pytest.approx(4e9 + 2000)


def test_few_tokens_cost_as_much_as_reading_the_weights():
    # 2 · 2e9 · 20 / 5e13 = 0.0016 s; 4e9 bytes at 5e11 take 0.008 s
    few = compute(**(ROUND | {"question_tokens": 10, "answer_tokens": 10}))
    assert few["separate_read_seconds"] == pytest.approx(0.008)


def test_a_name_that_is_no_assumption_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'weights'"):
        compute(weights=7)


def test_the_table_has_all_models_and_guards(capsys):
    rows = render_table().splitlines()[2:]
    assert [row.split("|")[1:3] for row in rows] == [
        [f" {model} ", f" {name} "] for model in MODELS for name in KINDS.values()
    ]
    assert main(["--flagged-share", "0.5"]) == 0
    assert capsys.readouterr().out == render_table({"flagged_share": 0.5}) != render_table()


def test_the_page_is_what_the_formulas_give():
    text = PAGE.read_text(encoding="utf-8")
    assert fill_page(text) == text, "run: python -m benchmarks.cost.page"


def test_a_page_without_its_marks_is_refused():
    with pytest.raises(InputError, match="lacks the lines"):
        fill_page("# Cost\n")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_page_computes_the_same():
    changed = {name: value / 2 for name, value in ROUND.items()}
    scaled = {name: changed[name] * each.scale for name, each in ASSUMPTIONS.items()}
    script = f"{render_function()}\nconsole.log(JSON.stringify(computeCosts({json.dumps(scaled)})));"
    found = json.loads(subprocess.run(["node", "-e", script], capture_output=True, check=True, text=True).stdout)
    expected = compute(**changed)
    assert found == pytest.approx({name: expected[name] for name in FORMULAS})


def test_a_prediction_by_hand():
    # 4 times the parameters are 4 times the operations; twice the layers and the width are 4 times the cache.
    small, large = Stages(10**6, 4, 0.5, 0.01), Stages(4 * 10**6, 4, 1.6, 0.05)
    lengths = {"prompt_tokens": 100, "new_tokens": 10}
    prompt, token = predict(small, large, Shape(64, 8), Shape(32, 4), **lengths)
    assert (prompt.predicted, prompt.measured) == pytest.approx((2.0, 1.6))
    assert (token.predicted, token.measured) == pytest.approx((0.04, 0.05))


def test_stages_of_a_real_model():
    stages = measure_stages(Shape(64, 1, 100), prompt_tokens=8, new_tokens=2, repeats=1)
    # attention 4 · 64², MLP 3 · 64 · 128, norms 3 · 64, head 64 · 100; the table of tokens is looked up, not multiplied
    assert stages.parameters == 4 * 64**2 + 3 * 64 * 128 + 3 * 64 + 64 * 100
    assert stages.bytes_per_weight == 4
    assert stages.prompt_seconds > 0
    assert stages.token_seconds > 0


def test_the_check_prints_both(capsys):
    shapes = ["--small", "64", "1", "--large", "128", "2", "--prompt-tokens", "8", "--new-tokens", "2"]
    assert check([*shapes, "--repeats", "1", "--device", "cpu", "--clock", "processor"]) == 0
    out = capsys.readouterr().out
    assert "prompt: predicted " in out
    assert "token: predicted " in out
