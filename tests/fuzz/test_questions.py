"""Question files in any form, however damaged: what is accepted can be asked, stored and read again."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llava.data.benchmarks.loading import load_benchmark
from llava.data.benchmarks.question_files import load_question_file
from llava.data.schema import ImageType, Question, Verdict
from tests.data.layouts import save_image
from tests.fuzz.support import check_parser, fuzz, list_tree, mutated, row_files, tables, values, write

SINGLE = {"id": "1", "prompt": "What is it?", "image": "a.png", "harmful": False, "category": "c", "image_type": "SD"}
PAIR = {"id": "p", "unsafe_prompt": "Bad?", "safe_prompt": "Good?", "scenario": "s", "note": [1, {"a": None}]}
XSTEST = {"id": 2, "prompt": "?", "type": "homonyms", "label": "safe", "focus": "f"}
QUESTION = Question("b", "s", "1", ImageType.TYPO, "?", "a.png", True, {"x": [1]}).to_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an image, whose question files come and go."""
    root = tmp_path_factory.mktemp("questions")
    save_image(root / "a.png")
    return root


def check_questions(benchmark):
    """Assert what generation relies on."""
    assert benchmark.questions
    assert len({question.key for question in benchmark.questions}) == len(benchmark.questions)
    for question in benchmark.questions:
        assert question.prompt.strip()
        assert question.id.strip()
        assert question.scenario.strip()
        assert isinstance(question.harmful, bool)
        assert (question.image is None) == (question.image_type is ImageType.TEXT)
        stored = json.loads(json.dumps(question.to_dict()))
        assert Question.from_dict(stored).key == question.key
    for note in benchmark.notes:
        assert 0 < len(note) < 1500


@fuzz
@given(file=st.sampled_from([SINGLE, PAIR, XSTEST]).flatmap(lambda row: row_files([row, {**row, "id": "2"}])))
def test_question_files(folder, file):
    suffix, content = file
    path = write(folder, f"mine{suffix}", content)
    before = list_tree(folder)
    check_parser(lambda: load_question_file(path), check_questions)
    assert list_tree(folder) == before
    path.unlink()


@fuzz
@given(
    content=tables(
        ("id", "prompt", "image", "harmful", "label"), [("1", "?", "a.png", "no", "safe"), ("2", "!", "", "1", "")]
    )
)
def test_question_tables(folder, content):
    path = write(folder, "mine.csv", content)
    check_parser(lambda: load_benchmark(path, limit=3), check_questions)
    path.unlink()


@fuzz
@given(row=mutated(QUESTION) | values, verdict=mutated({"judge": "j", "unsafe": True, "score": 0.5}) | values)
def test_stored_questions_and_verdicts(row, verdict):
    read = check_parser(lambda: Question.from_dict(row))
    assert read is None or Question.from_dict(read.to_dict()) == read
    judged = check_parser(lambda: Verdict.from_dict(verdict))
    assert judged is None or judged.unsafe in (True, False, None)


@fuzz
@given(name=st.text(max_size=300) | st.sampled_from(["~x.csv", "a\x00.jsonl", "x" * 300 + ".csv", "", ".", "/"]))
@example(name="~\x00")
@example(name="~\ud800")
def test_names_of_benchmarks(tmp_path, name):
    check_parser(lambda: load_benchmark(name, tmp_path))
    check_parser(lambda: load_benchmark("xstest", name or "."))
