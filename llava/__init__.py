"""MLLM-Protector: a harm detector and a detoxifier behind a multimodal LLM, and the evaluation that measures them.

Public names are imported on first use, so that `import llava` stays cheap.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llava.data.schema import GuardResult, Question
    from llava.errors import InputError
    from llava.model.loading import load_mllm
    from llava.protector.detector import HarmDetector
    from llava.protector.detoxifier import Detoxifier
    from llava.protector.guard import build_guard
    from llava.protector.protector import Protector

# On some CPUs bitsandbytes, where it is installed, tells at every start of a kernel that only 4-bit products would use:
# it would stand between the lines of a chat and the JSON lines of a server's log.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"

_HOMES = {
    "load_mllm": "llava.model.loading",
    "HarmDetector": "llava.protector.detector",
    "Detoxifier": "llava.protector.detoxifier",
    "Protector": "llava.protector.protector",
    "build_guard": "llava.protector.guard",
    "GuardResult": "llava.data.schema",
    "Question": "llava.data.schema",
    "InputError": "llava.errors",
}

__all__ = [
    "Detoxifier",
    "GuardResult",
    "HarmDetector",
    "InputError",
    "Protector",
    "Question",
    "build_guard",
    "load_mllm",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'llava' has no attribute '{name}'")
