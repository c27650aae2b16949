"""Files of a run that others have written: mutated, damaged, and what reads them."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.constants import REFUSAL
from llava.data.schema import GuardFailure, ImageType, Record
from llava.eval.report.comparison import compare_runs, render_comparison
from llava.eval.report.rendering import render_report
from llava.eval.report.tables import print_summary
from llava.eval.run.fingerprint import check_same_run, read_run
from llava.eval.run.job import Outcome, load_outcome
from llava.eval.run.records import load_records, merge_records, read_rows
from llava.eval.scoring.scoring import score_run
from llava.eval.scoring.summary import read_summary
from llava.eval.scoring.verdicts import load_verdicts
from llava.files import write_json
from tests.eval.build import build_record, build_run
from tests.fuzz.support import check_parser, damaged, dump, fuzz, list_tree, mutated, some, values, write

FILES = ("records.jsonl", "run.json", "summary.json", "verdicts")
PAGES = {"report.html", "report.md", "table.tex"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A scored run with every kind of record: harmful, benign, changed, failed, in pairs, with an image."""
    records = [
        build_record(0, shown=REFUSAL, harm_score=0.9),
        build_record(1, scenario="10-Legal_Opinion", image_type="SD", image="gone.png"),
        build_record("2-unsafe", pair="2", shown="a safe idea", harm_score=0.7),
        build_record("2-safe", pair="2", harmful=False),
    ]
    folder = build_run(tmp_path_factory.mktemp("valid") / "run", records)
    score_run(folder)
    return folder


@cache
def read_valid(path: Path) -> bytes:
    return path.read_bytes()


def find_file(run: Path, name: str) -> Path:
    """Return a file of the run; the only verdict file for `verdicts`."""
    return next((run / name).iterdir()) if name == "verdicts" else run / name


@pytest.fixture
def place(tmp_path, run) -> Path:
    """A folder with a copy of the run, and something beside it that nobody may touch."""
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "beside.jsonl").write_text('{"mine": 1}\n{"torn": ')
    return tmp_path / "run"


def damage(data: st.DataObject, content: bytes) -> bytes:
    """Draw a copy of a file with some of its values, or some of its bytes, changed."""
    if data.draw(st.booleans()):
        return data.draw(damaged(content))
    text = content.decode()
    rows = [text] if text.startswith("{\n") else text.splitlines()
    number = data.draw(st.integers(0, len(rows) - 1))
    rows[number] = dump(data.draw(mutated(json.loads(rows[number])) | values))
    return ("\n".join(rows) + "\n").encode()


def is_record(records: list[Record]) -> None:
    for record in records:
        assert isinstance(record.response, str)
        assert isinstance(record.question.image_type, ImageType)
        assert all(isinstance(seconds, float) and seconds >= 0 for seconds in record.seconds.values())
        if record.guard:
            assert record.guard.harm_score is None or 0 <= record.guard.harm_score <= 1
            assert isinstance(record.guard.flagged, bool)
            assert record.guard.failure is None or isinstance(record.guard.failure, GuardFailure)
        assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


@fuzz
@given(data=st.data())
def test_a_run_with_one_file_changed_is_refused_in_one_line_or_read_whole(place, run, data):
    name = data.draw(st.sampled_from(FILES))
    target = place / find_file(run, name).relative_to(run)
    target.write_bytes(damage(data, read_valid(find_file(run, name))))
    before = list_tree(place.parent)
    content = target.read_bytes()
    try:
        # What reads another file alone reads what it always does.
        if name == "records.jsonl":
            check_parser(lambda: load_records(place), is_record)
            check_parser(lambda: read_rows(place))
        if name == "run.json":
            check_parser(lambda: read_run(place))
        summary = check_parser(lambda: read_summary(place))
        if name == "summary.json" and summary is not None:
            check_parser(lambda: print_summary(summary))
        if summary is not None:
            check_parser(lambda: load_verdicts(place, summary))
        check_parser(lambda: render_comparison(compare_runs([run, place])))
        assert list_tree(place.parent) == before, "reading changes nothing"
        check_parser(lambda: render_report(place))
        written = {f"run/{page}" for page in PAGES}
        after = list_tree(place.parent)
        assert {path: size for path, size in after.items() if path not in written} == before
        assert target.read_bytes() == content, "a report mends nothing"
    finally:
        target.write_bytes(read_valid(find_file(run, name)))
        for page in PAGES:
            (place / page).unlink(missing_ok=True)


