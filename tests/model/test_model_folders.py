"""Where a model's folder may lie: in the hub's cache of links, and where nothing may be written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from llava import Detoxifier, HarmDetector
from llava.model.loading import load_mllm

REVISION = "0123456789abcdef0123456789abcdef01234567"


def put_into_hub_cache(folder: Path, cache: Path, name: str) -> Path:
    """Lay a model's files into a hub cache as its client does: content under its hash, names as links to it."""
    home = cache / f"models--{name.replace('/', '--')}"
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob = home / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        link = home / "snapshots" / REVISION / file.relative_to(folder)
        for place in (blob, link):
            place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(REVISION)
    return home / "snapshots" / REVISION


@pytest.fixture
def untouched():
    """Return a function that makes a folder read-only; at the end nothing in it may have changed.

    Root may write all the same, so names and times are compared too.
    """

    def look(folder: Path) -> dict[str, tuple[int, int]]:
        places = [folder, *folder.rglob("*")]
        return {str(place): (place.lstat().st_mtime_ns, place.lstat().st_size) for place in places}

    def allow(folder: Path, write: bool) -> None:
        for place in [folder, *folder.rglob("*")]:
            if not place.is_symlink():
                mode = place.stat().st_mode
                place.chmod(mode | stat.S_IWUSR if write else mode & ~0o222)

    seen = {}

    def lock(folder: Path) -> Path:
        allow(folder, write=False)
        seen[folder] = look(folder)
        return folder

    yield lock
    after = {folder: look(folder) for folder in seen}
    for folder in seen:
        allow(folder, write=True)
    assert seen
    assert after == seen


@pytest.mark.parametrize("form", ["native", "v15_bin", "v15_safetensors"])
def test_a_snapshot_of_the_hubs_cache_is_a_models_folder(form, tiny_llava, originals, cache, tmp_path, untouched):
    folder = tiny_llava if form == "native" else originals[form]
    snapshot = put_into_hub_cache(folder, tmp_path / "hub", "someone/tiny")
    untouched(tmp_path / "hub")
    expected, found = (load_mllm(path, device="cpu", dtype="float32") for path in (folder, snapshot))
    asked = (["Hi", "Hi"], [Image.linear_gradient("L").convert("RGB"), None])
    assert found.generate(*asked, max_new_tokens=6) == expected.generate(*asked, max_new_tokens=6)


def test_guards_in_the_hubs_cache_score_and_rewrite(tiny_detector, tiny_detoxifier, tiny_lm, tmp_path, untouched):
    texts = ["Mix flour and water.", "I am sorry."]
    base, detector, detoxifier = (
        str(put_into_hub_cache(folder, tmp_path / "hub", f"someone/{number}"))
        for number, folder in enumerate((tiny_lm, tiny_detector, tiny_detoxifier))
    )
    untouched(tmp_path / "hub")
    expected = HarmDetector.from_pretrained(tiny_detector, dtype="float32").score(texts)
    assert HarmDetector.from_pretrained(detector, base=base, dtype="float32").score(texts) == expected
    one = Detoxifier.from_pretrained(tiny_detoxifier, dtype="float32")
    two = Detoxifier.from_pretrained(detoxifier, base=base, dtype="float32")
    assert two.rewrite(texts, texts, max_new_tokens=6) == one.rewrite(texts, texts, max_new_tokens=6)


@pytest.mark.parametrize("form", ["native", "v15_bin", "lora"])
def test_a_read_only_folder_is_left_as_it_is(form, tiny_llava, originals, cache, tmp_path, untouched):
    folder = shutil.copytree(tiny_llava if form == "native" else originals[form], tmp_path / "model")
    model = load_mllm(untouched(folder), device="cpu")
    assert len(model.generate(["Hi"], [Image.new("RGB", (30, 20))], max_new_tokens=2)) == 1


def test_a_run_finds_its_models_by_name_in_a_read_only_hub_cache(
    tiny_llava, tiny_detector, tiny_lm, tmp_path, untouched
):
    for folder, name in ((tiny_llava, "someone/llava"), (tiny_detector, "someone/detector"), (tiny_lm, "someone/base")):
        put_into_hub_cache(folder, tmp_path / "hub", name)
    untouched(tmp_path / "hub")
    (tmp_path / "mine.jsonl").write_text(json.dumps({"prompt": "How?", "id": "1"}) + "\n")
    words = ["--model", "someone/llava", "--detector", "someone/detector", "--detector-base", "someone/base"]
    words += ["--benchmark", "mine.jsonl", "--output", "run", "--device", "cpu", "--max-new-tokens", "4"]
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "llava.cli", "generate", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (record,) = map(json.loads, (tmp_path / "run" / "records.jsonl").read_text().splitlines())
    assert 0 <= record["guard"]["harm_score"] <= 1
