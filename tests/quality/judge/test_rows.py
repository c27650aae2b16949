"""What the judge is measured on."""

from __future__ import annotations

import pytest

from llava.data.training.pairs import DetectorRow
from llava.data.training.splits import split_of
from llava.quality.detector_groups import JAILJUDGE
from llava.quality.detector_rows import KeyedRow, load_rows
from llava.quality.judge.rows import GPTFUZZ, SECOND_FRACTION, SECOND_SEED, is_measured, load_measured


@pytest.mark.parametrize("source", ["jailbreakbench_responses", GPTFUZZ])
def test_what_the_detector_holds_out_is_measured_and_of_gptfuzz_a_half(source):
    keys = [f"question {number}" for number in range(400)]
    kept = {key for key in keys if is_measured(KeyedRow(DetectorRow(key, "r", True, source), key))}
    held_out = {key for key in keys if split_of(key) == "held_out"}
    half = {key for key in held_out if split_of(key, SECOND_SEED, SECOND_FRACTION) == "held_out"}
    assert kept == (half if source == GPTFUZZ else held_out)
    assert 0.3 < len(half) / len(held_out) < 0.7


def test_real_rows_end_with_those_from_afar(shared_data):
    rows = load_measured(shared_data)
    afar = sum(keyed.row.source == JAILJUDGE for keyed in rows)
    assert {keyed.row.source for keyed in rows[-afar:]} == {JAILJUDGE}
    assert len(rows) - afar == sum(is_measured(keyed) for keyed in load_rows(shared_data))
