from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from llava.data.benchmarks.figstep import TEXT_PROMPT, load_figstep
from llava.data.benchmarks.selection import Selection
from llava.data.schema import ImageType
from llava.errors import InputError
from tests.data.layouts import FIGSTEP_COLUMNS, write_csv, write_figstep


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "figstep-images"


def test_rows_become_questions_with_their_images(tmp_path):
    write_figstep(tmp_path, "safebench.csv", 3, "SafeBench")
    questions = load_figstep(tmp_path).questions
    assert [q.id for q in questions] == ["ForbidQI_1_1", "ForbidQI_2_1", "ForbidQI_1_2"]
    assert [q.scenario for q in questions] == ["Category 0", "Category 1", "Category 0"]
    assert {q.prompt for q in questions} == {TEXT_PROMPT}
    assert questions[0].image == str(tmp_path / "SafeBench" / "query_ForbidQI_1_1_6.png")
    assert questions[0].fields == dict(
        zip(FIGSTEP_COLUMNS, ("ForbidQI", "1", "1", "Category 0", "How 0?", "Steps to 0."), strict=True)
    )
    assert all(q.harmful and q.image_type is ImageType.IMAGE for q in questions)


def test_the_set_with_images_is_asked_and_either_can_be_named(tmp_path):
    write_figstep(tmp_path, "safebench.csv", 6)
    write_figstep(tmp_path, "SafeBench-Tiny.csv", 2, "SafeBench-Tiny")
    assert len(load_figstep(tmp_path).questions) == 2
    assert len(load_figstep(tmp_path, tiny=False).questions) == 6
    write_figstep(tmp_path, "safebench.csv", 6, "SafeBench")
    assert len(load_figstep(tmp_path).questions) == 6
    assert len(load_figstep(tmp_path, tiny=True).questions) == 2


def test_the_repositorys_own_folders_are_found(tmp_path):
    write_figstep(tmp_path / "data/question", "safebench.csv", 2)
    images = tmp_path / "data/images/SafeBench"
    images.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(images / "query_ForbidQI_1_1_6.png")
    benchmark = load_figstep(tmp_path)
    assert benchmark.questions[0].image == str(images / "query_ForbidQI_1_1_6.png")
    assert "1 of 2 images" in benchmark.notes[0]


def test_absent_images_are_rendered_once(tmp_path, cache):
    write_figstep(tmp_path, "safebench.csv", 2)
    benchmark = load_figstep(tmp_path)
    assert benchmark.notes == [f"2 of 2 images are not in {tmp_path / 'SafeBench'} and were rendered to {cache}"]
    assert [Path(q.image).parent for q in benchmark.questions] == [cache, cache]
    first = Path(benchmark.questions[0].image)
    with Image.open(first) as image:
        assert image.size == (760, 760)
    written = first.stat().st_mtime_ns
    assert load_figstep(tmp_path).questions == benchmark.questions
    assert first.stat().st_mtime_ns == written


def test_another_text_never_gets_an_old_image(tmp_path):
    row = ("ForbidQI", 1, 1, "C", "How?")
    write_csv(tmp_path / "safebench.csv", FIGSTEP_COLUMNS, [(*row, "Steps to bake.")])
    old = load_figstep(tmp_path).questions[0].image
    write_csv(tmp_path / "safebench.csv", FIGSTEP_COLUMNS, [(*row, "Steps to cook.")])
    assert load_figstep(tmp_path).questions[0].image != old


def test_render_folder_and_limit(tmp_path):
    write_figstep(tmp_path, "safebench.csv", 8)
    benchmark = load_figstep(tmp_path, Selection(limit=3), render_folder=tmp_path / "mine")
    assert Counter(q.scenario for q in benchmark.questions) == {"Category 0": 2, "Category 1": 1}
    assert len(list((tmp_path / "mine").iterdir())) == 3, "only what is asked is rendered"


def test_plain_text_is_asked_on_request(tmp_path, cache):
    write_figstep(tmp_path, "safebench.csv", 2)
    questions = load_figstep(tmp_path, Selection.parse(image_types=["TEXT"])).questions
    assert [(q.prompt, q.image, q.image_type) for q in questions] == [
        ("How 0?", None, ImageType.TEXT),
        ("How 1?", None, ImageType.TEXT),
    ]
    assert not cache.exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("F", 1, 1, "C", "How?", "Steps."), ("F", 1, 1, "C", "How?", "Steps.")], "line 3 repeats F_1_1 of line 2"),
        ([("F", 1, 1, "C", "How?", " ")], "line 2 has no instruction"),
        ([], "has no rows"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, message):
    write_csv(tmp_path / "safebench.csv", FIGSTEP_COLUMNS, rows)
    with pytest.raises(InputError, match=rf"safebench\.csv {message}"):
        load_figstep(tmp_path)


def test_missing_files_and_columns(tmp_path):
    with pytest.raises(InputError, match=r"no safebench\.csv or SafeBench-Tiny\.csv in"):
        load_figstep(tmp_path)
    with pytest.raises(InputError, match=r"no SafeBench-Tiny\.csv in"):
        load_figstep(tmp_path, tiny=True)
    write_csv(tmp_path / "safebench.csv", ("dataset", "question"), [])
    with pytest.raises(InputError, match="has no column category_id"):
        load_figstep(tmp_path)


def test_the_real_files(shared_data):
    benchmark = load_figstep(shared_data / "figstep")
    assert len(benchmark.questions) == 50
    assert benchmark.notes == []
    assert all(Path(q.image).parent.name == "SafeBench-Tiny" for q in benchmark.questions)
    assert set(Counter(q.scenario for q in benchmark.questions).values()) == {5}


def test_the_real_full_set_is_rendered(shared_data, cache):
    benchmark = load_figstep(shared_data / "figstep", Selection(limit=20), tiny=False)
    assert len({q.scenario for q in benchmark.questions}) == 10
    assert len(list(cache.iterdir())) == 20
    assert (
        len(load_figstep(shared_data / "figstep", Selection.parse(image_types=["TEXT"]), tiny=False).questions) == 500
    )


@pytest.mark.parametrize(
    "dataset", ["x/../../../../../evil_dir/evil", "/etc/x", "a\0b", "x" * 400, "..", "a/b", "C:\\x", "\x1b[2J"]
)
def test_names_from_the_file_never_become_paths(tmp_path, cache, dataset):
    root = tmp_path / "root"
    write_csv(root / "safebench.csv", FIGSTEP_COLUMNS, [(dataset, 1, 1, "C", "How?", "Steps to bake.")])
    (question,) = load_figstep(root).questions
    assert Path(question.image).resolve().parent == cache.resolve()
    assert {path.name for path in tmp_path.iterdir()} == {"root", "cache"}
    assert [path.name for path in cache.iterdir()] == [Path(question.image).name]
    assert load_figstep(root).questions == [question]


def test_an_instruction_that_fits_no_image_is_refused(tmp_path):
    write_csv(tmp_path / "safebench.csv", FIGSTEP_COLUMNS, [("F", 1, 1, "C", "How?", "Steps. " * 20_000)])
    with pytest.raises(InputError, match=r"FigStep question F_1_1: a text of 140,000 characters does not fit"):
        load_figstep(tmp_path)
    assert len(load_figstep(tmp_path, Selection.parse(image_types=["TEXT"])).questions) == 1
