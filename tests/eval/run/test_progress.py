"""One bar for all processes, and none where nobody looks."""

from __future__ import annotations

import io

from llava.eval.run import progress
from llava.eval.run.progress import LineCounter, show_progress


def test_lines_of_all_shards_of_the_launch_are_counted_once(tmp_path):
    counter = LineCounter(tmp_path, "new")
    assert counter.count_new() == 0
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "old-0000.jsonl").write_text("1\n2\n")
    (shards / "new-0000.jsonl").write_text("1\n2\nhalf")
    (shards / "new-0001.jsonl").write_text("1\n")
    assert counter.count_new() == 3
    assert counter.count_new() == 0
    with (shards / "new-0000.jsonl").open("a") as stream:
        stream.write(" line\n")
    assert counter.count_new() == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_starts_at_what_is_done_and_ends_at_all(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    with show_progress(tmp_path, "new", total=5, done=2):
        (tmp_path / "shards").mkdir()
        (tmp_path / "shards" / "new-0000.jsonl").write_text("1\n2\n3\n")
    assert "2/5" in terminal.getvalue()
    assert "5/5" in terminal.getvalue()


def test_there_is_no_bar_without_a_terminal(tmp_path, capsys):
    with show_progress(tmp_path, "new", total=5, done=0):
        pass
    assert capsys.readouterr().err == ""
