"""A run against a server: as many requests as asked for, each answer stored at once, refusals told from failures."""

from __future__ import annotations

import json
import threading
import time

import pytest
from PIL import Image

from llava.cli.app import main
from llava.data.schema import Action
from llava.errors import InputError
from llava.eval.report.rendering import render_report
from llava.eval.report.tables import describe_overall, print_summary
from llava.eval.report.view import build_command
from llava.eval.run.launcher import RunError
from llava.eval.run.records import list_shards, load_records, read_rows
from llava.eval.run.runner import run_generation
from llava.eval.run.settings import GenerationSettings
from llava.eval.scoring.scoring import score_run
from llava.model.answering.replies import CUT_SHORT
from tests.model.chat_server import ChatServer, complete


def read_prompt(request: dict) -> str:
    content = request["messages"][0]["content"]
    return content if isinstance(content, str) else content[1]["text"]


def answer(request: dict) -> str:
    return f"answer to {read_prompt(request)}"


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Return the settings of a run of `count` questions; the last `pictures` of them have a picture."""
    monkeypatch.setattr("llava.model.answering.client.MAX_TRIES", 2)

    def settings(server: ChatServer, count: int, pictures: int = 0, **changes) -> GenerationSettings:
        Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
        rows = [{"prompt": f"question {i}", "id": str(i)} for i in range(count)]
        for row in rows[count - pictures :]:
            row["image"] = "red.png"
        (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = {"model": "tiny", "output": tmp_path / "run", "benchmark": str(tmp_path / "mine.jsonl")}
        return GenerationSettings(**{**values, "device": "cpu", "dtype": "float32", **changes}, endpoint=server.url)

    return settings


@pytest.mark.parametrize("lives", [1, 5, 37])
def test_every_answer_of_a_server_that_dies_is_kept_and_none_is_asked_again(build, lives):
    with ChatServer(answer, lives=lives) as server:
        settings = build(server, 45)
        with pytest.raises(RunError, match=f"gave no answer in .*; {lives} of 45 records are kept"):
            run_generation(settings)
        kept = {key.id: row["response"] for key, row in read_rows(settings.output).items()}
        assert len(kept) == lives
        server.lives = None
        server.requests.clear()
        run_generation(settings)
        asked = [read_prompt(request).removeprefix("question ") for request in server.requests]
    assert sorted(asked) == sorted({str(i) for i in range(45)} - set(kept))
    records = load_records(settings.output)
    assert [record.response for record in records] == [f"answer to question {i}" for i in range(45)]


def test_as_many_requests_are_under_way_as_asked_for(build):
    together = threading.Barrier(120)

    def wait_for_all(request: dict) -> str:
        together.wait(300)  # passes only when 120 requests are there at once
        return "yes"

    with ChatServer(wait_for_all) as server:
        run_generation(build(server, 240, concurrency=120))
        assert server.most_running == 120


def test_a_slow_answer_holds_up_neither_the_others_nor_their_records(build):
    gate = threading.Event()

    def hold_one(request: dict) -> str:
        if read_prompt(request) == "question 7":
            assert gate.wait(60)
        return answer(request)

    with ChatServer(hold_one) as server:
        settings = build(server, 80, concurrency=4)
        run = threading.Thread(target=run_generation, args=(settings,))
        run.start()
        deadline = time.monotonic() + 60
        while count_lines(settings.output) < 79:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert run.is_alive()
        gate.set()
        run.join(60)
    assert len(load_records(settings.output)) == 80


def count_lines(folder) -> int:
    return sum(path.read_bytes().count(b"\n") for path in list_shards(folder))


@pytest.mark.parametrize("status", [400, 422])
def test_a_question_that_the_server_turns_down_has_an_empty_response_and_a_reason(build, tiny_classifier, status):
    def refuse(request: dict) -> int | None:
        return status if read_prompt(request) in ("question 0", "question 5") else None

    with ChatServer(answer, refuse=refuse) as server:
        settings = build(server, 12, concurrency=2, detector=str(tiny_classifier), threshold=1.0)
        run_generation(settings)
    records = {record.question.id: record for record in load_records(settings.output)}
    assert [id for id, record in records.items() if not record.response] == ["0", "5"]
    for id in ("0", "5"):
        assert records[id].guard.action is Action.WITHHELD
        assert f"refused the request (status {status}: failure {status})" in records[id].refusal
        assert records[id].guard.reason == "empty response"
    assert records["1"].guard.reason is None
    assert records["1"].refusal is None
    summary = score_run(settings.output)
    assert summary["failures"] == {"refused": 2, "unanswered": 0, "guard": {}}
    assert "turned down by the server, without an answer: 2 questions" in describe_overall(summary)
    notes = json.loads((settings.output / "run.json").read_text())["model_notes"]
    assert any("2 questions were turned down and have an empty response" in note for note in notes)


@pytest.mark.parametrize(("status", "told"), [(400, "a harmless one"), (401, "set OPENAI_API_KEY"), (404, "--model")])
def test_a_server_that_turns_everything_down_ends_the_run_with_a_line(build, capsys, status, told):
    with ChatServer(answer, refuse=lambda request: status) as server:
        settings = build(server, 30)
        command = ["generate", "--model", "tiny", "--endpoint", server.url, "--output", str(settings.output)]
        assert main([*command, "--benchmark", str(settings.benchmark), "--device", "cpu"]) == 2
        assert len(server.requests) <= 16
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert not settings.output.exists()


def test_a_model_that_takes_no_pictures_ends_the_run_instead_of_answering_nothing_to_all(build):
    def refuse(request: dict) -> int | None:
        return None if isinstance(request["messages"][0]["content"], str) else 400

    with ChatServer(answer, refuse=refuse) as server:
        settings = build(server, 6, pictures=3, concurrency=1)
        with pytest.raises(InputError, match="a harmless one with a picture with the same options"):
            run_generation(settings)
        assert len(server.requests) == 2  # the question and the harmless one


def test_a_server_that_hangs_is_given_up_soon(build):
    gate = threading.Event()
    with ChatServer(lambda request: str(gate.wait(300))) as server:
        settings = build(server, 20, concurrency=2, request_timeout=0.3)
        start = time.monotonic()
        with pytest.raises(RunError, match=r"in 2 tries \(none within 0.3 s; see --request-timeout\)"):
            run_generation(settings)
        assert time.monotonic() - start < 60
        gate.set()
    assert not settings.output.exists()


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_time_limit_is_a_positive_number(seconds):
    with pytest.raises(InputError, match="--request-timeout"):
        GenerationSettings("m", "o", request_timeout=seconds)


def test_an_earlier_time_limit_does_not_bind_a_resume(build):
    with ChatServer(answer, lives=3) as server:
        with pytest.raises(RunError):
            run_generation(build(server, 9))
        server.lives = None
        run_generation(build(server, 9, request_timeout=5, concurrency=2))


def test_an_answer_that_never_came_is_unscored_and_no_refusal(build, tiny_classifier):
    def cut_some(request: dict) -> dict | str:
        if read_prompt(request) in ("question 0", "question 5"):
            return complete(None, "length", reasoning_content="Let me think")
        return complete(None, reasoning="Hm") if read_prompt(request) == "question 7" else answer(request)

    with ChatServer(cut_some) as server:
        settings = build(server, 12, concurrency=2, detector=str(tiny_classifier), threshold=1.0)
        run_generation(settings)
    records = {record.question.id: record for record in load_records(settings.output)}
    assert [id for id, record in records.items() if record.unanswered] == ["0", "5", "7"]
    assert records["0"].unanswered == CUT_SHORT
    assert records["0"].response == ""
    assert records["0"].guard.action is Action.WITHHELD
    assert records["1"].unanswered is None
    notes = json.loads((settings.output / "run.json").read_text())["model_notes"]
    told = "2 answers were cut before the model said anything; raise --max-new-tokens (first mine/all/0/TEXT)"
    assert any(told in note for note in notes)
    for judge in ("keyword", f"detector:{tiny_classifier}"):
        summary = score_run(settings.output, [judge])
        for side in ("unprotected", "protected"):
            found = summary["overall"][side]
            assert (found["n"], found["unscored"], found["refusal_rate"]) == (9, 3, 0.0)
        assert sum(summary["overall"]["protector"]["actions"].values()) == 9
        assert summary["failures"]["unanswered"] == 3
        assert (
            "2 of 12 answers were cut before the model said anything; raise --max-new-tokens; they are unscored"
            in (summary["warnings"])
        )
    render_report(settings.output)


def test_a_run_without_any_answer_has_no_safety_score(build, tiny_classifier):
    with ChatServer(lambda request: complete(None, "length", reasoning_content="Hm")) as server:
        settings = build(server, 4, detector=str(tiny_classifier))
        run_generation(settings)
    summary = score_run(settings.output)
    for side in ("unprotected", "protected"):
        assert summary["overall"][side]["attack_success_rate"] is None
        assert summary["overall"][side]["refusal_rate"] is None
        assert summary["overall"][side]["unscored"] == 4
    render_report(settings.output)
    print_summary(summary)


def test_the_words_of_a_refusal_are_in_the_record(build):
    with ChatServer(lambda request: complete(None, refusal="I'm sorry, but no.")) as server:
        settings = build(server, 2)
        run_generation(settings)
    for record in load_records(settings.output):
        assert (record.response, record.refusal, record.unanswered) == ("", "I'm sorry, but no.", None)
    assert score_run(settings.output)["overall"]["unprotected"]["attack_success_rate"] == 0.0


def test_answers_in_parts_are_text(build):
    parts = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "Sure, "},
        {"type": "text", "text": "yes."},
    ]
    with ChatServer(lambda request: complete(parts)) as server:
        settings = build(server, 2)
        run_generation(settings)
    assert [record.response for record in load_records(settings.output)] == ["Sure, yes."] * 2


def test_a_server_that_leaves_a_parameter_out_is_noted(build):
    def refuse(request: dict) -> tuple | None:
        words = "Unsupported value: 'temperature' does not support 0"
        return (400, {}, {"error": {"message": words}}) if "temperature" in request else None

    with ChatServer(answer, refuse=refuse) as server:
        settings = build(server, 3)
        run_generation(settings)
    notes = json.loads((settings.output / "run.json").read_text())["model_notes"]
    assert sum("takes no temperature; it was left out" in note for note in notes) == 1


def test_a_password_in_the_address_is_stored_and_printed_nowhere(build, capsys):
    with ChatServer(answer, lives=2) as server:
        settings = build(server, 5)
        address = f"{server.url.replace('://', '://me:passw0rd@')}?api_key=passw0rd&api-version=2"
        command = ["generate", "--model", "tiny", "--endpoint", address, "--output", str(settings.output)]
        command += ["--benchmark", str(settings.benchmark), "--device", "cpu"]
        assert main(command) == 1
        server.lives = None
        assert main(command) == 0
    for arguments in (["score", str(settings.output)], ["report", str(settings.output)]):
        assert main(arguments) == 0
    kept = [path for path in settings.output.rglob("*") if path.is_file()]
    assert {"run.json", "summary.json", "report.html", "report.md"} <= {path.name for path in kept}
    assert not any(b"passw0rd" in path.read_bytes() for path in kept)
    out, err = capsys.readouterr()
    assert "passw0rd" not in out + err
    stored = json.loads((settings.output / "run.json").read_text())["settings"]["endpoint"]
    assert stored == f"{server.url}?api_key=***&api-version=2"
    assert all(path.endswith("?api_key=passw0rd&api-version=2") for path in server.paths)


@pytest.mark.parametrize("address", ["http://[::1", "http://a:b:c/v1", "http://127.0.0.1:notaport/v1"])
def test_an_address_that_is_none_ends_the_command_with_a_line(tmp_path, capsys, address):
    command = ["generate", "--model", "tiny", "--endpoint", address, "--output", str(tmp_path / "run")]
    assert main([*command, "--benchmark", "sample", "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: endpoint {address} is no address")


def test_an_old_run_gives_away_no_password_either():
    run = {"settings": {"model": "m", "benchmark": "b", "endpoint": "http://me:passw0rd@h/v1"}, "fingerprint": {}}
    assert "http://h/v1" in build_command(run)
    assert "passw0rd" not in build_command(run)
