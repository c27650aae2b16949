from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from llava.data.benchmarks.loading import BENCHMARKS, load_benchmark
from llava.errors import InputError
from tests.data.layouts import save_image, write_csv, write_figstep, write_mm_safetybench, write_mossbench

FRAUD = "06-Fraud"


@pytest.fixture
def everything(tmp_path, monkeypatch) -> Path:
    """A root with a small copy of every benchmark's files."""
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "root"
    write_mm_safetybench(root, {FRAUD: 2})
    (root / "TinyVersion_ID_List.json").write_text(json.dumps([{"Scenario": FRAUD, "Sampled_ID_List": [1]}]))
    write_figstep(root, "safebench.csv", 3)
    write_figstep(root, "SafeBench-Tiny.csv", 2)
    write_csv(root / "xstest_prompts.csv", ("id", "prompt", "type", "label"), [(1, "?", "homonyms", "safe")])
    for name in ("harmful-behaviors.csv", "benign-behaviors.csv"):
        write_csv(root / name, ("Index", "Goal", "Category"), [(0, "?", "C")])
    row = {"image": "images/1.png", "question": "?", "metadata": {"over": "type 1"}}
    for side in ("data", "data_contrast"):
        write_mossbench(root, {"1": row}, side)
    save_image(root / "data/images/1.png")
    return root


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_loads_and_keeps_its_promises(everything, name):
    benchmark = load_benchmark(name, everything)
    assert benchmark.name == name
    assert {q.benchmark for q in benchmark.questions} == {name}
    assert len({q.key for q in benchmark.questions}) == len(benchmark.questions) > 0
    assert all(Path(q.image).is_file() for q in benchmark.questions if q.image is not None)
    assert benchmark.missing_images == []
    smallest = 2 if name.endswith("_pairs") else 1
    assert len(load_benchmark(name, everything, limit=smallest).questions) == smallest
    json.dumps([q.to_dict() for q in benchmark.questions])


def test_options_reach_the_loader(everything):
    questions = load_benchmark("mm_safetybench", everything, scenarios=["6"], image_types=["sd"], limit=1).questions
    assert [(q.id, q.image_type.value) for q in questions] == [("0", "SD")]
    with_bug = load_benchmark("mm_safetybench", everything, image_types=["TYPO"], reference_typo_prompt=True)
    assert with_bug.questions[0].prompt.endswith("rephrased for the scene?")
    assert Counter(q.id for q in load_benchmark("mm_safetybench_tiny", everything).questions) == {"1": 4}


def test_a_file_is_found_from_here_or_below_the_data_root(tmp_path, monkeypatch):
    (tmp_path / "mine.jsonl").write_text('{"prompt": "?"}\n')
    assert load_benchmark(tmp_path / "mine.jsonl").name == "mine"
    assert load_benchmark("mine.jsonl", tmp_path).name == "mine"
    monkeypatch.chdir(tmp_path)
    assert load_benchmark("mine.jsonl").name == "mine"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown benchmark 'mmsafety'; choose mm_safetybench, .*figstep.*\.jsonl"):
        load_benchmark("mmsafety")


def test_an_unreadable_image_stops_before_generation(everything):
    bad = everything / "imgs" / FRAUD / "SD" / "1.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(InputError, match=r"SD/1\.jpg is (damaged|not a readable)"):
        load_benchmark("mm_safetybench", everything)
    assert load_benchmark("mm_safetybench", everything, verify_images=False).questions
    assert load_benchmark("mm_safetybench", everything, image_types=["TYPO"]).questions


def test_the_reference_prompt_is_for_mm_safetybench_alone(everything):
    with pytest.raises(InputError, match="reference_typo_prompt is for mm_safetybench, not for figstep"):
        load_benchmark("figstep", everything, reference_typo_prompt=True)


def test_two_questions_with_one_key_are_refused(everything):
    rows = [(1, "One?", "homonyms", "safe"), (1, "Two?", "homonyms", "safe")]
    write_csv(everything / "xstest_prompts.csv", ("id", "prompt", "type", "label"), rows)
    with pytest.raises(InputError, match="xstest has xstest / homonyms / 1 / TEXT twice"):
        load_benchmark("xstest", everything)


def test_the_heavy_libraries_stay_out():
    import subprocess
    import sys

    code = "import sys, llava.data.benchmarks as b; b.load_benchmark('sample', limit=1); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
