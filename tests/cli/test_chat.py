"""`mllm-protector chat`: a conversation through a pipe and in a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time

import pytest
from PIL import Image
from rich.console import Console

from llava import Protector, load_mllm
from llava.cli.app import main
from llava.constants import REFUSAL, WITHHELD
from llava.serve.terminal.session import ChatSession
from llava.serve.terminal.speakers import LocalSpeaker, RemoteSpeaker
from tests.serve.chat.live import UpstreamProcess, WordGuard


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    process = UpstreamProcess(tmp_path_factory.mktemp("upstream"))
    yield process
    process.kill()


def talk(speaker, lines, guard=None, **options):
    """Hold a conversation and return what is shown."""
    screen = io.StringIO()
    console = Console(file=screen, width=100, markup=False, highlight=False, emoji=False)
    session = ChatSession(speaker, Protector(guard or WordGuard()), console, **options)
    session.run(iter(lines))
    return screen.getvalue(), session


@pytest.fixture
def echo(upstream):
    return RemoteSpeaker(upstream.url, None, "echo", max_new_tokens=50, temperature=0)


def test_a_harmless_answer_is_shown_and_remembered(echo, upstream):
    shown, _ = talk(echo, ["Bread and\x1b[2J butter.\n", "\n", "And then?"], system="Be short.")
    assert "model> Bread and\\x1b[2J butter.\n[guard: passed, harm score 0.10 is below 0.50]" in shown
    roles = [(message["role"], message["content"]) for message in upstream.log()[-1]["body"]["messages"]]
    said = "Bread and\x1b[2J butter."
    assert roles == [("system", "Be short."), ("user", said), ("assistant", said), ("user", "And then?")]


def test_when_and_why_the_guard_steps_in(echo):
    shown, session = talk(echo, ["poison", "bread " * 120 + "poison"])
    first, second = shown.split("model> ")[1:]
    assert first.startswith(REFUSAL)
    assert "stepped in before the first word, harm score 0.90 is not below 0.50; refused" in " ".join(first.split())
    assert second.startswith("bread bread")
    assert f"\n\n{REFUSAL}\n[guard: stepped in after " in second
    assert "poison" not in shown
    assert "poison" not in session.turns[1].text


def test_the_unguarded_answer_beside_it(echo):
    shown, _ = talk(echo, ["Take the poison."], compare=True)
    assert "guarded" in shown
    assert "unguarded" in shown
    assert "┘\n[guard: stepped in" in shown
    (line,) = [line for line in shown.splitlines() if "poison" in line]
    assert line.strip("│ ").startswith("I'm sorry")


def test_what_goes_wrong_is_one_line_and_the_chat_goes_on(echo, tmp_path):
    lines = [f"/image {tmp_path}/none.png", "/nonsense", "fail", "/image", "/clear", "Bread.", "/quit", "Never."]
    shown, session = talk(echo, lines, WordGuard("exception"))
    assert "none.png does not exist" in shown
    assert "error: /nonsense is no command" in shown
    assert f"model> {WITHHELD}" in shown
    assert "could not be judged: detector failed: RuntimeError" in shown
    assert "/image PATH" in shown
    assert "Never." not in shown
    assert len(session.turns) == 2
    gone = RemoteSpeaker("http://127.0.0.1:9", None, "echo", max_new_tokens=5, temperature=0)
    shown, session = talk(gone, ["Hello."])
    assert "error: the upstream failed" in shown
    assert session.turns == []


def test_an_image_goes_with_the_next_message(echo, upstream, tmp_path, tiny_llava):
    Image.new("RGB", (5, 4), "blue").save(tmp_path / "blue.png")
    shown, _ = talk(echo, [f"/image {tmp_path}/blue.png", "What colour?", "Thanks."])
    assert "blue.png (5 x 4) goes with your next message" in " ".join(shown.split())
    assert shown.count("images are not looked at") == 2
    first, last = upstream.log()[-2:]
    assert first["body"]["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert [type(message["content"]) for message in last["body"]["messages"]] == [list, str, str]
    local = LocalSpeaker(load_mllm(tiny_llava, dtype="float32"), max_new_tokens=8, temperature=0)
    shown, session = talk(local, [f"/image {tmp_path}/blue.png", "What colour?"])
    wanted = local.model.generate(["What colour?"], [Image.new("RGB", (5, 4), "blue")], max_new_tokens=8)
    assert [session.turns[1].text] == wanted


def command(tiny_llava, tiny_detector):
    options = ["--model", str(tiny_llava), "--detector", str(tiny_detector), "--dtype", "float32", "--device", "cpu"]
    return ["chat", *options, "--max-new-tokens", "8"]


def test_through_a_pipe(tiny_llava, tiny_detector, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello?\n"))
    assert main([*command(tiny_llava, tiny_detector), "--threshold", "1e-9"]) == 0
    shown = capsys.readouterr().out
    assert f"model> {REFUSAL}" in shown
    assert "[guard: stepped in before the first word" in shown


def test_bad_usage(tiny_llava, capsys):
    assert main(["chat", "--detector", "none"]) == 2
    assert "there is no guard to talk through" in capsys.readouterr().err


def test_in_a_terminal(tiny_llava, tiny_detector):
    """A real process at a pseudo-terminal: it asks, answers, and ends with the input."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "llava.cli", *command(tiny_llava, tiny_detector), "--threshold", "1.0"]
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, close_fds=True)
    os.close(theirs)
    try:
        read_until(ours, b"you> ")
        os.write(ours, b"Hello?\n")
        shown = read_until(ours, b"you> ")
        assert b"model> " in shown
        assert b"[guard: passed" in shown
        os.write(ours, b"\x04")
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.stderr.close()
        os.close(ours)


def read_until(terminal, mark, seconds=120):
    """Read a terminal up to a mark."""
    shown, end = b"", time.monotonic() + seconds
    while not shown.rstrip(b"\x1b[?2004h").endswith(mark.rstrip()) and mark not in shown:
        assert time.monotonic() < end, shown
        shown += os.read(terminal, 4096)
    return shown
