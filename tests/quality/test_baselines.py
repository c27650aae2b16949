import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from llava.data.training.pairs import DetectorRow
from llava.files import write_jsonl
from llava.protector.config import ProtectorConfig
from llava.protector.text import Window
from llava.quality import baselines, cards
from llava.quality.baselines import Figures, LinearProbe, ZeroShotJudge, measure, render_comparison
from llava.quality.commands.compare_baselines import main
from tests.train.samples import write_labelled, write_pairs

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def rows_of(path, source="x"):
    return [DetectorRow(**json.loads(line), source=source) for line in path.read_text().splitlines()]


@pytest.fixture
def data(tmp_path):
    """The three files of the detector's data, with harmless stand-ins."""
    folder = tmp_path / "data"
    write_labelled(folder / f"{cards.RESPONSES}.jsonl", 120)
    write_pairs(folder / f"{cards.PAIRS}.jsonl", 30)
    write_jsonl(
        folder / f"{cards.ORDINARY}.jsonl",
        [{"prompt": f"ordinary {i}", "response": f"water the garden {i} bloom", "harmful": False} for i in range(30)],
    )
    return folder


def probe(base, max_length=64, pooling="mean"):
    config = ProtectorConfig(kind="detector", positive_label="harmful", pooling=pooling, max_length=max_length)
    return LinearProbe(str(base), config, torch.float32, CPU)


@pytest.mark.parametrize("pooling", ["mean", "mean_response"])
def test_the_probe_pools_what_the_transformer_gives(tiny_lm, pooling):
    found = probe(tiny_lm, pooling=pooling)
    windows = [Window([5, 6, 7, 8], head=2), Window([9, 10], head=1)]
    with torch.no_grad():
        for (ids, head), pooled in zip(windows, found.pool(windows), strict=True):
            hidden = found.classifier.backbone(input_ids=torch.tensor([ids])).last_hidden_state[0]  # (T, H)
            seen = hidden[head:] if pooling == "mean_response" else hidden
            np.testing.assert_allclose(pooled, seen.mean(0).numpy(), atol=1e-5)


def test_the_probe_learns_and_takes_the_highest_window(tiny_lm, tmp_path):
    rows = rows_of(write_labelled(tmp_path / "rows.jsonl", 80))
    found = probe(tiny_lm, max_length=48).fit(rows)
    scores = np.array(found.score(rows))
    labels = np.array([row.harmful for row in rows])
    assert scores[labels].mean() > scores[~labels].mean()
    long = DetectorRow("question", "bread water thorn " * 30, True, "x")
    windows = found._windows(long)
    assert len(windows) > 1
    chances = found.regression.predict_proba(found.pool(windows))[:, 1]
    assert found.score([long]) == [pytest.approx(chances.max(), abs=1e-6)]


def test_zero_shot_is_the_share_of_yes_and_padding_changes_nothing(tiny_lm):
    judge = ZeroShotJudge(str(tiny_lm), torch.float32, CPU)
    rows = [DetectorRow("Why?", "Because.", False, "x"), DetectorRow("How do I bake?", "Mix {prompt}. " * 9, True, "x")]
    for row, score in zip(rows, judge.score(rows), strict=True):
        ids = judge.encode(row)
        text = judge.tokenizer.decode(ids)
        assert row.response.strip() in text
        assert text.endswith("assistant\n")
        with torch.no_grad():
            logits = judge.model(input_ids=torch.tensor([ids])).logits[0, -1]
        yes, no = (logits[word].item() for word in judge.words)
        assert score == pytest.approx(1 / (1 + np.exp(no - yes)), abs=1e-5)


def test_measure_by_hand():
    """Two harmful and two harmless answers, one ordinary, one pair: three of four, and five of six, are in order."""

    def row(source, harmful, pair=None):
        return DetectorRow(
            f"p{source}", "r", harmful, source, pair_id=pair, chosen=None if pair is None else not harmful
        )

    rows = [row(cards.RESPONSES, harmful) for harmful in (True, True, False, False)]
    rows += [row(cards.ORDINARY, False), row(cards.PAIRS, False, "1"), row(cards.PAIRS, True, "1")]
    found = measure("m", lambda _: [0.9, 0.4, 0.6, 0.1, 0.3, 0.2, 0.7], rows, resamples=0)
    assert found.auroc == pytest.approx(5 / 6)
    assert found.auroc_jailbreakbench == 0.75
    assert (found.recall, found.false_positive_rate, found.pair_accuracy) == (0.5, 0.0, 1.0)


def test_the_page_shows_every_figure():
    full = Figures("one", 0.9124, [0.9, 0.95], 0.8, 0.75, 0.125, 0.5, 1.0)
    empty = Figures("two", None, None, None, None, None, None, 1.0)
    page = render_comparison([full, empty], "float32")
    assert "| one | 0.912 (0.900–0.950) | 0.800 | 75.0% | 12.5% | 50.0% |\n" in page
    assert "| two | – | – | – | – | – |\n\n" in page
    assert "float32" in page


def test_script_writes_the_table(data, tiny_lm, tiny_detector, tmp_path, capsys):
    output = tmp_path / "table.md"
    arguments = ["--data", str(data), "--output", str(output), "--base", str(tiny_lm), "--dtype", "float32"]
    assert main([*arguments, "--detector", str(tiny_detector)]) == 0
    lines = [line for line in output.read_text().splitlines() if line.startswith("| ")]
    assert len(lines) == 5
    # The words give the label away in these files.
    assert re.match(r"\| words: .* \| 1\.000 \(", lines[1])
    assert str(output) in capsys.readouterr().out


def test_missing_data_is_one_line(tmp_path, capsys):
    assert main(["--data", str(tmp_path), "--output", str(tmp_path / "x.md")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "x.md").exists()


def test_the_shipped_page_has_the_templates_words():
    page = (ROOT / "docs" / "detector_comparison.md").read_text()
    rendered = render_comparison([], "bfloat16")
    assert [line for line in page.splitlines() if not line.startswith("| ")] == [
        line for line in rendered.splitlines() if not line.startswith("| ")
    ]
    assert page.count("\n| ") == 5


def test_limit_keeps_the_first_rows_of_each_source():
    rows = [DetectorRow("p", str(i), False, source) for i, source in enumerate("aabab")]
    assert [row.response for row in baselines.first_rows(rows, 2)] == ["0", "1", "2", "4"]
    assert baselines.first_rows(rows, None) == rows
