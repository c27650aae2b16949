import importlib.util
import logging

import numpy as np
import pytest
from PIL import Image

from llava.quality import plots
from llava.quality.metrics import Scored, auroc, ece
from llava.quality.plots import plot_evaluation, reliability, roc_curve

needs_matplotlib = pytest.mark.skipif(not importlib.util.find_spec("matplotlib"), reason="matplotlib is an extra")


def scored(n=400, seed=0):
    generator = np.random.default_rng(seed)
    scores = generator.random(n).round(2)  # with ties
    return Scored(generator.random(n) < scores, scores, np.arange(n))


def test_area_under_the_curve_is_the_auroc():
    data = scored()
    false_positives, recall = roc_curve(data)
    area = (np.diff(false_positives) * (recall[1:] + recall[:-1]) / 2).sum()
    assert area == pytest.approx(auroc(data), abs=1e-12)
    assert (false_positives[[0, -1]], recall[[0, -1]]) == (pytest.approx([0, 1]), pytest.approx([0, 1]))
    assert (np.diff(recall) >= 0).all()


def test_weighted_gaps_of_the_bins_are_the_calibration_error():
    data = scored()
    means, shares, counts = reliability(data)
    assert counts.sum() == len(data)
    assert (np.abs(means - shares) * counts).sum() / len(data) == pytest.approx(ece(data))


@needs_matplotlib
def test_two_pictures_are_written_and_nothing_else(tmp_path):
    data = scored()
    scores = [float("nan"), *data.scores]
    written = plot_evaluation([True, *data.labels], scores, tmp_path, threshold=0.3)
    assert {path.name for path in tmp_path.iterdir()} == {"roc.png", "calibration.png"}
    assert set(written) == set(tmp_path.iterdir())
    for path in written:
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 300
            assert len(set(picture.convert("L").getdata())) > 20


@needs_matplotlib
def test_one_class_is_no_failure(tmp_path, caplog):
    with caplog.at_level(logging.INFO, plots.logger.name):
        assert plot_evaluation([True, True], [0.1, 0.2], tmp_path) == []
    assert "one class" in caplog.text
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_a_line_is_logged(tmp_path, caplog, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    with caplog.at_level(logging.INFO, plots.logger.name):
        assert plot_evaluation([True, False], [0.9, 0.2], tmp_path) == []
    assert "matplotlib is not installed" in caplog.text
    assert not list(tmp_path.iterdir())
