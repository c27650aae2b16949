"""The cache folder: one builder, whole folders, nothing left after a failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llava.errors import InputError
from llava.model.cache import build_once, cache_dir, folder_fingerprint, write_folder_atomic


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("MLLM_PROTECTOR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "mllm-protector"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "mllm-protector"


def test_a_folder_is_built_once(tmp_path):
    calls = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text("whole")

    target = tmp_path / "cache" / "thing"
    assert build_once(target, build) == build_once(target, build) == target
    assert len(calls) == 1
    assert (target / "file").read_text() == "whole"
    assert sorted(path.name for path in target.parent.iterdir()) in (["thing"], ["thing", "thing.lock"])


def test_a_failed_build_leaves_nothing(tmp_path):
    def build(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        build_once(tmp_path / "thing", build)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    write_folder_atomic(tmp_path / "thing", lambda folder: (folder / "file").write_text("second try"))
    assert (tmp_path / "thing" / "file").exists()


def test_an_unusable_cache_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="MLLM_PROTECTOR_CACHE"):
        build_once(tmp_path / "file" / "thing", lambda folder: None)


def test_the_fingerprint_follows_the_content(tmp_path):
    (tmp_path / "weights").write_bytes(b"1")
    before = folder_fingerprint(tmp_path)
    assert before == folder_fingerprint(tmp_path)
    (tmp_path / "weights").write_bytes(b"12")
    assert folder_fingerprint(tmp_path) != before


def test_two_processes_build_once(tmp_path):
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from llava.model.cache import build_once\n"
        "def build(folder):\n"
        "    time.sleep(0.5)\n"
        "    (folder / 'builder').write_text(str(os.getpid()))\n"
        "print((build_once(Path(sys.argv[1]), build) / 'builder').read_text())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "thing")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate(timeout=60)[0].strip() for process in running}
    assert len(answers) == 1
    assert answers <= {str(process.pid) for process in running}
