import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

import llava

ELSEWHERE = {"llava.serve.plugs.for_inspect"}
"""Imported by another program alone, in whose environment a test does that (tests/serve/plugs)."""
MODULES = [module.name for module in pkgutil.walk_packages(llava.__path__, "llava.") if module.name not in ELSEWHERE]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_says_what_it_is(name):
    module = import_module(name)
    assert module.__doc__


def test_public_names_are_there():
    for name in llava.__all__:
        assert getattr(llava, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        llava.nonsense  # noqa: B018


def test_import_is_light():
    script = "import sys, llava; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
