import pytest

from llava import Detoxifier, HarmDetector
from tests.protector.streaming.detectors import teach


@pytest.fixture(scope="session")
def detector(tiny_detector):
    """A tiny detector with random weights."""
    return HarmDetector.from_pretrained(tiny_detector, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def taught(detector):
    """A tiny detector that tells HARMFUL from HARMLESS."""
    return teach(detector)


@pytest.fixture(scope="session")
def detoxifier(tiny_detoxifier):
    return Detoxifier.from_pretrained(tiny_detoxifier, device="cpu", dtype="float32")
