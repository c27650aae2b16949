"""A chat model as judge: what it is asked, and how its reply is read."""

from __future__ import annotations

import threading

import pytest

from llava.data.benchmarks.mm_safetybench import Scenario
from llava.data.schema import Verdict
from llava.errors import InputError
from llava.eval.judges.chat import ADVICE_TEMPLATE, HARM_TEMPLATE, ChatJudge
from llava.eval.judges.registry import build_judge, name_file
from llava.eval.scoring.scoring import estimate_judging, score_run
from llava.eval.scoring.verdicts import judge_records, list_questions, read_verdicts
from llava.model.answering.client import ChatClient
from tests.eval.build import ANSWER, REFUSED, build_mixed_run, build_record, build_run
from tests.model.chat_server import ChatServer, complete


def grade(request: dict) -> str:
    """Grade as a careful model would: weigh both words, then decide."""
    question = request["messages"][0]["content"]
    answer = question.partition("<answer>")[2].partition("</answer>")[0]
    if "odd" in answer:
        return "I would rather not say."
    return "It could be safe, but it helps: UNSAFE." if "mix flour" in answer else "Not unsafe at all.\n\nsafe"


def test_the_last_word_of_the_reply_counts_and_none_is_unscored():
    with ChatServer(grade) as server:
        judge = build_judge(f"chat:tiny@{server.url}")
        verdicts = judge.judge(["q"] * 3, [ANSWER, REFUSED, "odd"])
    assert verdicts == [Verdict("chat:tiny", True), Verdict("chat:tiny", False), Verdict("chat:tiny", None)]
    assert all(request["temperature"] == 0 for request in server.requests)


def test_braces_in_texts_stay_as_they_are():
    with ChatServer(grade) as server:
        build_judge(f"chat:tiny@{server.url}").judge(["{text} {0}"], ["{prompt} {}"])
    content = server.requests[0]["messages"][0]["content"]
    assert "<question>\n{text} {0}\n</question>" in content
    assert "<answer>\n{prompt} {}\n</answer>" in content


def test_template_and_pattern_are_arguments():
    with ChatServer(lambda request: "score: 5") as server:
        client = ChatClient(server.url, "tiny")
        judge = ChatJudge(client, template="{prompt}|{text}", pattern=r"score: (5)?")
        assert judge.judge(["q"], ["t"]) == [Verdict("chat:tiny", True)]
        assert server.requests[0]["messages"][0]["content"] == "q|t"
        assert judge.identity != ChatJudge(client).identity
        assert ChatJudge(client, advice_template="{text}").identity != ChatJudge(client).identity


def test_each_of_the_13_scenarios_is_asked_by_its_own_template(tmp_path):
    records = [build_record(i, scenario=scenario.value, guarded=False) for i, scenario in enumerate(Scenario)]
    with ChatServer(grade) as server:
        judge_records(tmp_path, records, build_judge(f"chat:tiny@{server.url}"))
    sent = {request["messages"][0]["content"] for request in server.requests}
    expected = {
        (ADVICE_TEMPLATE if record.question.scenario[:2] in ("08", "10", "11", "12", "13") else HARM_TEMPLATE).format(
            prompt=record.question.prompt, text=ANSWER
        )
        for record in records
    }
    assert sent == expected
    assert len(sent) == 13


def test_a_text_is_asked_once_for_each_template_and_the_estimate_follows_it(tmp_path):
    scenarios = ["06-Fraud", "07-Sex", "12-Health_Consultation", "13-Gov_Decision"]
    records = [build_record(0, scenario=scenario) for scenario in scenarios]
    with ChatServer(grade) as server:
        judge = ChatJudge(ChatClient(server.url, "tiny"), template="{text}", advice_template="longer {text}")
        asked = list_questions(tmp_path, records, judge)
        assert judge.estimate(asked).tokens_in == round((2 * len(ANSWER) + len("longer ")) / 4)
        rows = judge_records(tmp_path, records, judge)
    sent = sorted(request["messages"][0]["content"] for request in server.requests)
    assert sent == [ANSWER, f"longer {ANSWER}"]
    assert [row.unprotected for row in rows] == [row.protected for row in rows]


def build_long_run(folder, count):
    """Write a run of `count` records; every other response was replaced, so it is two texts."""
    shown = [None, "Better bake bread."]
    return build_run(folder, [build_record(i, f"mix flour {i}", shown=shown[i % 2]) for i in range(count)])


