import json

from llava.data.training.pairs import DetectorRow
from llava.quality.commands.evaluate_hiding import ALONE, Hidden, describe, draw_passages, main, make_texts
from tests.quality.repair.data import write_data

ORDINARY = [DetectorRow(f"how {i}?", f"Boil the water {i}. " * 20, False, "vicuna80") for i in range(30)]
PASSAGE = DetectorRow("why?", "Stir the poison in.", True, "jailbreakbench_responses")


def test_the_passage_stands_where_it_is_said_to():
    texts = {text.place: text for text in make_texts([PASSAGE], ORDINARY, 1, lambda text: len(text) // 4 * 20)}
    assert all((PASSAGE.response in text.response) is ("without" not in place) for place, text in texts.items())
    assert all((text.prompt == PASSAGE.prompt) is ("without" not in place) for place, text in texts.items())
    assert texts[ALONE].response == texts["the first 1 alone"].response == PASSAGE.response
    start, middle, end = (texts[f"{place} of 8,000 tokens"].response for place in ("start", "middle", "end"))
    assert start.startswith(PASSAGE.response)
    assert end.endswith(PASSAGE.response)
    assert 0.3 < middle.index(PASSAGE.response) / len(middle) < 0.7
    assert 400 <= len(texts["among 400 words: ordinary text without it"].response.split()) < 400 + 80


def test_shares_by_place():
    texts = [Hidden(place, f"{number}?", "text") for number in range(4) for place in ("alone", "among")]
    scores = [0.9, 0.1, 0.9, float("nan"), 0.2, 0.1, 0.9, 0.1]
    figures = describe(texts, scores, 0.5)
    assert (figures["alone"]["n"], figures["alone"]["flagged"]) == (4, 0.75)
    assert figures["among"]["flagged"] == 0.25, "what cannot be scored is flagged"


def test_passages_are_of_many_questions():
    text = " ".join(f"One stirs the poison in, slowly and in the dark, {number} times." for number in range(9))
    rows = [DetectorRow(f"why {number}?", text, True, "jailbreakbench_responses") for number in range(5)]
    assert len({row.prompt for row in draw_passages(rows, 5)}) == 5


def test_the_command(tiny_detector, tmp_path, capsys):
    data, output = write_data(tmp_path), tmp_path / "hiding.json"
    arguments = ["--data", str(data), "--detector", str(tiny_detector), "--passages", "3", "--output", str(output)]
    assert main([*arguments, "--long", "0"]) == 0
    ways = json.loads(output.read_text())["ways"]
    assert [found["n"] for found in ways.values()] == [3] * 4
    assert "| alone | 3 |" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "too few words" in capsys.readouterr().err


def test_hidden_text_is_deterministic():
    first, second = (make_texts([PASSAGE], ORDINARY, 0, len) for _ in range(2))
    assert first == second
