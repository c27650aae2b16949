from __future__ import annotations

import json

import pytest

from llava.data.benchmarks.loading import load_benchmark
from llava.data.benchmarks.mossbench import load_mossbench
from llava.data.schema import ImageType
from llava.errors import InputError
from tests.data.layouts import save_image, write_mossbench


def row(number: int, question: str = "What is this?") -> dict:
    return {
        "image": f"images/{number}.png",
        "short description": "a toy",
        "question": question,
        "metadata": {"over": f"type {number}", "harm": [7]},
        "pid": str(number),
        "description": "",
    }


def test_harmless_questions(tmp_path):
    write_mossbench(tmp_path / "dataset/mossbench", {"1": row(1), "2": row(2)})
    root = tmp_path / "dataset/mossbench/data/images"
    save_image(root / "1.png")
    save_image(root / "2.webp")
    benchmark = load_mossbench(tmp_path)
    assert [q.image for q in benchmark.questions] == [str(root / "1.png"), str(root / "2.webp")]
    assert [q.scenario for q in benchmark.questions] == ["type 1", "type 2"]
    assert all(not q.harmful and q.image_type is ImageType.IMAGE for q in benchmark.questions)
    assert benchmark.questions[0].fields == {**row(1), "pair": "1"}


def test_contrast_questions_share_images_and_pairs(tmp_path):
    write_mossbench(tmp_path, {"1": row(1)})
    write_mossbench(tmp_path, {"1": row(1, "How do I misuse this?")}, "data_contrast")
    image = save_image(tmp_path / "data/images/1.webp")
    (harmless,) = load_mossbench(tmp_path).questions
    (unsafe,) = load_mossbench(tmp_path, name="mossbench_contrast", contrast=True).questions
    assert harmless.image == unsafe.image == str(image)
    assert unsafe.harmful
    assert harmless.fields["pair"] == unsafe.fields["pair"]


def test_one_run_asks_both_questions_about_an_image(tmp_path):
    write_mossbench(tmp_path, {str(n): row(n) for n in (1, 2, 3)})
    unsafe = {str(n): row(n, "How do I misuse this?") for n in (1, 2)}
    unsafe["1"]["metadata"] = {"over": "another type"}
    write_mossbench(tmp_path, unsafe, "data_contrast")
    images = [str(save_image(tmp_path / f"data/images/{n}.webp")) for n in (1, 2, 3)]
    benchmark = load_benchmark("mossbench_pairs", tmp_path)
    assert [(q.id, q.scenario, q.harmful, q.image) for q in benchmark.questions] == [
        ("1-unsafe", "another type", True, images[0]),
        ("1-safe", "another type", False, images[0]),
        ("2-unsafe", "type 2", True, images[1]),
        ("2-safe", "type 2", False, images[1]),
    ]
    assert benchmark.notes == ["1 questions have no counterpart and are left out"]


def test_missing_images_and_bad_shapes(tmp_path):
    write_mossbench(tmp_path, {"1": row(1), "2": row(2)})
    with pytest.raises(InputError, match=r"all 2 images are missing, such as .*1\.png; get it from"):
        load_mossbench(tmp_path)
    save_image(tmp_path / "data/images/2.png")
    assert load_mossbench(tmp_path).missing_images == [str(tmp_path / "data/images/1.png")]
    for content, message in (
        ([], "not an object of id"),
        ({"1": {"image": "x"}}, "id 1 lacks image"),
        ({"1": 3}, "lacks"),
    ):
        path = tmp_path / "data/images_information/information.json"
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            load_mossbench(tmp_path)
    with pytest.raises(InputError, match="no data_contrast/"):
        load_mossbench(tmp_path, contrast=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "../../secret.png"}, "outside the benchmark"),
        ({"image": "/etc/passwd"}, "outside the benchmark"),
        ({"image": 3}, "lacks image, question or metadata.over"),
        ({"question": ["How?"]}, "lacks image, question or metadata.over"),
        ({"question": " "}, "lacks image, question or metadata.over"),
        ({"image": "x" * 300 + ".png"}, "all 1 images are missing"),
        ({"image": "a\0b.png"}, "all 1 images are missing"),
    ],
)
def test_fields_of_another_kind_are_named(tmp_path, change, message):
    row = {"image": "images/1.png", "question": "?", "metadata": {"over": "type 1"}, **change}
    write_mossbench(tmp_path, {"1": row})
    with pytest.raises(InputError, match=message):
        load_mossbench(tmp_path)
