"""Start-up is measured in real processes; figures of a tiny detector mean nothing, and no time is asserted."""

import argparse

import pytest

from benchmarks import startup


def test_it_measures_commands_imports_and_the_detector(tiny_detector):
    parser = argparse.ArgumentParser()
    startup.add_arguments(parser.add_argument_group("startup"))
    options = parser.parse_args(["--startup-repeats", "1", "--startup-detector", str(tiny_detector)])
    rows = list(startup.measure(options))
    assert [row.name for row in rows] == [
        "`mllm-protector --help` against the 0.5 s that it may take",
        "`mllm-protector --help` against importing torch and transformers",
        "`import llava` against the 0.1 s that it may take",
        "cold start to the detector's first score against transformers and peft",
        "memory of a process with the detector against transformers and peft",
    ]
    assert all(row.lower_is_better and row.ours > 0 for row in rows)
    memory = rows[-1]
    assert memory.unit == "MiB"
    assert memory.ours > 100  # an interpreter with torch holds more


def test_processor_time_leaves_waiting_out():
    waiting = "import time; time.sleep(1.0)"
    assert startup.run_python(waiting).seconds > 1.0
    assert startup.run_python(waiting, clock="processor").seconds < 1.0
    assert startup.time_import("processor") > 0


def test_a_process_that_fails_is_no_figure():
    with pytest.raises(RuntimeError, match="no such thing"):
        startup.run_python("raise ValueError('no such thing')")
