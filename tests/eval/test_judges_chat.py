"""A chat model as judge: what it is asked, and how its reply is read."""

from __future__ import annotations

import pytest

from llava.data.schema import Verdict
from llava.errors import InputError
from llava.eval.judges import build_judge
from llava.eval.judges_chat import ChatJudge
from llava.eval.scoring import estimate_judging, score_run
from llava.model.endpoint import ChatClient
from tests.eval.build import ANSWER, REFUSED, build_mixed_run
from tests.model.chat_server import ChatServer


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
    from llava.cli import main

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
    from llava.cli import parse_prices

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
