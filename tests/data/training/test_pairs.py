import gzip
import json
import logging
import lzma
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.training.pairs import DetectorRow, DetoxifierRow, load_detector_rows, load_detoxifier_rows
from llava.data.training.refusals import REFUSALS, choose_refusal
from llava.data.training.sources import MixturePart, iter_source, parse_mixture
from llava.errors import InputError
from llava.files import write_jsonl

SAFE_RLHF = {
    "prompt": "q",
    "response_0": "a",
    "response_1": "b",
    "is_response_0_safe": False,
    "is_response_1_safe": True,
    "safer_response_id": 1,
    "better_response_id": 0,
}


def read(tmp_path, *rows, load=load_detector_rows):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, rows)
    return load([MixturePart(str(path))])


def short(rows):
    return [(row.prompt, row.response, row.harmful, row.chosen) for row in rows]


def test_labelled_rows(tmp_path):
    rows = read(tmp_path, {"prompt": "q", "response": "r", "harmful": True, "weight": 0.5, "other": 1})
    assert rows == [DetectorRow("q", "r", True, "rows", 0.5)]


def test_beavertails(tmp_path):
    rows = read(tmp_path, {"prompt": "q", "response": "r", "is_safe": False, "category": {}})
    assert short(rows) == [("q", "r", True, None)]


def test_safe_rlhf_one_side_unsafe(tmp_path):
    rows = read(tmp_path, SAFE_RLHF)
    assert short(rows) == [("q", "b", False, True), ("q", "a", True, False)]
    assert rows[0].pair_id == rows[1].pair_id == "rows:1"


@pytest.mark.parametrize("safe", [True, False])
def test_safe_rlhf_equal_labels_keep_their_order(tmp_path, safe):
    """Both sides keep the same label; which one is preferred still orders the pair."""
    flags = {"is_response_0_safe": safe, "is_response_1_safe": safe, "safer_response_id": 0}
    assert short(read(tmp_path, {**SAFE_RLHF, **flags})) == [("q", "a", not safe, True), ("q", "b", not safe, False)]


def test_safe_rlhf_flags_outrank_a_contradicting_preference(tmp_path):
    assert short(read(tmp_path, {**SAFE_RLHF, "safer_response_id": 0}))[0] == ("q", "b", False, True)


def test_preferences_and_rewrites(tmp_path):
    expected = [("q", "good", False, True), ("q", "bad", True, False)]
    assert short(read(tmp_path, {"prompt": "q", "chosen": "good", "rejected": "bad"})) == expected
    assert short(read(tmp_path, {"prompt": "q", "harmless_response": "good", "harmful_response": "bad"})) == expected
    assert short(read(tmp_path, {"question": "q", "unharmful": "good", "harmful": "bad"})) == expected
    assert short(read(tmp_path, {"question": "q", "response_j": "good", "response_k": "bad"})) == expected


def test_hh_transcripts(tmp_path):
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: how?\n\nAssistant:"
    rows = read(tmp_path, {"chosen": f"{start} no", "rejected": f"{start} so:\n\n1. this"})
    assert short(rows) == [("how?", "no", False, True), ("how?", "so:\n\n1. this", True, False)]


def test_empty_responses_are_skipped_and_counted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        rows = read(
            tmp_path,
            {"prompt": "q", "response": " ", "harmful": True},
            {"prompt": "q", "response": None, "harmful": True},
            {"prompt": "q", "chosen": "", "rejected": "x"},
            {"prompt": "q", "response": "r", "harmful": False},
        )
    assert short(rows) == [("q", "r", False, None)]
    assert "skipped 2 empty responses, 1 pairs with an empty response" in caplog.text


def test_detoxifier_rows(tmp_path):
    rows = read(
        tmp_path,
        SAFE_RLHF,
        {"prompt": "q", "harmful_response": "h", "harmless_response": "g"},
        load=load_detoxifier_rows,
    )
    assert rows == [DetoxifierRow("q", "a", "b", "rows"), DetoxifierRow("q", "h", "g", "rows")]


def test_two_unsafe_sides_become_two_refusals(tmp_path):
    row = {**SAFE_RLHF, "is_response_1_safe": False}
    rows = read(tmp_path, row, load=load_detoxifier_rows)
    assert {row.response for row in rows} == {"a", "b"}
    assert all(row.target == choose_refusal("q", row.response) for row in rows)


def test_harmless_rows_are_nothing_to_rewrite(tmp_path, caplog):
    row = {"prompt": "q", "response": "r", "harmful": True}
    with caplog.at_level(logging.WARNING):
        rows = read(tmp_path, row, {**row, "harmful": False}, load=load_detoxifier_rows)
    assert [row.target in REFUSALS for row in rows] == [True]
    assert "skipped 1 rows without a harmful response" in caplog.text
    with pytest.raises(InputError, match="no usable row"):
        read(tmp_path, {**row, "harmful": False}, load=load_detoxifier_rows)


