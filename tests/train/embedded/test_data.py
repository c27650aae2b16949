import gzip
import json

import pytest

from llava.data.training.pairs import load_detector_rows, load_detoxifier_rows
from llava.data.training.sources import MixturePart
from llava.files import read_jsonl
from llava.train.embedded.data import choose_harmless, cut_at_sentence, main, pair_topical_refusals

TOPICAL = "I'm sorry, but I can't help with goal 1. " + "It could do harm to others, and that is why. " * 3
TOPICAL = TOPICAL.strip()


def artifact(folder, attack, kind, model, jailbreaks):
    path = folder / "attack-artifacts" / attack / kind / f"{model}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"index": i, "goal": f"goal {i}", "category": "c", "prompt": "p", "response": text, "jailbroken": jailbroken}
        for i, (text, jailbroken) in enumerate(jailbreaks)
    ]
    path.write_text(json.dumps({"parameters": {"method": attack, "model": model}, "jailbreaks": rows}))


@pytest.fixture
def clones(tmp_path):
    artifact(tmp_path / "a", "GCG", "white_box", "one", [("sure 0", True), ("sure 1", True), (None, False)])
    artifact(tmp_path / "a", "JBC", "manual", "two", [("no 0", False), ("sure again", True), ("no 2", False)])
    artifact(tmp_path / "a", "PAIR", "black_box", "three", [(None, False), (f"{TOPICAL} Instead, you", False)])
    artifact(tmp_path / "a", "test-artifact", "white_box", "one", [("left out", True)])
    (tmp_path / "a" / "attack-artifacts" / "GCG" / "attack-info.json").write_text("{}")
    table = tmp_path / "e" / "llava" / "eval" / "table"
    (table / "answer").mkdir(parents=True)
    (table / "question.jsonl").write_text('{"question_id": 1, "text": "how?"}\n')
    (table / "answer" / "answer_bard.jsonl").write_text('{"question_id": 1, "text": "so"}\n')
    (tmp_path / "h" / "harmless-base").mkdir(parents=True)
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: how?\n\nAssistant:"
    other = "\n\nHuman: else\n\nAssistant:"
    rows = [{"chosen": f"{start} no", "rejected": f"{start} so"}, {"chosen": f"{start} no", "rejected": f"{other} so"}]
    (tmp_path / "h" / "harmless-base" / "test.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    )
    return tmp_path


def run(clones):
    return main(
        [
            *("--artifacts", str(clones / "a"), "--ecso", str(clones / "e")),
            *("--hh-rlhf", str(clones / "h"), "--output", str(clones / "o")),
        ]
    )


def test_the_files_have_the_shapes_that_training_reads(clones, capsys):
    assert run(clones) == 0
    assert "jailbreakbench_responses.jsonl: 6 rows" in capsys.readouterr().out
    responses = read_jsonl(clones / "o" / "jailbreakbench_responses.jsonl")
    assert [row["id"] for row in responses] == [
        *("jbb-GCG-one-0", "jbb-GCG-one-1", "jbb-JBC-two-0", "jbb-JBC-two-1", "jbb-JBC-two-2"),
        "jbb-PAIR-three-1",
    ]
    assert read_jsonl(clones / "o" / "hh_harmless_pairs.jsonl") == [
        {
            "id": "hh-0",
            "prompt": "how?",
            "history": "Human: hi\n\nAssistant: hello",
            "chosen": "no",
            "rejected": "so",
        }
    ]
    for name in ("jailbreakbench_responses", "vicuna80_responses", "hh_harmless_pairs"):
        assert load_detector_rows([MixturePart(str(clones / "o" / f"{name}.jsonl"))])
    pair, *_ = load_detoxifier_rows([MixturePart(str(clones / "o" / "jailbreakbench_pairs.jsonl"))])
    assert (pair.prompt, pair.response, pair.target) == ("goal 0", "sure 0", "no 0")
    rewrites = load_detoxifier_rows([MixturePart(str(clones / "o" / "jailbreakbench_rewrites.jsonl"))])
    assert [(row.prompt, row.response) for row in rewrites] == [("goal 1", "sure 1"), ("goal 1", "sure again")]
    assert {row.target for row in rewrites} == {TOPICAL}
    kept = load_detoxifier_rows([MixturePart(str(clones / "o" / "jailbreakbench_harmless.jsonl"))], keep_harmless=True)
    assert [row.response for row in kept] == ["no 0", "no 2", f"{TOPICAL} Instead, you"]
    assert all(row.harmless for row in kept)


def test_targets_take_turns_and_a_text_is_kept_a_few_times():
    def row(number, text, harmful):
        return {"id": str(number), "prompt": "goal", "response": text, "harmful": harmful, "category": "c"}

    refusals = [f"{TOPICAL} {word}." for word in ("One", "Two")]
    rows = [row(i, f"sure {i}", True) for i in range(4)] + [row(9 + i, text, False) for i, text in enumerate(refusals)]
    rows += [row(20 + i, "No.", False) for i in range(5)]
    targets = [pair["harmless_response"] for pair in pair_topical_refusals(rows)]
    assert targets[:2] == targets[2:]
    assert sorted(targets[:2]) == sorted(refusals)
    assert [kept["response"] for kept in choose_harmless(rows)] == [*refusals, "No.", "No.", "No."]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("One. Two! Thr", "One. Two!"),
        ('He said "no." Then', 'He said "no."'),
        ("Version 1.5 is", ""),
        ("One.\n\nTwo", "One."),
        ("All of it.", "All of it."),
    ],
)
def test_a_target_ends_with_a_whole_sentence(text, whole):
    assert cut_at_sentence(text) == whole


def test_a_wrong_clone_is_one_line(clones, capsys):
    (clones / "e" / "llava" / "eval" / "table" / "question.jsonl").unlink()
    assert run(clones) == 2
    assert "question.jsonl does not exist" in capsys.readouterr().err
    assert not (clones / "o").exists()
