import json
import math
import subprocess
import sys

from llava.data.training.pairs import DetectorRow
from llava.quality.figures import write_figures

ROWS = [DetectorRow(f"q{i}", "secret words", i % 2 == 0, "src") for i in range(8)]
SCORES = [0.9, 0.1, 0.8, 0.3, 0.6, 0.2, 0.7, 0.4]


def test_figures_are_at_the_threshold_and_hold_no_text(tmp_path):
    metrics = write_figures(tmp_path, ROWS, SCORES, threshold=0.65, temperature=1.5)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert (metrics["threshold"], metrics["temperature"]) == (0.65, 1.5)
    assert (metrics["overall"]["recall"], metrics["overall"]["auroc"]) == (0.75, 1.0)
    written = (tmp_path / "held_out_scores.jsonl").read_text()
    assert [json.loads(line)["harm_score"] for line in written.splitlines()] == SCORES
    assert "secret" not in written


def test_a_row_that_cannot_be_scored_counts_as_flagged(tmp_path):
    metrics = write_figures(tmp_path, ROWS, [math.nan, math.nan, *SCORES[2:]])
    assert (metrics["overall"]["recall"], metrics["overall"]["fpr"]) == (1.0, 0.25)


def test_former_pictures_go_when_none_can_be_drawn(tmp_path):
    """All rows of one class have no curve; a picture of other rows would say it had."""
    (tmp_path / "roc.png").write_text("former")
    write_figures(tmp_path, [row for row in ROWS if row.harmful], SCORES[::2])
    assert not (tmp_path / "roc.png").exists()


def test_the_protector_does_not_know_of_training():
    code = "import sys; import llava.protector.calibrate, llava.protector.detector, llava.protector.protector\n"
    code += "assert not any(name.startswith('llava.train') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