@pytest.mark.parametrize("lives", [1, 7, 50])
def test_a_server_that_dies_half_way_loses_no_verdict(tmp_path, monkeypatch, capsys, lives):
    from llava.cli.app import main

    monkeypatch.setattr("llava.model.answering.client.MAX_TRIES", 2)
    run = build_long_run(tmp_path, 40)  # 60 texts
    with ChatServer(grade, lives=lives) as server:
        spec = f"chat:tiny@{server.url}"
        path = run / "verdicts" / name_file(build_judge(spec))
        assert main(["score", str(run), "--judge", spec]) == 1
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "gave no answer in" in errors[0]
        assert not (run / "summary.json").exists()
        assert "verdicts are kept, run the same command again" in errors[0]
        # A record that was not changed is one text, judged once for both sides.
        answered = [
            sum(verdict is not None for verdict in sides) if int(key.id) % 2 else 1
            for (key, _), sides in read_verdicts(path).items()
        ]
        assert sum(answered) == lives
        server.lives = None
        server.requests.clear()
        assert main(["score", str(run), "--judge", spec]) == 0
        assert len(server.requests) == 60 - lives
        server.requests.clear()
        assert main(["score", str(run), "--judge", spec]) == 0
        assert server.requests == []


def test_a_question_that_the_server_turns_down_is_unscored(tmp_path):
    def refuse(request):
        return 400 if "flour 3\n" in request["messages"][0]["content"] else None

    run = build_long_run(tmp_path, 6)
    with ChatServer(grade, refuse=refuse) as server:
        summary = score_run(run, [f"chat:tiny@{server.url}"])
        first = len(server.requests)
        score_run(run, [f"chat:tiny@{server.url}"])
        assert len(server.requests) == first
    assert summary["overall"]["unprotected"]["n"] == 5
    assert summary["overall"]["unprotected"]["unscored"] == 1
    assert summary["overall"]["protected"]["n"] == 6


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_server_that_turns_everything_down_ends_the_scoring_with_a_line(tmp_path, capsys, status):
    from llava.cli.app import main

    run = build_long_run(tmp_path, 20)
    with ChatServer(grade, refuse=lambda request: status) as server:
        spec = f"chat:tiny@{server.url}"
        assert main(["score", str(run), "--judge", spec]) == 2
        assert len(server.requests) <= 16
        assert not (run / "verdicts").exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"status {status}" in line


def test_prices_are_named_before_the_first_request(tmp_path, caplog):
    from llava.cli.app import main

    run = build_mixed_run(tmp_path)
    with ChatServer(grade) as server:
        spec = f"chat:tiny@{server.url}"
        (estimate,) = estimate_judging(run, [spec])
        assert main(["score", str(run), "--judge", spec, "--prices", "2,4"]) == 0
    assert estimate.describe((2.0, 4.0)) in caplog.text


def test_a_chat_judge_that_hangs_is_given_up_after_two_time_outs(tmp_path, monkeypatch, capsys):
    from llava.cli.app import main

    monkeypatch.setattr("llava.eval.judges.chat.CONCURRENCY", 1)
    run = build_run(tmp_path, [build_record(0, guarded=False)])
    gate = threading.Event()
    with ChatServer(lambda request: str(gate.wait(20))) as server:
        spec = f"chat:tiny@{server.url}"
        assert main(["score", str(run), "--judge", spec, "--request-timeout", "0.2"]) == 1
        gate.set()
        assert len(server.requests) == 2
    assert "none within 0.2 s; see --request-timeout" in capsys.readouterr().err


def test_a_run_is_judged_once(tmp_path):
    run = build_mixed_run(tmp_path)
    with ChatServer(grade) as server:
        spec = f"chat:tiny@{server.url}"
        summary = score_run(run, ["keyword", spec])
        asked = len(server.requests)
        assert score_run(run, ["keyword", spec])["judges"] == summary["judges"]
        assert len(server.requests) == asked == len({str(request["messages"]) for request in server.requests})
    assert summary["judges"]["chat:tiny"]["overall"]["unprotected"]["attack_success_rate"] == 6 / 8
    assert summary["judges"]["chat:tiny"]["overall"]["protected"]["attack_success_rate"] == 3 / 8
    assert summary["agreement"][0]["kappa"] is not None


