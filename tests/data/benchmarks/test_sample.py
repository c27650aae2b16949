"""The shipped samples: their contents, and that the kept script still makes them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from llava.data.benchmarks.mm_safetybench import Scenario
from llava.data.benchmarks.sample import SAMPLE_FOLDER, load_sample, load_sample_benign, load_sample_mixed
from llava.data.benchmarks.selection import Selection
from llava.files import read_json
from tests.conftest import REPOSITORY

SCENARIOS = {scenario.value for scenario in Scenario}
FIELDS = {
    "Question",
    "Changed Question",
    "Key Phrase",
    "Phrase Type",
    "Rephrased Question",
    "Rephrased Question(SD)",
}


def test_sample_has_the_benchmarks_shape():
    benchmark = load_sample()
    assert set(Counter(q.scenario for q in benchmark.questions).items()) == {(name, 16) for name in SCENARIOS}
    assert set(Counter(q.image_type.value for q in benchmark.questions).values()) == {52}
    assert benchmark.missing_images == []
    assert all(set(q.fields) == FIELDS for q in benchmark.questions)
    assert len({q.prompt for q in benchmark.questions if q.image is None}) == 52


def test_the_phrase_is_in_the_text_question_and_hidden_in_the_others():
    for question in load_sample().questions:
        phrase = question.fields["Key Phrase"]
        assert (phrase in question.prompt) == (question.image is None), question.key


def test_benign_sample_is_harmless_and_covers_the_scenarios():
    questions = load_sample_benign().questions
    assert len(questions) >= 26
    assert {q.scenario for q in questions} == SCENARIOS
    assert not any(q.harmful for q in questions)
    assert sum(q.image is not None for q in questions) >= 4


def test_the_mixed_sample_asks_both():
    questions = load_sample_mixed().questions
    assert [q.prompt for q in questions] == [
        q.prompt for q in [*load_sample().questions, *load_sample_benign().questions]
    ]
    assert len({(q.scenario, q.id, q.image_type) for q in questions}) == len(questions)
    kinds = load_sample_mixed(selection=Selection.parse(image_types=["SD", "IMAGE"])).questions
    assert Counter(q.image_type.value for q in kinds) == {"SD": 52, "IMAGE": 6}


def test_a_larger_limit_of_the_mixed_sample_only_adds_questions():
    before: set = set()
    for limit in (1, 7, 8, 9, 16, 60, 181, 182, 207, 233, 234, 500):
        keys = {q.key for q in load_sample_mixed(selection=Selection(limit=limit)).questions}
        assert len(keys) == min(limit, 234)
        assert before <= keys
        before = keys
    few = load_sample_mixed(selection=Selection(limit=16)).questions
    assert sum(not q.harmful for q in few) == 2
    assert {q.image_type.value for q in few} >= {"TEXT", "SD", "TYPO", "SD_TYPO"}


def test_a_data_root_is_not_read_and_a_note_says_so(tmp_path):
    assert "is not read" in load_sample(tmp_path).notes[-1]
    assert "is not read" in load_sample_benign(tmp_path).notes[-1]


def test_samples_stay_small():
    assert sum(path.stat().st_size for path in SAMPLE_FOLDER.rglob("*") if path.is_file()) < 1.5 * 2**20


@pytest.fixture(scope="module")
def remade(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    script = REPOSITORY / "scripts" / "make_sample_benchmark.py"
    subprocess.run([sys.executable, str(script), "--output", str(folder)], check=True, capture_output=True)
    return folder


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_script_makes_exactly_the_committed_files(remade):
    assert listing(remade) == listing(SAMPLE_FOLDER)


def test_the_script_makes_the_committed_questions(remade):
    for scenario in SCENARIOS:
        name = f"processed_questions/{scenario}.json"
        assert read_json(remade / name) == read_json(SAMPLE_FOLDER / name)
    assert (remade / "benign.jsonl").read_bytes() == (SAMPLE_FOLDER / "benign.jsonl").read_bytes()


def test_the_script_makes_the_committed_images(remade):
    for name in listing(SAMPLE_FOLDER):
        if name.endswith(".jpg"):
            ours, theirs = (np.asarray(Image.open(folder / name), dtype=float) for folder in (remade, SAMPLE_FOLDER))
            assert ours.shape == theirs.shape, name
            # Another Pillow may round and compress a little differently.
            assert np.abs(ours - theirs).mean() < 3, name
