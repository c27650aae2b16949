"""The pages and the API reference: they build without network, and fetch nothing when they are read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    # Whatever would be fetched ends at a port where nobody listens.
    dead = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, **dead},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_every_module_stands_in_the_reference(site):
    text = "".join(path.read_text(encoding="utf-8") for path in site.glob("api/*.html"))
    for path in ROOT.glob("llava/**/*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert f"<code>{name}</code>" in text
    assert 'id="llava.protector.protector.Protector.guard"' in text


@pytest.mark.slow
def test_examples_are_code(site):
    page = (site / "api" / "llava-protector.html").read_text(encoding="utf-8")
    assert "&gt;&gt;&gt;" in page
    assert "<blockquote>" not in page


@pytest.mark.slow
def test_a_page_fetches_nothing(site):
    fetched = re.compile(r"<(?:script|img|iframe|link)[^>]*?(?:src|href)=[\"']?(https?://[^\"' >]+)")
    for path in site.rglob("*.html"):
        # What a link of the kind `canonical` names is not loaded.
        found = [url for url in fetched.findall(path.read_text(encoding="utf-8")) if "canonical" not in url]
        assert found == [], path