def test_what_a_run_would_ask_is_counted_before_anything_is_sent(tmp_path, caplog, capsys):
    from llava.cli.app import main

    run = build_mixed_run(tmp_path)
    with ChatServer(grade) as server:
        spec = f"chat:tiny@{server.url}"
        (estimate,) = estimate_judging(run, ["keyword", spec])
        assert len(server.requests) == 0
        assert main(["score", str(run), "--judge", spec, "--estimate", "--prices", "2,4"]) == 0
        assert len(server.requests) == 0
        assert not (run / "summary.json").exists()
        score_run(run, ["keyword", spec])
        assert estimate.requests == len(server.requests)
        sent = sum(len(request["messages"][0]["content"]) for request in server.requests)
        assert estimate.tokens_in == round(sent / 4)
        assert estimate.describe() in caplog.text
        assert estimate_judging(run, [spec])[0].requests == 0
    line = capsys.readouterr().out.strip()
    assert line == estimate.describe((2.0, 4.0))
    assert line.endswith(f"at most {(estimate.tokens_in * 2 + estimate.requests * 512 * 4) / 1e6:.2f}")


@pytest.mark.parametrize("prices", ["2", "a,b", "1,2,3"])
def test_prices_are_two_numbers(prices):
    from llava.cli.config import parse_prices

    with pytest.raises(InputError, match="--prices"):
        parse_prices(prices)


def test_the_address_may_come_from_the_environment(monkeypatch):
    with ChatServer(grade) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert build_judge("chat:tiny").client.base_url == server.url
        with pytest.raises(InputError, match="has no model other"):
            build_judge("chat:other")


def test_a_chat_judge_without_model_is_refused():
    with pytest.raises(InputError, match="write chat:MODEL"):
        build_judge("chat")


@pytest.mark.parametrize(
    ("reply", "unsafe"),
    [
        ("The answer is not safe.", True),
        ("I cannot decide between SAFE or UNSAFE", None),
        (complete("... an answer is SAFE if it refuses. It does not refuse. So the verdict", "length"), None),
        (complete("SAFE", "length"), None),
        (complete(None), None),
        (complete(None, refusal="I will not grade this: SAFE."), None),
        (complete([{"type": "thinking", "thinking": "SAFE?"}, {"type": "text", "text": "UNSAFE"}]), True),
        ("<think>It may be SAFE.</think>UNSAFE", True),
        ("<think>It may be SAFE", None),
    ],
)
def test_a_label_is_never_turned_round(reply, unsafe):
    with ChatServer(lambda request: reply) as server:
        assert build_judge(f"chat:tiny@{server.url}").judge(["q"], [ANSWER]) == [Verdict("chat:tiny", unsafe)]


def test_replies_that_were_cut_are_counted(caplog):
    with ChatServer(lambda request: complete("It may be", "length")) as server:
        judge = build_judge(f"chat:tiny@{server.url}")
        assert [verdict.unsafe for verdict in judge.judge(["q"] * 3, ["a", "b", "b"])] == [None] * 3
    (line,) = caplog.messages
    assert "judge chat:tiny: 2 replies were cut at 512 tokens and leave their texts unscored" in line


def test_a_judge_with_an_at_sign_in_its_name():
    with ChatServer(lambda request: "UNSAFE") as server:
        server.models = ["org@tiny"]
        assert build_judge(f"chat:org@tiny@{server.url}").name == "chat:org@tiny"


def test_a_password_in_a_judges_address_is_kept_nowhere(tmp_path, capsys):
    from llava.cli.app import main

    run = build_mixed_run(tmp_path)
    with ChatServer(grade) as server:
        url = server.url.replace("://", "://me:passw0rd@")
        assert build_judge(f"chat:tiny@{url}").identity == build_judge(f"chat:tiny@{server.url}").identity
        assert main(["score", str(run), "--judge", f"chat:tiny@{url}"]) == 0
        assert main(["score", str(run), "--judge", f"chat:tiny@{url}", "--judge", f"chat:tiny@{url}/"]) == 2
    assert main(["score", str(run), "--judge", f"chat:@{url}"]) == 2
    assert main(["score", str(run), "--judge", "chat:tiny@http://me:passw0rd@[::1"]) == 2
    kept = [path for path in run.rglob("*") if path.is_file()]
    assert not any(b"passw0rd" in path.read_bytes() for path in kept)
    out, err = capsys.readouterr()
    assert "passw0rd" not in out + err
