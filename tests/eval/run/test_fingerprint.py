"""Records of two different runs never mix, and the message says what changed."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from llava.data.schema import ImageType, Question
from llava.errors import InputError
from llava.eval.run.fingerprint import (
    build_fingerprint,
    check_same_run,
    parse_description,
    read_run,
    resolve_sharing,
    resolve_stored,
    resolve_trim,
)
from llava.eval.run.settings import GenerationSettings
from llava.model.identity import identify_checkpoint
from tests.eval.build import build_mixed_run

QUESTIONS = [Question("b", "A", str(i), ImageType.TEXT, f"prompt {i}") for i in range(3)]


def fingerprint(settings=None, questions=QUESTIONS, model="org/model", **resolved):
    checkpoints = {"model": identify_checkpoint(str(model), str(model)), "detector": None, "detoxifier": None}
    values = {"batch_size": 8, "device_type": "cpu", "dtype": "float32", "checkpoints": checkpoints, **resolved}
    return build_fingerprint(settings or GenerationSettings("m", "o"), questions, **values)


def test_the_same_run_passes_also_after_a_round_trip_through_json(tmp_path):
    check_same_run(tmp_path, json.loads(json.dumps(fingerprint())), fingerprint())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.5}, "temperature 0.0 → 0.5; seed none → 0"),
        ({"max_new_tokens": 7}, "max_new_tokens 256 → 7"),
        ({"limit": 7}, "limit none → 7"),
        ({"scenarios": ("A", "B")}, "scenarios none → A,B"),
        ({"detector": "d", "share_backbone": False, "threshold": 0.25}, "threshold none → 0.25"),
        ({"detector": "d"}, "share_backbone none → True"),
        ({"load_in_4bit": True}, "quantisation none → 4bit"),
    ],
)
def test_a_changed_setting_is_named_old_value_first(tmp_path, changes, message):
    with pytest.raises(InputError) as caught:
        check_same_run(tmp_path, fingerprint(), fingerprint(GenerationSettings("m", "o", **changes)))
    assert f"({message});" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"num_processes": 3}, {"threads": 4}, {"seed": 5}, {"data_root": "/elsewhere"}, {"output": "other"}]
)
def test_what_cannot_change_a_greedy_record_is_not_part_of_it(changes):
    assert fingerprint(replace(GenerationSettings("m", "o"), **changes)) == fingerprint()


def test_the_seed_counts_as_soon_as_there_is_sampling():
    warm = GenerationSettings("m", "o", temperature=1.0)
    assert fingerprint(warm) != fingerprint(replace(warm, seed=5))


def test_changed_questions_and_resolved_values_are_named(tmp_path):
    with pytest.raises(InputError, match=r"questions 3 \(.{8}\) → 2 \(.{8}\)"):
        check_same_run(tmp_path, fingerprint(), fingerprint(questions=QUESTIONS[:2]))
    with pytest.raises(InputError, match="batch_size 8 → 4; device cpu → cuda"):
        check_same_run(tmp_path, fingerprint(), fingerprint(batch_size=4, device_type="cuda"))


def test_a_checkpoint_counts_by_content_and_not_by_place(tmp_path):
    for name in ("a", "moved", "retrained"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}" if name != "retrained" else "{ }")
    first = fingerprint(model=tmp_path / "a")
    check_same_run(tmp_path, first, fingerprint(model=tmp_path / "moved"))
    with pytest.raises(InputError, match=r"model \S+/a \(.{8}\) → \S+/retrained \(.{8}\)"):
        check_same_run(tmp_path, first, fingerprint(model=tmp_path / "retrained"))


def test_what_an_older_version_did_not_store_is_no_difference(tmp_path):
    old = fingerprint()
    for name in ("base", "vision_tower"):
        del old[name]
    check_same_run(tmp_path, old, fingerprint())
    with pytest.raises(InputError, match="base none → b"):
        check_same_run(tmp_path, old, fingerprint(GenerationSettings("m", "o", base="b")))


def test_auto_keeps_what_it_stood_for_in_the_first_launch():
    run = {"fingerprint": fingerprint(batch_size=3)}
    assert resolve_stored(GenerationSettings("m", "o"), run, "batch_size") == 3
    assert resolve_stored(GenerationSettings("m", "o", batch_size=5), run, "batch_size") is None
    assert resolve_stored(GenerationSettings("m", "o"), None, "batch_size") is None


def test_a_run_goes_on_trimming_or_not_as_it_began(tmp_path):
    plain = GenerationSettings("m", "o", detector="d")
    trimming = replace(plain, trim=True)
    old = fingerprint(plain)
    del old["trim"]  # from before there was trimming
    for run, trims in ((None, True), ({"fingerprint": old}, False), ({"fingerprint": fingerprint(trimming)}, True)):
        assert resolve_trim(plain, run) is trims
        assert resolve_trim(replace(plain, trim=not trims), run) is not trims
    check_same_run(tmp_path, old, fingerprint(replace(plain, trim=False)))
    with pytest.raises(InputError, match="trim none → True"):
        check_same_run(tmp_path, old, fingerprint(trimming))
    assert fingerprint(GenerationSettings("m", "o"))["trim"] is None


def test_a_run_goes_on_with_shared_weights_or_not_as_it_began(tmp_path):
    plain = GenerationSettings("m", "o", detector="d")
    packed = replace(plain, load_in_4bit=True)
    old = {"fingerprint": {name: value for name, value in fingerprint(plain).items() if name != "share_backbone"}}
    new = {"fingerprint": fingerprint(plain)}
    assert (resolve_sharing(plain, None), resolve_sharing(plain, old), resolve_sharing(plain, new)) == (
        None,
        False,
        None,
    )
    assert resolve_sharing(replace(plain, share_backbone=True), old) is True
    check_same_run(tmp_path, old["fingerprint"], fingerprint(replace(plain, share_backbone=False)))
    check_same_run(tmp_path, new["fingerprint"], fingerprint(replace(plain, share_backbone=True)))
    with pytest.raises(InputError, match="share_backbone none → True"):
        check_same_run(tmp_path, old["fingerprint"], fingerprint(replace(plain, share_backbone=True)))
    # Quantised weights give other scores: they are shared where it was said, and then until the run is done.
    assert fingerprint(packed)["share_backbone"] is None
    said = fingerprint(replace(packed, share_backbone=True))
    assert said["share_backbone"] is True
    assert resolve_sharing(packed, {"fingerprint": said}) is True
    assert fingerprint(replace(plain, endpoint="http://127.0.0.1:1"))["share_backbone"] is None


def test_an_output_that_is_no_run_is_refused(tmp_path):
    assert read_run(tmp_path / "new") is None
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give a folder"):
        read_run(tmp_path / "file")
    (tmp_path / "records.jsonl").write_text("")
    with pytest.raises(InputError, match=r"holds records but no run\.json"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match="has no 'fingerprint'"):
        read_run(tmp_path)


CHECKPOINT = {"name": "embedded", "path": "/models/d", "digest": None}
RUN = {
    "fingerprint": {
        "model": CHECKPOINT,
        "detector": None,
        "questions": {"count": 3, "sha256": "ab"},
        "batch_size": 8,
        "scenarios": ["A"],
        "temperature": 0.0,
    },
    "settings": {"model": "m", "seed": 0, "threshold": None, "scenarios": None},
    "benchmark": {"name": "sample", "missing_images": ["a.jpg"], "notes": []},
    "threshold": 0.5,
    "launches": [{"id": "a", "seconds": 2.0}, {"id": "b"}],
    "versions": {"torch": "2"},
}


def test_what_generate_writes_passes_as_it_stands(tmp_path):
    assert parse_description(RUN, "run.json") == RUN
    assert parse_description({"fingerprint": {}}, "run.json") == {"fingerprint": {}, "launches": [], "versions": {}}
    assert read_run(build_mixed_run(tmp_path)) == json.loads((tmp_path / "run.json").read_text())


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("fingerprint",), [], "'fingerprint' is a list, not an object"),
        (("fingerprint", "model"), "m", "'fingerprint': 'model' is 'm', not an object"),
        (("fingerprint", "model", "digest"), 5, "'digest' is 5, not a text"),
        (("fingerprint", "questions", "count"), "many", "'count' is 'many', not a whole number"),
        (("fingerprint", "batch_size"), 0, "'batch_size' is 0, not a whole number of at least 1"),
        (("fingerprint", "temperature"), {"a": 1}, "'temperature' is an object, not a plain value"),
        (("settings",), None, "'settings' is null, not an object"),
        (("settings", "scenarios"), [1], "'scenarios' is a list, not a plain value or a list of texts"),
        (("settings", "model"), 5, "'model' is 5, not a text"),
        (("settings", "seed"), True, "'seed' is true, not a whole number"),
        (("benchmark", "notes"), "note", "'notes' is 'note', not a list of texts"),
        (("threshold",), float("nan"), "'threshold' is nan, not a number from 0 to 1"),
        (("launches",), {}, "'launches' is an object, not a list"),
        (("launches", 0), 7, "launch 1 is 7, not an object"),
        (("launches", 0, "seconds"), "long", "launch 1: 'seconds' is 'long', not a number"),
        (("versions", "torch"), None, "'torch' is null, not a text"),
        (("model_notes",), [None], "'model_notes' is a list, not a list of texts"),
        (("device",), 1, "'device' is 1, not a text"),
    ],
)
def test_another_type_is_named_with_its_place(place, value, message):
    run = copy.deepcopy(RUN)
    holder: Any = run
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    with pytest.raises(InputError) as caught:
        parse_description(run, "run file run.json")
    assert str(caught.value).startswith("run file run.json")
    assert message in str(caught.value)


def test_a_checkpoint_without_a_digest_says_so_by_null():
    run = {"fingerprint": {"detector": {"name": "d", "path": "/models/d"}}}
    with pytest.raises(InputError, match="'detector' has no 'digest'"):
        parse_description(run, "run file run.json")
