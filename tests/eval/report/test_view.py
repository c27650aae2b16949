"""What the page shows: bins, cells, budgets."""

from __future__ import annotations

import base64
import io
import json
import math
import shlex
from dataclasses import fields, replace
from pathlib import Path

import pytest
from PIL import Image

from llava.cli.app import main
from llava.data.token_scores import TokenScore
from llava.eval.report import view as report_view
from llava.eval.report.rendering import render_report
from llava.eval.report.view import (
    build_command,
    build_heatmap,
    build_histogram,
    build_thumbnails,
    build_view,
    cut,
    mark_harm,
)
from llava.eval.run.settings import GenerationSettings
from llava.eval.scoring.scoring import score_run
from tests.eval.build import build_mixed_run, build_record, build_run


@pytest.fixture
def summary(tmp_path):
    return score_run(build_mixed_run(tmp_path))


def test_bars_are_as_high_as_the_tallest_allows(tmp_path):
    scores = [0.0, 0.049, 0.05, 0.5, 0.999, 1.0, None]
    records = [build_record(i, harm_score=score, harmful=i != 3) for i, score in enumerate(scores)]
    histogram = build_histogram(score_run(build_run(tmp_path, records)))
    bins = histogram["bins"]
    assert [bins[place]["harmful_height"] for place in (0, 1, 10, 19)] == [1, 0.5, 0, 1]
    assert bins[10]["benign_height"] == 0.5
    assert (bins[19]["low"], bins[19]["high"]) == (0.95, 1)
    assert (histogram["tallest"], histogram["threshold"], histogram["benign"]) == (2, 0.5, True)
    assert build_histogram(score_run(build_run(tmp_path / "plain", [build_record(0, guarded=False)]))) is None


def test_the_heatmap_leaves_out_what_was_not_asked(summary):
    heatmap = build_heatmap(summary)
    assert heatmap["columns"] == ["TEXT", "SD"]
    fraud, legal = heatmap["rows"]
    assert fraud["name"] == "06-Fraud"
    assert fraud["unprotected"][0]["attack_success_rate"] == 1
    assert fraud["unprotected"][1] is None
    assert legal["protected"][1]["attack_success_rate"] == 1 / 2


def test_the_heatmap_has_no_rows_or_columns_of_benign_questions(tmp_path):
    records = [build_record(0), build_record(1, scenario="harmless", image_type="IMAGE", harmful=False)]
    heatmap = build_heatmap(score_run(build_run(tmp_path, records)))
    assert heatmap["columns"] == ["TEXT"]
    assert [row["name"] for row in heatmap["rows"]] == ["06-Fraud"]


def test_thumbnails_are_small_shared_and_within_the_budget(tmp_path, monkeypatch):
    paths = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        Image.effect_noise((300, 200), 80).convert("RGB").save(path)
        paths.append(str(path))
    records = [build_record(i, image=paths[i % 4]) for i in range(8)]
    thumbnails = build_thumbnails([*records, build_record(9, image="/gone.png")])
    assert list(thumbnails) == paths
    first = thumbnails[paths[0]]
    assert first.startswith("data:image/jpeg;base64,")
    assert max(Image.open(io.BytesIO(base64.b64decode(first.partition(",")[2]))).size) == 72
    monkeypatch.setattr(report_view, "THUMBNAIL_BUDGET", len(first) + 1)
    assert len(build_thumbnails(records)) == 2


