"""Converting holds a layer or a shard in memory, never a model: measured in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from tests.tiny import CHAT_TEMPLATE, build_tokenizer, text_config

REPOSITORY = Path(__file__).resolve().parents[3]
PEAK = "\nprint(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
IMPORTS = (
    "import transformers, accelerate, PIL.Image\nfrom transformers import LlavaForConditionalGeneration, AutoProcessor"
)
CONVERT = (
    "import sys\nfrom llava.model.llava_checkpoints.convert import convert_checkpoint\n"
    "assert convert_checkpoint(sys.argv[1], sys.argv[2], to=sys.argv[3]) <= 1e-4"
)
MOST = 1.0
"""Memory above that of the imports, as a part of the checkpoint; one model in memory would be 1, two would be 2."""


def measure_peak(program: str, *arguments: object) -> int:
    """Return the highest memory of a program, in bytes, mapped files included."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", program + PEAK, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split("VmHWM:")[1].split()[0]) * 1024


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """An HF-native LLaVA of some 300 MB in bfloat16, in one file."""
    folder = tmp_path_factory.mktemp("llava")
    tokenizer = build_tokenizer(("<image>",))
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=16
    )
    text = text_config(20_000, hidden_size=768, intermediate_size=2048, num_hidden_layers=17, num_attention_heads=12)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=tokenizer.convert_tokens_to_ids("<image>")
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_converting_holds_no_model(checkpoint, tmp_path):
    size = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    assert size > 280e6
    baseline = measure_peak(IMPORTS)
    there = measure_peak(CONVERT, checkpoint, tmp_path / "original", "original")
    back = measure_peak(CONVERT, tmp_path / "original", tmp_path / "hf", "hf")
    assert there - baseline <= MOST * size, (there, baseline, size)
    assert back - baseline <= MOST * size, (back, baseline, size)