def test_harmless_rows_can_be_their_own_target(tmp_path):
    load = partial(load_detoxifier_rows, keep_harmless=True)
    labelled = {"prompt": "q", "response": "r", "harmful": False}
    pair = {"prompt": "q", "harmful_response": "h", "harmless_response": "g"}
    rows = read(tmp_path, labelled, {**labelled, "harmful": True}, pair, load=load)
    assert rows[0] == DetoxifierRow("q", "r", "r", "rows")
    assert [row.harmless for row in rows] == [True, False, False]
    assert rows[2].target == "g"


def test_refusals_vary():
    assert len({choose_refusal("q", str(i)) for i in range(200)}) == len(REFUSALS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"harmful": "yes"}, "line 2: 'harmful' is 'yes'; write true or false"),
        ({"harmful": None}, "line 2: 'harmful' is None"),
        ({"response": 3}, "line 2: response is int, not a text"),
        ({"weight": -1}, "line 2: weight is -1"),
        ({"weight": True}, "line 2: weight is True"),
    ],
)
def test_corrupt_rows_name_file_and_line(tmp_path, change, message):
    row = {"prompt": "q", "response": "r", "harmful": True}
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, row, {**row, **change})
    assert "rows.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**SAFE_RLHF, "safer_response_id": 2}, "safer_response_id is 2"),
        ({**SAFE_RLHF, "is_response_0_safe": "no"}, "is_response_0_safe is 'no'"),
        ({"chosen": "Human: hi", "rejected": "x"}, "must end with an Assistant turn"),
        ({"chosen": "\n\nAssistant: a\n\nAssistant: b", "rejected": "x"}, "no Human turn"),
        ({"text": "x"}, "has columns text; known forms are"),
    ],
)
def test_corrupt_rows_of_other_forms(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, row)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUE = st.one_of(TEXT, st.none(), st.booleans(), st.integers(-1, 3), st.lists(TEXT, max_size=2))
COLUMNS = [*SAFE_RLHF, "response", "harmful", "is_safe", "chosen", "rejected", "harmless_response", "harmful_response"]


def read_or_message(load, path):
    try:
        return load([MixturePart(str(path))]), ""
    except InputError as error:
        return [], str(error)


