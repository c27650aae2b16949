"""Every benchmark's files, changed: questions whose images exist, or one line; and nothing outside the cache."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.benchmarks.loading import load_benchmark
from tests.data.layouts import FIGSTEP_COLUMNS, mm_row, save_image
from tests.fuzz.support import cells, check_parser, damaged, dump, fuzz, list_tree, mutated, tables, write
from tests.fuzz.test_questions import check_questions

FRAUD = "06-Fraud"
MM_ROWS = {"0": mm_row("zero"), "1": mm_row("one")}
TINY = [{"Scenario": FRAUD, "Sampled_ID_List": [1]}]
MOSS = {"1": {"image": "images/1.png", "question": "?", "metadata": {"over": "type 1"}}}
JAILBREAK = ("Index", "Goal", "Category")
XSTEST = ("id", "prompt", "type", "label")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root whose images are there; each test puts its own files beside them."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("benchmarks")
        patch.setenv("MLLM_PROTECTOR_CACHE", str(folder / "cache"))
        for kind in ("SD", "SD_TYPO", "TYPO"):
            for number in range(2):
                save_image(folder / "root/imgs" / FRAUD / kind / f"{number}.jpg")
        save_image(folder / "root/data/images/1.png")
        yield folder / "root"


def load(root, name):
    """Load a benchmark and assert that nothing but its cached images came into being."""
    before = list_tree(root)
    benchmark = check_parser(lambda: load_benchmark(name, root, verify_images=False), check_questions)
    assert list_tree(root) == before
    assert {path.name for path in root.parent.iterdir()} <= {"root", "cache"}
    for path in root.parent.glob("cache/*/*"):
        assert path.is_file()
        path.unlink()
    return benchmark


def renamed(valid):
    """Draw a JSON object with changes, or with one of its names changed."""
    keys = st.sampled_from([*valid, "../../x", "a" * 400, "\x00", "..", "", "/etc/x"])
    return mutated(valid) | st.builds(lambda key: {key: next(iter(valid.values()))}, keys)


@fuzz
@given(
    rows=renamed(MM_ROWS).map(dump) | damaged(dump(MM_ROWS).encode()),
    tiny=mutated(TINY).map(dump) | damaged(dump(TINY).encode()),
    file=st.sampled_from([FRAUD, "06-fraud", "fraud", "6", "notes"]),
    name=st.sampled_from(["mm_safetybench", "mm_safetybench_tiny"]),
)
def test_mm_safetybench(root, rows, tiny, file, name):
    path = write(root, f"processed_questions/{file}.json", rows)
    write(root, "TinyVersion_ID_List.json", tiny)
    load(root, name)
    path.unlink()


@fuzz
@given(content=tables(FIGSTEP_COLUMNS, [("F", "1", "1", "C", "How?", "Steps."), ("F", "1", "2", "D", "Why?", "List.")]))
def test_figstep(root, content):
    write(root, "safebench.csv", content)
    load(root, "figstep_full")


@fuzz
@given(row=st.tuples(*[cells] * 6))
def test_figstep_cells(root, row):
    write(
        root,
        "SafeBench-Tiny.csv",
        ",".join(FIGSTEP_COLUMNS) + "\n" + ",".join('"' + c.replace('"', '""') + '"' for c in row),
    )
    load(root, "figstep_tiny")


@fuzz
@given(content=tables(XSTEST, [("1", "?", "homonyms", "safe"), ("2", "!", "contrast_homonyms", "unsafe")]))
def test_xstest(root, content):
    write(root, "xstest_prompts.csv", content)
    load(root, "xstest")


@fuzz
@given(
    harmful=tables(JAILBREAK, [("0", "?", "C"), ("1", "!", "D")]),
    benign=tables(JAILBREAK, [("0", "?", "C"), ("1", "!", "D")]),
    name=st.sampled_from(["jailbreakbench", "jailbreakbench_benign", "jailbreakbench_pairs"]),
)
def test_jailbreakbench(root, harmful, benign, name):
    write(root, "harmful-behaviors.csv", harmful)
    write(root, "benign-behaviors.csv", benign)
    load(root, name)


@fuzz
@given(
    rows=renamed(MOSS).map(dump) | damaged(dump(MOSS).encode()),
    contrast=renamed(MOSS).map(dump),
    name=st.sampled_from(["mossbench", "mossbench_contrast", "mossbench_pairs"]),
)
def test_mossbench(root, rows, contrast, name):
    write(root, "data/images_information/information.json", rows)
    write(root, "data_contrast/images_information/information.json", contrast)
    benchmark = load(root, name)
    for question in benchmark.questions if benchmark else []:
        assert str(root) in question.image
        json.dumps(question.fields)
