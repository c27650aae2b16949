"""`mllm-protector demo` where it cannot begin; what it shows is tested in tests/serve/web."""

from __future__ import annotations

import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest

from llava.cli.app import main


def test_without_gradio_one_line_says_so():
    """A process in which Gradio is not to be found."""
    program = (
        "import importlib.util, sys\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'gradio' else find(name, *rest)\n"
        "from llava.cli.app import main\nsys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: demo needs gradio, which is not installed; pip install 'mllm-protector[demo]'\n"


@pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed; pip install 'mllm-protector[demo]'")
def test_bad_usage(tiny_llava, tiny_detector, capsys):
    assert main(["demo", "--detector", "none"]) == 2
    assert "there is no guard to talk through" in capsys.readouterr().err
    assert main(["demo", "--port", "99999"]) == 2
    assert "--port 99999 must be" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        options = ["--model", str(tiny_llava), "--detector", str(tiny_detector), "--detoxifier", "none"]
        assert main(["demo", *options, "--dtype", "float32", "--port", port]) == 2
    assert f"cannot listen on --host 127.0.0.1 --port {port}: another program listens there" in capsys.readouterr().err
