"""What the page shows: bins, cells, budgets."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from llava.eval import report_view
from llava.eval.report_view import build_command, build_heatmap, build_histogram, build_thumbnails, build_view, cut
from llava.eval.scoring import score_run
from tests.eval.build import build_mixed_run, build_record, build_run


@pytest.fixture
def summary(tmp_path):
    return score_run(build_mixed_run(tmp_path))


def test_every_score_falls_into_one_bin(summary):
    scores = [0.0, 0.049, 0.05, 0.5, 0.999, 1.0, None]
    records = [build_record(i, harm_score=score, harmful=i != 3) for i, score in enumerate(scores)]
    histogram = build_histogram(records, summary)
    bins = histogram["bins"]
    assert [bins[place]["harmful"] for place in (0, 1, 10, 19)] == [2, 1, 0, 2]
    assert bins[10]["benign"] == 1
    assert sum(each["harmful"] + each["benign"] for each in bins) == 6
    assert histogram["tallest"] == 2
    assert histogram["threshold"] == 0.5
    assert build_histogram([build_record(0, guarded=False)], summary) is None


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
    view = build_view(summary, records, {})
    assert view["text_limit"] == 600
    assert {len(row["r"]) for row in view["explorer"]["rows"]} == {600}
    monkeypatch.setattr(report_view, "TEXT_BUDGET", 50_000)
    assert build_view(summary, records, {})["text_limit"] is None
    assert cut("abcdef", 3) == "ab…"


def test_rows_carry_the_verdict_of_harmful_questions_only(summary):
    records = [build_record(0), build_record(1, harmful=False)]
    verdicts = {record.key: [True, False] for record in records}
    rows = build_view(summary, records, verdicts)["explorer"]["rows"]
    assert [row["u"] for row in rows] == [[True, False], None]


def test_the_command_repeats_the_run(summary):
    command = build_command(summary)
    assert command.startswith("mllm-protector generate --output RUN --model my_model --benchmark sample")
    assert "--detector embedded" in command
    assert "none" not in command
