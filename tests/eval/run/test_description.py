"""What `run.json` may hold."""

from __future__ import annotations

import copy
import json

import pytest

from llava.errors import InputError
from llava.eval.run.description import parse_description
from llava.eval.run.fingerprint import read_run
from tests.eval.build import build_mixed_run

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
    holder = run
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    with pytest.raises(InputError) as caught:
        parse_description(run, "run file run.json")
    assert str(caught.value).startswith("run file run.json")
    assert message in str(caught.value)
