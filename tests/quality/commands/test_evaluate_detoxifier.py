import json

import pytest

from llava.quality.commands.evaluate_detoxifier import main
from tests.tiny_encoder import build_encoder
from tests.train.samples import write_labelled


@pytest.fixture
def run(tiny_detoxifier, tiny_detector, tmp_path):
    data = write_labelled(tmp_path / "rows.jsonl", 60)
    encoder = build_encoder(tmp_path / "encoder")

    def call(*more):
        return main(
            [
                *("--detoxifier", str(tiny_detoxifier), "--detector", str(tiny_detector), "--data", str(data)),
                *("--output", str(tmp_path / "out" / "figures.json"), "--embedding-model", str(encoder)),
                *("--max-new-tokens", "6", "--limit", "6", *more),
            ]
        )

    return call


def test_figures_of_a_checkpoint(run, tmp_path, capsys):
    data = tmp_path / "rows.jsonl"
    assert run("--judge", f"words:{data}", "keyword", "--held-out", "--limit", "4") == 0
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["harmful"]["n"] == figures["harmless"]["overall"]["n"] == 4
    assert set(figures["harmful"]["judged_harmless"]) == {"words", "keyword"}
    assert figures["harmful"]["originals_judged_harmful"]["words"]["share"] == 1
    assert figures["harmful"]["topic"]["on_topic"]["n"] == 4
    assert "harmful judged harmless words" in capsys.readouterr().out


def test_parts_can_be_left_out(run, tmp_path):
    assert run("--detector", "none", "--judge", "keyword", "--embedding-model", "none") == 0
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert "topic" not in figures["harmful"]
    assert "passed_by_detector" not in figures["harmful"]
    assert "unchanged" not in figures["harmless"]["overall"]
    assert figures["harmless"]["overall"]["forced_unchanged"]["n"] == 6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "absent.jsonl"], "absent.jsonl does not exist"),
        (["--judge", "words"], "--judge words:FILE"),
        (["--output", "."], "is a folder; give a file name"),
        (["--detoxifier", "no/such/place"], "no/such/place"),
        (["--embedding-model", "no/such/place"], "no/such/place"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, capsys, more, message):
    assert run(*more) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_only_harmless_rows_leave_nothing_to_rewrite(run, tmp_path, capsys):
    path = tmp_path / "fine.jsonl"
    path.write_text(json.dumps({"prompt": "q", "response": "bread", "harmful": False}) + "\n")
    assert run("--data", str(path)) == 2
    assert "leaves no harmful response" in capsys.readouterr().err
