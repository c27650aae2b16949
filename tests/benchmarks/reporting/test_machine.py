"""What is read of a machine."""

import torch

from benchmarks.reporting.machine import describe_machine, read_cpu


def test_the_first_core_counts_and_sets_are_in_order():
    info = "processor: 0\nmodel name\t: X\nflags\t: amx_bf16 avx2 sse avx512f\n\nmodel name: Y\nflags: neon\n"
    assert read_cpu(info) == ("X", ("avx2", "avx512f", "amx_bf16"))


def test_arm_has_other_names():
    assert read_cpu("processor: 0\nFeatures\t: fp asimd sve\n") == (None, ("neon", "sve"))


def test_this_machine():
    machine = describe_machine()
    assert machine.cores >= 1
    assert machine.threads == torch.get_num_threads()
    assert str(torch.__version__) in str(machine)