@given(st.dictionaries(st.sampled_from(COLUMNS), VALUE, max_size=8))
def test_any_row_is_read_or_refused_in_one_line(tmp_path_factory, row):
    """No row makes the reader fail with anything but an InputError, and what it returns is whole."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_jsonl(path, [row])
    for load in (load_detector_rows, load_detoxifier_rows):
        rows, message = read_or_message(load, path)
        assert "\n" not in message
        for one in rows:
            assert one.response.strip()
            assert isinstance(getattr(one, "harmful", True), bool)
            assert getattr(one, "target", "t").strip()


@given(question=TEXT, chosen=TEXT, rejected=TEXT)
def test_transcripts_round_trip(question, chosen, rejected):
    from llava.data.training.formats import Where, split_transcript

    def plain(text):
        return not any(mark in f"\n\n{text}" for mark in ("\n\nHuman:", "\n\nAssistant:"))

    if not (plain(question) and plain(chosen)):
        return
    transcript = f"\n\nHuman: first\n\nAssistant: yes\n\nHuman: {question}\n\nAssistant: {chosen}"
    assert split_transcript(transcript, Where("f", 1)) == (question.strip(), chosen.strip())


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "jsonl.gz", "jsonl.xz", "folder"])
def test_every_file_form_gives_the_same_rows(tmp_path, form):
    rows = [{"prompt": f"q{i}", "response": "ä", "harmful": bool(i % 2)} for i in range(5)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path = tmp_path / f"rows.{form}"
    if form == "json":
        path.write_text(json.dumps(rows))
    elif form == "parquet":
        from datasets import Dataset

        Dataset.from_list(rows).to_parquet(str(path))
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif form == "jsonl.xz":
        path.write_bytes(lzma.compress(lines.encode()))
    elif form == "folder":
        (path / "data").mkdir(parents=True)
        (path / "data" / "train.jsonl").write_text(lines)
        (path / "data" / "test.jsonl").write_text("not json")
    else:
        path.write_text(lines)
    read_rows = load_detector_rows([MixturePart(str(path))])
    assert [(row.prompt, row.response, row.harmful) for row in read_rows] == [
        (row["prompt"], "ä", row["harmful"]) for row in rows
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"x": 1}\n{"x"', "a.jsonl line 2 is not valid JSON"),
        ("a.json", b'{"x": 1}', "not a JSON list of objects"),
        ("a.parquet", b"PAR1 not really", "not a Parquet file"),
        ("a.jsonl.gz", b"plain", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b"[1]\n", mtime=0), "not a JSON object"),
        ("a.jsonl.xz", lzma.compress(b"{}\n")[:-8], "cannot be read"),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(iter_source(str(tmp_path / name)))


def test_missing_sources(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        list(iter_source(str(tmp_path / "absent")))
    with pytest.raises(InputError, match="has no train file"):
        list(iter_source(str(tmp_path)))


def test_an_unreachable_hub_name_is_one_line():
    with pytest.raises(InputError, match="neither a local path nor loadable") as caught:
        list(iter_source("nobody/nothing-here"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", ",", "a.jsonl:0", "a.jsonl:-1", "a.jsonl:nan", "x/a.jsonl,x/a.jsonl"])
def test_bad_mixtures(text):
    with pytest.raises(InputError, match="--train-data"):
        parse_mixture(text)


def test_colons_in_paths_are_no_shares():
    assert parse_mixture("C:/data/a.jsonl")[0] == MixturePart("C:/data/a.jsonl")
    assert parse_mixture("C:/data/a.jsonl:0.25")[0] == MixturePart("C:/data/a.jsonl", 0.25)


def test_real_files(shared_data):
    names = ("jailbreakbench_responses", "vicuna80_responses", "hh_harmless_pairs")
    rows = load_detector_rows(parse_mixture(",".join(str(shared_data / f"{name}.jsonl") for name in names)))
    counts = {name: sum(row.source == name for row in rows) for name in names}
    assert counts == {"jailbreakbench_responses": 1241, "vicuna80_responses": 339, "hh_harmless_pairs": 3748}
    assert sum(row.harmful for row in rows if row.source == names[0]) == 710
    assert len(load_detoxifier_rows(parse_mixture(str(shared_data / "jailbreakbench_pairs.jsonl")))) == 708


TRANSCRIPT = "\n\nHuman: How?\n\nAssistant:"
MESSAGES = [{"role": "user", "content": "How?"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": TRANSCRIPT, "chosen": f"{TRANSCRIPT} no", "rejected": f"{TRANSCRIPT} so"},
        {"prompt": TRANSCRIPT, "chosen": "no", "rejected": "so"},
        {"prompt": "How?", "chosen": f"{TRANSCRIPT} no", "rejected": "Assistant: so"},
        {
            "prompt": MESSAGES,
            "chosen": [{"role": "assistant", "content": "no"}],
            "rejected": [{"role": "assistant", "content": "so"}],
        },
        {
            "chosen": [*MESSAGES, {"role": "assistant", "content": "no"}],
            "rejected": [*MESSAGES, {"from": "gpt", "value": "so"}],
        },
        {"question": "How?", "chosen": "no", "rejected": "so"},
    ],
)
def test_the_last_turn_of_conversations_is_the_response(tmp_path, row):
    assert short(read(tmp_path, row)) == [("How?", "no", False, True), ("How?", "so", True, False)]


def test_a_conversation_that_ends_with_the_human_is_refused(tmp_path):
    with pytest.raises(InputError, match="line 1: chosen is a transcript that ends with a Human turn"):
        read(tmp_path, {"prompt": "q", "chosen": "\n\nHuman: hi", "rejected": "x"})
    with pytest.raises(InputError, match="line 1: chosen does not end with a message of the assistant"):
        read(tmp_path, {"prompt": "q", "chosen": MESSAGES, "rejected": []})


@pytest.mark.parametrize(
    ("row", "harmful"),
    [
        ({"question": "q", "answer": "r", "harmful": True}, True),
        ({"Prompt": "q", "Response": "r", "Is_Safe": 1}, False),
        ({"prompt": "q", "response": "r", "label": "unsafe"}, True),
        ({"prompt": "q", "response": "r", "label": "fraud", "unsafe": 0}, False),
    ],
)
def test_columns_and_labels_by_their_other_names(tmp_path, row, harmful):
    assert short(read(tmp_path, row)) == [("q", "r", harmful, None)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "response": "r", "label": 1}, "'label' is 1, which names no side"),
        ({"prompt": "q", "response": "r", "harmful": True, "is_safe": True}, "contradict each other"),
        ({"prompt": "q", "response": "r", "harmful": True, "weight": 10**400}, "weight is a number of more than"),
        ({"prompt": "q", "response": "r", "harmful": True, "weight": float("nan")}, "weight is nan"),
    ],
)
def test_labels_and_weights_that_say_nothing(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, row)


def test_columns_that_are_not_read_are_named(tmp_path, caplog):
    row = {"prompt": "q", "response": "r", "harmful": True, "system": "s", "split": "test", "origin": "o"}
    with caplog.at_level(logging.INFO):
        read(tmp_path, row, row)
    assert caplog.text.count("not read, as if they were not there: system, split") == 1
    assert caplog.text.count("kept and not read: origin") == 1


def test_tables_have_texts_for_labels_and_numbers(tmp_path):
    (tmp_path / "rows.csv").write_text("prompt;response;is_safe;weight\nq;r;False;0.5\nq;s;true;\n")
    rows = load_detector_rows([MixturePart(str(tmp_path / "rows.csv"))])
    assert [(row.response, row.harmful, row.weight) for row in rows] == [("r", True, 0.5), ("s", False, 1.0)]
    columns = list(SAFE_RLHF)
    cells = ",".join(str(value) for value in SAFE_RLHF.values())
    (tmp_path / "pairs.csv").write_text(f"{','.join(columns)}\n{cells}\n")
    assert short(load_detector_rows([MixturePart(str(tmp_path / "pairs.csv"))])) == short(read(tmp_path, SAFE_RLHF))