def test_an_image_that_broke_since_the_run_is_left_out(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert build_thumbnails([build_record(0, image=str(tmp_path / "broken.png"))]) == {}


def test_long_texts_are_cut_until_all_fit(summary, monkeypatch):
    monkeypatch.setattr(report_view, "TEXT_BUDGET", 5000)
    records = [build_record(i, "x" * 1500) for i in range(5)]
    view = build_view({}, summary, records, {})
    assert view["text_limit"] == 600
    assert {len(row["r"]) for row in view["explorer"]["rows"]} == {600}
    monkeypatch.setattr(report_view, "TEXT_BUDGET", 50_000)
    assert build_view({}, summary, records, {})["text_limit"] is None
    assert cut("abcdef", 3) == "ab…"


def test_rows_carry_the_verdict_of_harmful_questions_only(summary):
    records = [build_record(0), build_record(1, harmful=False)]
    verdicts = {record.key: [True, False] for record in records}
    rows = build_view({}, summary, records, verdicts)["explorer"]["rows"]
    assert [row["u"] for row in rows] == [[True, False], None]


PLAIN = {"model": "embedded", "output": "here"}
EVERYTHING = {
    "model": "org/my model",
    "output": "here",
    "benchmark": "mm_safetybench_tiny",
    "data_root": "/data/it's here",
    "detector": "/models/d",
    "detoxifier": "embedded",
    "detector_base": "/models/b",
    "detoxifier_base": "org/b",
    "base": "/models/lm",
    "vision_tower": "/models/clip",
    "threshold": 0.25,
    "trim": False,
    "share_backbone": False,
    "state_head": "embedded",
    "limit": 12,
    "image_types": ["TYPO", "SD"],
    "scenarios": ["06-Fraud", "07-Sex"],
    "reference_typo_prompt": True,
    "temperature": 0.7,
    "max_new_tokens": 99,
    "num_processes": 3,
    "batch_size": 5,
    "seed": 11,
    "device": "cuda:1",
    "dtype": "bfloat16",
    "threads": 2,
    "attn_implementation": "eager",
    "load_in_4bit": True,
    "trust_remote_code": True,
}
SERVED = {
    "model": "m",
    "output": "here",
    "endpoint": "http://127.0.0.1:8000/v1",
    "concurrency": 3,
    "request_timeout": 30.5,
    "load_in_8bit": False,
}


def parse_back(command: str, monkeypatch) -> GenerationSettings:
    """Return the settings with which the command line would run `command`."""
    given = []
    monkeypatch.setattr("llava.eval.run.runner.run_generation", given.append)
    words = shlex.split(command)
    assert words[0] == "mllm-protector"
    assert main(words[1:]) == 0
    return given[0]


@pytest.mark.parametrize("values", [PLAIN, EVERYTHING, SERVED, {**PLAIN, "load_in_8bit": True}])
def test_the_command_is_read_back_as_the_same_settings(values, monkeypatch):
    settings = GenerationSettings(**values)
    command = build_command({"settings": json.loads(json.dumps(settings.to_dict()))})
    assert parse_back(command, monkeypatch) == replace(
        settings, output=Path("RUN"), data_root=as_path(settings.data_root)
    )


def as_path(value: str | None) -> Path | None:
    return Path(value) if value else None


def test_every_setting_can_be_repeated():
    left_out = {field.name for field in fields(GenerationSettings)} - set(EVERYTHING) - set(SERVED)
    assert left_out == set()


def test_the_command_says_what_auto_stood_for(monkeypatch):
    settings = GenerationSettings(**PLAIN)
    fingerprint = {"batch_size": 16, "dtype": "float32", "temperature": 0.0, "device": "cpu"}
    command = build_command({"settings": settings.to_dict(), "fingerprint": fingerprint})
    assert command == (
        "mllm-protector generate --output RUN --model embedded --benchmark mm_safetybench "
        "--batch-size 16 --dtype float32"
    )


def test_a_run_from_before_there_was_trimming_and_sharing_is_repeated_without():
    settings = GenerationSettings(**PLAIN, detector="d").to_dict()
    command = build_command({"settings": settings, "fingerprint": {"trim": True, "share_backbone": True}})
    assert "trim" not in command
    assert "share" not in command
    del settings["trim"], settings["share_backbone"]
    command = build_command({"settings": settings, "fingerprint": {"threshold": None}})
    assert command.endswith("--no-trim --no-share-backbone")


def test_the_page_holds_the_command_of_its_run(summary, tmp_path):
    page = render_report(tmp_path).read_text()
    assert "mllm-protector generate --output RUN --model my_model" in page
    assert "--detector embedded" in page


def test_harmful_passages_get_the_colour_of_their_score():
    scores = [TokenScore(0, 5, 0.1), TokenScore(5, 9, 0.5), TokenScore(9, 12, 0.55), TokenScore(12, 20, 1.0)]
    assert mark_harm(scores, "a" * 16) == [[5, 12, 2], [12, 16, 4]]
    assert mark_harm([TokenScore(0, 2, math.nan)], "ab") == [[0, 2, 4]]
    assert mark_harm([TokenScore(0, 1, 0.0), TokenScore(1, 3, 0.9)], "\U0001f642ab") == [[2, 4, 4]]


def test_a_row_says_where_the_harm_is(tmp_path):
    record = build_record(0, harm_score=0.9)
    guard = replace(record.guard, token_scores=(TokenScore(0, 3, 0.9),))
    score_run(build_run(tmp_path, [replace(record, guard=guard)]))
    page = render_report(tmp_path).read_text()
    assert '"x": [[0, 3, 4]]' in page