@fuzz
@given(data=st.data())
def test_scoring_writes_nothing_outside_the_run(place, run, data):
    name = data.draw(st.sampled_from(("records.jsonl", "run.json", "verdicts")))
    target = place / find_file(run, name).relative_to(run)
    target.write_bytes(damage(data, read_valid(find_file(run, name))))
    before = list_tree(place.parent)
    scored = None
    try:
        scored = check_parser(lambda: score_run(place, ["keyword"]))
        after = list_tree(place.parent)
        assert scored is not None or after == before, "what is refused writes nothing"
        assert {path for path in before.keys() ^ after.keys() if not path.startswith("run/")} == set()
        assert (place.parent / "beside.jsonl").read_text() == '{"mine": 1}\n{"torn": '
        if scored is not None:
            assert read_summary(place) == json.loads(json.dumps(scored)), "what score writes can be read"
            assert check_parser(lambda: render_report(place)) is not None
    finally:
        if scored is None:
            target.write_bytes(read_valid(find_file(run, name)))
        else:
            shutil.rmtree(place)
            shutil.copytree(run, place)


scenarios = st.lists(
    st.text(max_size=300) | st.sampled_from(["run.json", "../x", "verdicts", ""]), min_size=1, max_size=3
).map(lambda names: [name.encode("utf-8", "replace").decode() for name in names])
"""Names of scenarios, as a file of records can hold them."""


def score_scenarios(parent: Path, names: list[str]) -> Path:
    """Score a run of a record for each name, and assert that each scenario has a file, inside the run."""
    folder = build_run(parent / "run", [build_record(place, scenario=name) for place, name in enumerate(names)])
    assert list(score_run(folder)["by_scenario"]) == list(dict.fromkeys(names))
    assert len(load_records(folder)) == len(names)
    assert len(list(folder.glob("*/merged.json"))) == len(set(names))
    assert [path.name for path in parent.iterdir()] == ["run"]
    return folder


@fuzz
@given(names=scenarios)
def test_any_scenario_is_scored_inside_the_run(tmp_path, names):
    try:
        score_scenarios(tmp_path, names)
    finally:
        shutil.rmtree(tmp_path / "run")


@some
@given(names=scenarios)
def test_any_scenario_stands_in_the_report(tmp_path, names):
    try:
        folder = score_scenarios(tmp_path, names)
        render_report(folder)
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
    finally:
        shutil.rmtree(tmp_path / "run")


@fuzz
@given(data=st.data())
def test_shards(tmp_path, run, data):
    content = read_valid(run / "records.jsonl")
    shard = write(tmp_path, "shards/20250101T000000-abc-0000.jsonl", damage(data, content) + content[:50])
    rows = check_parser(lambda: read_rows(tmp_path))
    if rows is not None:
        is_record([Record.from_dict(row) for row in rows.values()])
        questions = [Record.from_dict(row).question for row in rows.values()]
        assert check_parser(lambda: merge_records(tmp_path, questions)) == []
        if rows:
            assert [record.key for record in load_records(tmp_path)] == list(rows)
    shutil.rmtree(tmp_path / "shards", ignore_errors=True)
    (tmp_path / "records.jsonl").unlink(missing_ok=True)
    assert not shard.exists()


@fuzz
@given(description=mutated({"fingerprint": {"model": {"name": "m", "path": "/m", "digest": "d"}, "limit": 3}}) | values)
def test_another_runs_settings(tmp_path, description):
    write(tmp_path, "run.json", dump(description))
    found = check_parser(lambda: read_run(tmp_path))
    if found is not None:
        check_parser(lambda: check_same_run(tmp_path, found["fingerprint"], {"model": None, "limit": 4}))


@fuzz
@given(data=st.data())
def test_outcomes(tmp_path, data):
    valid = Outcome(0, 3, "error", "failure", ["a note"], 0.5, 1.5)
    path = tmp_path / "outcome-0000.json"
    write_json(path, vars(valid))
    assert load_outcome(path) == valid
    path.write_bytes(damage(data, path.read_bytes()))

    def check(outcome: Outcome) -> None:
        assert outcome.rank >= 0
        assert outcome.records >= 0
        assert outcome.error is None or isinstance(outcome.error, str)
        assert all(isinstance(note, str) for note in outcome.notes)

    check_parser(lambda: load_outcome(path), check)
