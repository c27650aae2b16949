import os
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


OFFLINE = """
import sys
tried = []

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        tried.append(f"{event} {arguments[1:]}")
        raise OSError("this machine has no network")

sys.addaudithook(refuse)
from importlib import import_module
for word in sys.argv[1:]:
    module, _, name = word.partition(":")
    assert getattr(import_module(module), name or "__name__")
print(tried or "ok")
"""


def import_offline(*words):
    # Libraries swallow what a socket raises, so each attempt is noted too; what keeps them offline here is taken away.
    allowed = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    command = [sys.executable, "-c", OFFLINE, *words]
    done = subprocess.run(command, env=allowed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_import_touches_no_network():
    assert import_offline("llava", *(f"llava:{name}" for name in llava.__all__)) == "ok"


@pytest.mark.slow
def test_no_module_touches_the_network_when_it_is_imported():
    assert import_offline(*MODULES) == "ok"


def test_an_import_that_asks_for_an_address_is_found(tmp_path, monkeypatch):
    (tmp_path / "asking.py").write_text("import socket\ntry: socket.getaddrinfo('localhost', 80)\nexcept OSError: pass")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert "socket.getaddrinfo" in import_offline("asking")
