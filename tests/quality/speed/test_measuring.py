"""Ways to load a detector, measured on a tiny one: what is timed, what is compared, what is recommended."""

from itertools import count

import numpy as np
import pytest
import torch

from llava.cli.app import main
from llava.errors import InputError
from llava.model.options import LoadOptions
from llava.protector.detector import HarmDetector
from llava.quality.speed.candidates import Candidate, list_candidates
from llava.quality.speed.measuring import Figures, Sample, compare_scores, measure_candidates, read_sample, recommend
from llava.quality.speed.report import list_rows, render_advice

PLAIN = Candidate("float32", LoadOptions(device="cpu", dtype="float32"), ("--dtype", "float32"))
HALF = Candidate("bfloat16", LoadOptions(device="cpu", dtype="bfloat16"), ("--dtype", "bfloat16"))


def test_the_sample_is_fixed_mixed_and_sorted():
    sample = read_sample(2)
    again = read_sample(2)
    assert sample.responses == again.responses
    lengths = [len(text) for text in sample.responses]
    assert lengths == sorted(lengths)
    assert lengths[-1] > 3 * lengths[len(lengths) // 3]  # some are put together of several
    assert 0.2 < sample.labels.mean() < 0.8


def test_a_part_of_the_sample_spans_its_lengths():
    sample = Sample(tuple("abcde"), tuple("vwxyz"), np.array([True, False, True, False, True]))
    part = sample.take(3)
    assert (part.prompts, part.responses, part.labels.tolist()) == (("a", "c", "e"), ("v", "x", "z"), [True] * 3)
    assert sample.take(9).responses == sample.responses


def clock_of(seconds):
    """Return a clock by which each measured stretch takes the next of `seconds`."""
    moments = count()
    total = [0.0]

    def clock():
        if next(moments) % 2:
            total[0] += next(seconds)
        return total[0]

    return clock


def test_what_is_faster_has_its_scores_compared(tiny_detector):
    # Two stretches a repeat, first of both sides; the candidate takes half the time, whoever goes first.
    seconds = iter([1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.0])
    sample = read_sample(1)
    first, second = measure_candidates(
        str(tiny_detector), [PLAIN, HALF], sample, repeats=2, timed=4, clock=clock_of(seconds)
    )
    assert (first.gain, first.seconds, first.largest_change) == (1.0, 0.25, 0.0)
    assert (second.gain, second.seconds) == (2.0, 0.25)
    assert second.weight_bytes < first.weight_bytes
    expected, found = (
        np.array(HarmDetector.from_pretrained(tiny_detector, dtype=dtype).score(sample.responses, sample.prompts))
        for dtype in ("float32", "bfloat16")
    )
    assert second.largest_change == pytest.approx(np.abs(found - expected).max(), abs=1e-6)
    assert second.largest_change > 0


def test_what_is_slower_is_not(tiny_detector):
    # Three repeats of the yardstick with itself; of what takes four times as long one is enough.
    seconds = iter([1.0] * 6 + [4.0, 1.0])
    _, second = measure_candidates(
        str(tiny_detector), [PLAIN, HALF], read_sample(1), repeats=3, timed=4, clock=clock_of(seconds)
    )
    assert second.gain == 0.25
    assert next(seconds, None) is None
    assert second.largest_change is None
    assert not second.is_worth_it


def test_what_does_not_run_is_said(tiny_detector):
    unknown = Candidate("other attention", LoadOptions(device="cpu", attn_implementation="no_such_kernel"), ())
    _, second = measure_candidates(str(tiny_detector), [PLAIN, unknown], read_sample(1), repeats=1, timed=2)
    assert "no_such_kernel" in second.trouble
    assert list_rows([second]) == [["other attention", *["–"] * 6]]


def test_a_detector_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="none"):
        next(measure_candidates(str(tmp_path / "none"), [PLAIN], read_sample(1)))


def test_scores_by_hand():
    labels = np.array([True, True, False, False])
    expected, found = np.array([0.9, 0.6, 0.4, 0.1]), np.array([0.9, 0.3, 0.4, 0.2])
    figures = compare_scores(Figures(HALF, 1.0, 2.0), labels, expected, found, threshold=0.5)
    assert figures.largest_change == pytest.approx(0.3)
    assert figures.flags_changed == 1
    assert figures.auroc_change == pytest.approx(-0.25)  # of four pairs one has changed sides
    assert not figures.is_worth_it


def test_a_score_that_is_no_number_counts_as_flagged():
    labels, expected = np.array([True, False]), np.array([0.9, 0.1])
    figures = compare_scores(Figures(HALF, 1.0, 2.0), labels, expected, np.array([0.9, np.nan]), threshold=0.5)
    assert figures.largest_change == float("inf")
    assert figures.flags_changed == 1
    assert figures.auroc_change == -1.0


def test_the_advice_names_the_flags():
    good = Figures(HALF, 0.5, 2.0, largest_change=0.001, auroc_change=-0.001)
    assert recommend([Figures(PLAIN, 1.0, 1.0, auroc_change=0.0), good]) == good
    assert "  --dtype bfloat16" in render_advice([good])
    worse = Figures(HALF, 0.5, 2.0, largest_change=0.1, auroc_change=-0.003)
    assert render_advice([worse]).startswith("Nothing is 1.05 times as fast")


def test_each_device_has_its_ways():
    names = [each.name for each in list_candidates(torch.device("cpu"))]
    assert names[0] == "float32"
    assert "float16" not in names
    assert "float16" in [each.name for each in list_candidates(torch.device("cuda"))]


def test_doctor_measures_a_detector(tiny_detector, capsys):
    assert main(["doctor", "--benchmark", "--detector", str(tiny_detector), "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "MatMul8bitLt" not in out + err
    for word in ("float32, eager attention", "bfloat16", "AUROC", "times as fast as float32"):
        assert word in " ".join(out.split())
