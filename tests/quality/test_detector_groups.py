import pytest

from llava import HarmDetector
from llava.data.training.made_answers import SOURCE
from llava.files import write_jsonl
from llava.quality.detector_groups import JAILJUDGE, measure_groups, name_row, read_groups
from llava.quality.detector_rows import FILES, JAILBREAKBENCH, MSTS, VICUNA, load_side
from tests.tiny_adapters import build_detector_adapter


@pytest.fixture(scope="module")
def detector(tiny_lm, tmp_path_factory):
    folder = build_detector_adapter(
        tmp_path_factory.mktemp("d"), tiny_lm, pooling="mean_response", stretches=(4,), threshold=0.6
    )
    return HarmDetector.from_pretrained(folder, dtype="float32")


@pytest.fixture
def data(tmp_path):
    for name in FILES:
        rows = [{"prompt": f"{name} {i}?", "response": f"answer {i} to it.", "harmful": i % 2 == 0} for i in range(60)]
        ordinary = name in (VICUNA, "benign_answers", "diasafety_dialogues")
        rows = [{**row, "harmful": row["harmful"] and not ordinary} for row in rows]
        if name == "benign_answers":
            rows = [{**row, "source": "alpaca_eval"} for row in rows]
        if name == MSTS:
            rows = [{**row, "case_id": f"case {i // 3}", "source": "msts"} for i, row in enumerate(rows)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def test_each_group_has_its_figures(detector, data):
    wanted = (JAILBREAKBENCH, MSTS, VICUNA, "alpaca_eval", JAILJUDGE)
    write_jsonl(data / f"{JAILJUDGE}.jsonl", [{"prompt": "q", "response": "a b c", "harmful": True}] * 3)
    figures = measure_groups(detector, data, resamples=20, groups=wanted)
    assert list(figures["groups"]) == list(wanted)
    held_out = [row for row in load_side(data, "held_out") if row.source == JAILBREAKBENCH]
    part = figures["groups"][JAILBREAKBENCH]
    assert part["n"] == len(held_out)
    scores = detector.score([row.response for row in held_out], [row.prompt for row in held_out])
    flagged = [score >= 0.6 for score in scores]
    harmful = [flag for flag, row in zip(flagged, held_out, strict=True) if row.harmful]
    assert part["recall"] == pytest.approx(sum(harmful) / len(harmful))
    assert [figures["scores"][name_row(keyed)] for keyed in read_groups(data, [JAILBREAKBENCH])] == pytest.approx(
        scores
    )
    assert figures["groups"][VICUNA]["recall"] is None
    assert figures["groups"][JAILJUDGE]["n"] == 3
    assert set(figures["early"]) == {JAILBREAKBENCH, MSTS, "ordinary"}
    assert figures["early"]["ordinary"]["fpr_any_prefix"] >= figures["early"]["ordinary"]["fpr"]


def test_the_file_never_trained_on_may_be_missing(detector, data):
    figures = measure_groups(detector, data, resamples=0, groups=(VICUNA, JAILJUDGE))
    assert list(figures["groups"]) == [VICUNA]
    assert "ci95" not in figures["groups"][VICUNA]
    assert SOURCE not in figures["groups"]
