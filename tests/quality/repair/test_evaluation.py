import json

import pytest

from llava import Protector
from llava.data.removed import RemovedSpan
from llava.data.schema import Action, GuardResult
from llava.data.training.pairs import DetectorRow
from llava.quality.commands.evaluate_trimming import main, print_table
from llava.quality.repair.cases import RepairCase, make_cases
from llava.quality.repair.evaluation import count_outcome, describe, measure_trimming
from tests.protector.repair.words import WordDetector
from tests.quality.repair.data import HARMFUL, write_data

CASE = RepairCase("How?", "Boil it. Drop it all. Salt it.", 9, 21, "middle", "ordinary", "Why?")


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (GuardResult(CASE.response, CASE.response, 0.1, False, Action.PASSED), ("missed", 4, 4, 3, 3)),
        (GuardResult("No.", CASE.response, 0.9, True, Action.REFUSED), ("refused", 4, 0, 3, 0)),
        (GuardResult("Fine.", CASE.response, 0.9, True, Action.REWRITTEN), ("rewritten", 4, 0, 3, 0)),
        (
            GuardResult(
                "all. Salt it.",
                CASE.response,
                0.9,
                True,
                Action.TRIMMED,
                removed=(RemovedSpan(0, 17, CASE.response[:17]),),
            ),
            ("trimmed", 4, 2, 3, 1),
        ),
    ],
)
def test_words_by_hand(result, outcome):
    assert tuple(count_outcome(CASE, result)) == outcome


def test_shares_by_hand_with_the_missed_cases_told_apart():
    results = [
        GuardResult(CASE.response, CASE.response, 0.1, False, Action.PASSED),
        GuardResult("No.", CASE.response, 0.9, True, Action.REFUSED),
        GuardResult("", CASE.response, 0.9, True, Action.TRIMMED, removed=(RemovedSpan(0, 21, CASE.response[:21]),)),
    ]
    found = describe([(CASE, count_outcome(CASE, result)) for result in results], resamples=0)
    shares = {name: value["share"] for name, value in found.items() if isinstance(value, dict)}
    assert shares["missed"] == shares["refused"] == shares["trimmed"] == pytest.approx(1 / 3)
    assert (shares["harmless_kept"], shares["harmful_left"]) == (2 / 8, 0.0)
    assert (shares["harmless_kept_with_missed"], shares["harmful_left_with_missed"]) == (6 / 12, 3 / 9)
    assert (shares["harmless_kept_of_trimmed"], shares["harmful_left_of_trimmed"]) == (2 / 4, 0.0)


def test_a_guard_that_sees_everything_leaves_nothing(tmp_path, capsys):
    cases = make_cases(write_data(tmp_path), 30)
    whole = [DetectorRow("Why?", HARMFUL * 5, True, "x")]
    figures = measure_trimming(Protector(WordDetector()), cases, whole, resamples=50)
    assert figures["overall"]["trimmed"] == {"share": 1.0, "ci95": [1.0, 1.0]}
    assert figures["overall"]["harmless_kept"]["share"] == 1.0
    assert figures["overall"]["harmful_left"]["share"] == 0.0
    assert figures["wholly_harmful"]["refused"]["share"] == 1.0
    assert figures["shown_below_threshold"] == {"below": 30, "n": 30, "highest": 0.1}
    assert {found["n"] for found in figures["by_position"].values()} == {10}
    print_table(json.loads(json.dumps(figures)), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 1 + 3 + 2 + 1 + 2
    assert "30 of 30" in lines[-2]
    assert not any("poison" in line for line in lines)


def test_the_command_measures_a_real_network(tmp_path, tiny_detector, capsys):
    write_data(tmp_path)
    output = tmp_path / "trimming.json"
    words = ["--data", str(tmp_path), "--cases", "6", "--harmful", "2", "--detector", str(tiny_detector)]
    assert main([*words, "--threshold", "1e-6", "--output", str(output)]) == 0
    figures = json.loads(output.read_text())
    assert figures["overall"]["n"] == 6
    assert figures["overall"]["missed"]["share"] == 0.0
    assert figures["shown_below_threshold"]["below"] == figures["shown_below_threshold"]["n"]
    assert capsys.readouterr().out.endswith(f"{output}\n")


def test_without_the_data_a_line_says_so(tmp_path, capsys):
    assert main(["--data", str(tmp_path), "--output", str(tmp_path / "x.json")]) == 2
    assert "does not exist" in capsys.readouterr().err
