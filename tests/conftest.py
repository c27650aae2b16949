"""What all tests share: no network, tiny models built once, and the real data where it is there."""

from __future__ import annotations

import functools
import gc
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
# Fixed before torch is used, as a command does. Otherwise every run in a test would need a process of its own for it.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# Many tests start processes; several with as many threads as cores each would mostly wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no defect of the code under test. Every run tries the same inputs, so that no test fails once in a
# while; new ones are drawn by the fuzz set.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=int(os.environ.get("MLLM_PROTECTOR_FUZZ_EXAMPLES", "0")) < 1000,
)
settings.load_profile("patient")

REPOSITORY = Path(__file__).resolve().parent.parent
LOOPBACK = ("127.", "localhost", "::1", "0.0.0.0")


def pytest_collection_modifyitems(items):
    """Count coverage by the fast tests alone: the tracer nearly doubles what the thousands of drawn inputs cost."""
    for item in items:
        if item.get_closest_marker("slow") or item.nodeid.startswith("tests/fuzz/"):
            item.add_marker(pytest.mark.no_cover)


MANY_MODULES = 200
collected = {"modules": 0}


@pytest.fixture(autouse=True)
def libraries_are_not_searched_for_garbage():
    """Take what libraries have built out of the collector's sight: trainers collect often, and torch is large."""
    yield
    if len(sys.modules) > collected["modules"] + MANY_MODULES:
        collected["modules"] = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
            raise OSError(f"tests must not use the network (tried {address})")
        return connect(self, address)

    socket.socket.connect = guarded
    yield
    socket.socket.connect = connect


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("MLLM_PROTECTOR_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data is not here ({folder}); set MLLM_PROTECTOR_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory) -> Path:
    """A tiny causal LM on disk."""
    from tests.tiny import build_causal_lm

    return build_causal_lm(tmp_path_factory.mktemp("tiny-lm"))


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory) -> Path:
    """A tiny one-logit classifier on disk, read as label 1 = safe (no protector_config.json)."""
    from tests.tiny import build_classifier

    return build_classifier(tmp_path_factory.mktemp("tiny-classifier"))


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory) -> Path:
    """A tiny HF-native LLaVA on disk."""
    from tests.tiny import build_llava

    return build_llava(tmp_path_factory.mktemp("tiny-llava"))


@pytest.fixture(scope="session")
def tiny_whole(tmp_path_factory, tiny_lm) -> Path:
    """A tiny HF-native LLaVA on disk whose language model is `tiny_lm`."""
    from tests.tiny import build_llava

    return build_llava(tmp_path_factory.mktemp("tiny-whole"), language_model=tiny_lm)


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory, tiny_lm) -> Path:
    """A tiny detector adapter on disk (label 1 = harmful), for `tiny_lm`."""
    from tests.tiny_adapters import build_detector_adapter

    return build_detector_adapter(tmp_path_factory.mktemp("tiny-detector"), tiny_lm)


@pytest.fixture(scope="session")
def tiny_detoxifier(tmp_path_factory, tiny_lm) -> Path:
    """A tiny detoxifier adapter on disk, for `tiny_lm`."""
    from tests.tiny_adapters import build_detoxifier_adapter

    return build_detoxifier_adapter(tmp_path_factory.mktemp("tiny-detoxifier"), tiny_lm)


@pytest.fixture(scope="session")
def tiny_guard(tmp_path_factory, tiny_lm) -> Callable[[str], Path]:
    """Return a function that gives the folder of a tiny guard model of a family, taught at the first call."""
    from tests.tiny_guards import build_guard_model

    return functools.cache(lambda form: build_guard_model(tmp_path_factory.mktemp(form), tiny_lm, form))
