import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from llava.cli.app import main
from tests.model.chat_server import ChatServer


def run(capsys, *arguments):
    """Run a command in this process; return exit code, stdout and stderr."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def assert_one_line_error(code, err, *words):
    assert code == 2
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for word in words:
        assert str(word) in lines[0]


@pytest.fixture
def responses(tmp_path):
    path = tmp_path / "in.jsonl"
    rows = [
        {"prompt": "How do I bake bread?", "response": "Mix flour and water.", "id": 1},
        {"response": "I cannot help with that.", "extra": {"kept": True}},
        {"prompt": "Why?", "response": ""},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_detect_adds_score_and_flag_to_the_same_rows(capsys, tmp_path, responses, tiny_detector):
    output = tmp_path / "deep" / "out.jsonl"
    code, out, _ = run(capsys, "detect", "--detector", tiny_detector, "--input", responses, "--output", output)
    assert code == 0
    before, after = read(responses), read(output)
    assert [{k: v for k, v in row.items() if k not in ("harm_score", "flagged")} for row in after] == before
    assert all(0 < row["harm_score"] < 1 for row in after[:2])
    assert all(row["flagged"] == (row["harm_score"] >= 0.5) for row in after[:2])
    assert (after[2]["harm_score"], after[2]["flagged"]) == (None, True)
    assert str(output) in out


def test_half_a_surrogate_pair_takes_no_row_away(capsys, tmp_path, tiny_detector):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        r'{"prompt": "Why?", "response": "Because."}',
        r'{"prompt": "Why?", "response": "Nice \ud83d day"}',
        r'{"prompt": "\ude00 Why?", "response": "Mix flour."}',
        r'{"prompt": "Why?", "response": "Nice \ufffd day"}',
    ]
    source.write_text("\n".join(lines) + "\n")
    code, out, err = run(capsys, "detect", "--detector", tiny_detector, "--input", source, "--output", output)
    assert code == 0, err
    assert "of 4 responses" in out
    rows = read(output)
    assert [row["response"] for row in rows] == ["Because.", "Nice \ufffd day", "Mix flour.", "Nice \ufffd day"]
    assert all(0 < row["harm_score"] < 1 for row in rows)
    # The half is read as the character that stands for what cannot be shown.
    assert rows[1]["harm_score"] == pytest.approx(rows[3]["harm_score"], abs=1e-6)


def test_threshold_decides_the_flag(capsys, tmp_path, responses, tiny_detector):
    for threshold, flagged in (("1.0", False), ("0.000001", True)):
        output = tmp_path / f"{threshold}.jsonl"
        arguments = ("--detector", tiny_detector, "--input", responses, "--output", output, "--threshold", threshold)
        assert run(capsys, "detect", *arguments)[0] == 0
        assert [row["flagged"] for row in read(output)[:2]] == [flagged, flagged]


def test_detoxify_rewrites_all_but_rows_found_harmless(capsys, tmp_path, tiny_detoxifier):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"prompt": "Why?", "response": "Because.", "flagged": True},
        {"prompt": "Why?", "response": "Because.", "flagged": False},
        {"prompt": "Why?", "response": "Because."},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--detoxifier", tiny_detoxifier, "--input", source, "--output", output, "--max-new-tokens", 8)
    assert run(capsys, "detoxify", *arguments)[0] == 0
    first, second, third = read(output)
    assert second["detoxified"] == "Because."
    assert first["detoxified"] == third["detoxified"] != "Because."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"response": "x"}\n{"respons', ["line 2", "JSON"]),
        ('{"reply": "x"}\n', ["line 1", "response"]),
        ('{"response": 3}\n', ["line 1", "response"]),
        ('{"response": "x", "prompt": 4}\n', ["line 1", "prompt"]),
        ("[1]\n", ["line 1", "object"]),
        ("", ["no rows"]),
        (b"\xff\xfe", ["UTF-8"]),
    ],
)
def test_bad_input_file_is_one_line_and_nothing_is_written(capsys, tmp_path, tiny_detector, content, words):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, err = run(capsys, "detect", "--detector", tiny_detector, "--input", source, "--output", output)
    assert_one_line_error(code, err, source, *words)
    assert not output.exists()


def test_missing_things_are_one_line(capsys, tmp_path, responses, tiny_detector, tiny_detoxifier):
    output = tmp_path / "out.jsonl"
    rest = ("--input", responses, "--output", output)
    gone = tmp_path / "gone"
    assert_one_line_error(*run(capsys, "detect", "--detector", gone, *rest)[::2], gone, "does not exist")
    assert_one_line_error(*run(capsys, "detect", "--detector", tiny_detoxifier, *rest)[::2], "not a detector")
    assert_one_line_error(
        *run(capsys, "detect", "--detector", tiny_detector, "--input", gone, "--output", output)[::2], gone
    )
    assert_one_line_error(
        *run(capsys, "detect", "--detector", tiny_detector, "--input", responses, "--output", tmp_path)[::2], "folder"
    )
    assert_one_line_error(
        *run(capsys, "detect", "--detector", tiny_detector, *rest, "--threshold", 2)[::2], "threshold"
    )
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nonsense"], "nonsense"),
        (["detect", "--input", "x"], "--output"),
        (["detect", "--frobnicate"], "--frobnicate"),
        (["generate", "--model", "m", "--output", "o", "--num-processes", "two"], "--num-processes"),
        (["generate", "--model", "m", "--output", "o", "--num-processes", "0"], "--num-processes"),
        (["generate", "--model", "m", "--output", "o", "--temperature", "-1"], "--temperature"),
        (["generate", "--model", "m", "--output", "o", "--batch-size", "none"], "--batch-size"),
        (["score", "no-such-run"], "no-such-run"),
        (["report", "no-such-run"], "no-such-run"),
    ],
)
def test_bad_usage_is_one_line(capsys, arguments, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments)
    assert_one_line_error(code, err, word)
    assert list(tmp_path.iterdir()) == []


def test_config_file_gives_defaults_and_flags_win(capsys, tmp_path, responses, tiny_detector):
    output, config = tmp_path / "out.jsonl", tmp_path / "detect.yaml"
    config.write_text(f"detector: {tiny_detector}\nthreshold: 0.000001\nbatch-size: 1\n")
    rest = ("--config", config, "--input", responses, "--output", output)
    assert run(capsys, "detect", *rest)[0] == 0
    assert [row["flagged"] for row in read(output)] == [True, True, True]
    assert run(capsys, "detect", *rest, "--threshold", "1.0")[0] == 0
    assert [row["flagged"] for row in read(output)] == [False, False, True]


@pytest.mark.parametrize(
    ("content", "word"),
    [("tresh: 1\n", "tresh"), ("- a\n", "option: value"), ("a: [\n", "YAML"), (None, "does not exist")],
)
def test_bad_config_file(capsys, tmp_path, content, word):
    config = tmp_path / "c.yaml"
    if content is not None:
        config.write_text(content)
    code, _, err = run(capsys, "detect", "--config", config, "--input", "x", "--output", "y")
    assert_one_line_error(code, err, config, word)


def test_help_is_quick_and_does_not_import_torch():
    script = (
        "import sys, llava.cli.app\n"
        "code = llava.cli.app.main(['--help'])\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("generate", "score", "report", "detect", "detoxify", "merge", "quickstart", "doctor"):
        assert command in done.stdout
    assert time.monotonic() - started < 30  # a hang, not a timing: the import check above is what keeps it quick


def test_version(capsys):
    from llava import __version__

    assert run(capsys, "--version") == (0, f"mllm-protector {__version__}\n", "")


def test_every_command_has_help(capsys):
    for command in ("generate", "score", "report", "detect", "detoxify", "merge", "quickstart", "doctor"):
        code, out, _ = run(capsys, command, "--help")
        assert code == 0
        assert "Usage" in out


@pytest.mark.parametrize("slow", [True, False])
def test_interrupted_by_the_user(tmp_path, slow):
    """One line and no waiting, also while a server owes answers."""
    release = threading.Event()

    def answer(request):
        if slow or request["messages"][0]["content"].startswith("last"):
            release.wait(400)
        return "fine"

    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from llava.cli.app import main; sys.exit(main(sys.argv[1:]))"
    )
    rows = [{"prompt": f"{'last' if place == 5 else 'question'} {place}"} for place in range(6)]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = ["--benchmark", str(tmp_path / "asked.jsonl"), "--output", str(tmp_path / "run")]
    with ChatServer(answer) as server:
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", program, "generate", "--model", "tiny", "--endpoint", server.url, *places],
                stderr=subprocess.PIPE,
                text=True,
            )
            assert wait_until(lambda: len(server.requests) == 6)
            assert slow or wait_until(lambda: sum(1 for _ in open_shards(tmp_path / "run")) == 5)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
        finally:
            release.set()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted; run the same command again to go on"
    assert "Traceback" not in err


def open_shards(folder):
    """Yield the lines of a run's shards."""
    for path in folder.glob("shards/*.jsonl"):
        yield from path.read_text().splitlines()


def wait_until(holds, seconds=180):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()
