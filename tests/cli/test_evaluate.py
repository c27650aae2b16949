"""Generate and score from the command line, with other people's guards in both places."""

from __future__ import annotations

import json
import shutil

import pytest

from llava.cli.app import main
from llava.constants import REFUSAL
from llava.eval.run.environment import ROUNDING, ROUNDING_VARIABLE
from llava.eval.run.records import load_records
from llava.files import write_jsonl
from llava.protector.guards.forms import FORMS
from tests.data.layouts import save_image
from tests.eval.build import build_record, build_run
from tests.model.chat_server import ChatServer
from tests.model.original_checkpoints import write_tower, write_v15
from tests.tiny_adapters import build_detector_adapter, build_detoxifier_adapter
from tests.tiny_guards import SAFE, UNSAFE, name_guard


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Round as a new process would, so that none need be started."""
    monkeypatch.setenv(ROUNDING_VARIABLE, ROUNDING)


@pytest.fixture
def questions(tmp_path):
    write_jsonl(tmp_path / "mine.jsonl", [{"prompt": "How?", "id": str(i)} for i in range(4)])
    return tmp_path / "mine.jsonl"


def generate(server: ChatServer, questions, output, *more) -> int:
    served = ("--model", "tiny", "--endpoint", server.url, "--concurrency", "1", "--benchmark", str(questions))
    return main(["generate", *served, "--output", str(output), "--device", "cpu", "--dtype", "float32", *more])


@pytest.mark.parametrize("form", list(FORMS))
def test_a_guard_model_of_each_family_guards_a_run_and_judges_it(tmp_path, capsys, questions, tiny_guard, form):
    output = tmp_path / "run"
    spec = name_guard(form, tiny_guard(form))
    said = iter([UNSAFE, SAFE, UNSAFE, SAFE])
    with ChatServer(lambda request: next(said)) as server:
        assert generate(server, questions, output, "--detector", spec) == 0, capsys.readouterr().err
    records = load_records(output)
    for record in records:
        harmful = record.response == UNSAFE
        assert record.guard.flagged is harmful
        assert record.guard.text == (REFUSAL if harmful else SAFE)
        assert (record.guard.harm_score > 0.8) is harmful
        assert record.guard.failure is None
    assert main(["score", str(output), "--judge", spec, "--judge", "detector", "--device", "cpu"]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert summary["judge"] == f"guard:{tiny_guard(form)}"
    for side, rate in (("unprotected", 0.5), ("protected", 0.0)):
        assert summary["overall"][side]["attack_success_rate"] == rate
        assert summary["judges"][f"detector:{spec}"]["overall"][side]["attack_success_rate"] == rate
    assert summary["detector"] == spec
    assert sum("flatters the protector" in warning for warning in summary["warnings"]) == 2


def test_the_guard_shares_the_models_language_model(
    tmp_path, capsys, questions, tiny_whole, tiny_llava, tiny_detector, tiny_detoxifier
):
    """Said or not, records are those of a guard with weights of its own, and the run goes on as it began."""
    common = ["generate", "--benchmark", str(questions), "--device", "cpu", "--dtype", "float32", "--threads", "1"]
    common += ["--max-new-tokens", "8", "--detector", str(tiny_detector), "--detoxifier", str(tiny_detoxifier)]
    runs = {}
    for name, flags in (("own", ["--no-share-backbone"]), ("shared", ["--share-backbone"]), ("unsaid", [])):
        command = [*common, "--model", str(tiny_whole), "--output", str(tmp_path / name)]
        assert main([*command, *flags]) == 0, capsys.readouterr().err
        runs[name] = [(record.response, record.guard.text) for record in load_records(tmp_path / name)]
        assert main(command) == 0, capsys.readouterr().err  # whichever it was
    assert runs["own"] == runs["shared"] == runs["unsaid"]
    capsys.readouterr()
    assert main([*command, "--no-share-backbone"]) == 2
    assert "share_backbone True → none" in capsys.readouterr().err
    other = [*common, "--model", str(tiny_llava), "--output", str(tmp_path / "other")]
    assert main([*other, "--share-backbone"]) == 2
    error = capsys.readouterr().err
    assert "differs from it in model" in error
    assert "leave --share-backbone out" in error
    assert main(other) == 0, capsys.readouterr().err


def test_sharing_needs_the_model_in_this_process_and_a_guard(tmp_path, capsys, questions):
    command = ["generate", "--model", "m", "--benchmark", str(questions), "--output", str(tmp_path / "run")]
    served = ["--endpoint", "http://127.0.0.1:9", "--detector", "embedded"]
    for more, message in (
        ([], "does nothing without a detector"),
        (served, "does nothing with --endpoint"),
    ):
        assert main([*command, "--share-backbone", *more]) == 2
        error = capsys.readouterr().err
        assert "--share-backbone" in error
        assert message in error


def test_several_guards_and_a_detoxifier_guard_a_run(
    tmp_path, capsys, questions, tiny_llava, tiny_guard, tiny_detector, tiny_detoxifier, tiny_lm
):
    spec = f"any({tiny_detector}, guard:{tiny_guard('llama_guard')})"
    output = tmp_path / "run"
    command = ["generate", "--model", str(tiny_llava), "--benchmark", str(questions), "--output", str(output)]
    command += ["--detector", spec, "--detoxifier", str(tiny_detoxifier), "--detoxifier-base", str(tiny_lm)]
    command += ["--device", "cpu", "--dtype", "float32", "--max-new-tokens", "6", "--threshold", "0.01"]
    assert main(command) == 0, capsys.readouterr().err
    run = json.loads((output / "run.json").read_text())
    assert run["fingerprint"]["detector"]["name"] == spec
    assert len(run["fingerprint"]["detector"]["members"]) == 2
    assert run["threshold"] == 0.01
    assert all(record.guard.failure is None for record in load_records(output))
    assert main(["score", str(output), "--judge", f"guard:{tiny_guard('llama_guard')}"]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert any("flatters the protector" in warning for warning in summary["warnings"])
    assert main([*command, "--detector", f"all{spec[3:]}"]) == 2
    assert "detector any(" in capsys.readouterr().err


def test_a_judge_whose_path_holds_a_comma_stands_in_quotes(tmp_path, capsys, tiny_classifier):
    folder = tmp_path / "mine, the second"
    folder.symlink_to(tiny_classifier)
    run = build_run(tmp_path / "run", [build_record(number) for number in range(3)])
    command = ["score", str(run), "--device", "cpu", "--judge"]
    for given in (f"'detector:{folder}'", f'keyword,"detector:{folder}"', f"detector:any('{folder}', '{folder}')"):
        assert main([*command, given]) == 0, capsys.readouterr().err
        summary = json.loads((run / "summary.json").read_text())
        assert any(str(folder) in name for name in (summary["judge"], *summary["judges"]))
        assert summary["overall"]["unprotected"]["n"] == 3
    capsys.readouterr()
    for given, told in (
        (f"detector:{folder}", f"write \"'detector:{folder}'\", with both quotes"),
        (f"keyword,detector:{folder}", f"write \"'detector:{folder}'\", with both quotes"),
        (f"detector:any(embedded, {folder})", f"is cut inside {folder}; write '{folder}' there, in quotes"),
    ):
        assert main([*command, given]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ")
        assert told in line


def test_paths_with_spaces_and_letters_of_any_script(tmp_path, capsys, monkeypatch, tiny_lm):
    """From the data to the report: every folder and file has a name that a shell or an old encoding would trip over."""
    place = tmp_path / "Jürgens Ordner" / "模型 и данные"
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(place / "Zwischen speicher"))
    base = shutil.copytree(tiny_lm, place / "база 1")
    # In the original format, so that the model goes through the cache.
    model = write_v15(place / "modèle à tester", write_tower(place / "tour clip é"))
    detector = build_detector_adapter(place / "détecteur", base)
    detoxifier = build_detoxifier_adapter(place / "解毒 剤", base)
    save_image(place / "Bilder & mehr" / "größe #1.png")
    rows = [
        {"prompt": "Wie geht das?", "id": "ä 1"},
        {"prompt": "How?", "id": "2", "image": "Bilder & mehr/größe #1.png"},
    ]
    write_jsonl(place / "fragen ß.jsonl", rows)
    run = place / "Ergebnis 50 % (neu)"
    command = ["generate", "--model", model, "--benchmark", place / "fragen ß.jsonl", "--output", run]
    command += ["--detector", detector, "--detoxifier", detoxifier]
    command += ["--threshold", "0.01", "--device", "cpu", "--dtype", "float32", "--max-new-tokens", "4"]
    for words in (command, ["score", run, "--judge", "keyword"], ["report", run]):
        assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    records = load_records(run)
    assert [record.question.image for record in records] == [None, str(place / "Bilder & mehr" / "größe #1.png")]
    assert all(record.guard.failure is None for record in records)
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["records"] == 2
    assert "modèle à tester on fragen ß</title>" in (run / "report.html").read_text(encoding="utf-8")
    # Nothing was put beside the places that were given.
    assert [path.name for path in tmp_path.iterdir()] == ["Jürgens Ordner"]
    assert len(list(place.iterdir())) == 9
