"""Tiny models of other vision-language families, saved as their own classes save them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertTokenizerFast,
    BlipImageProcessor,
    CLIPVisionConfig,
    GemmaConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from tests.tiny import CHAT_TEMPLATE, build_tokenizer, text_config

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 16,
}
SIDE = {"height": 32, "width": 32}


def save(folder: Path, model: Any, processor: Any) -> Path:
    """Save model and processor."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_llava_next(folder: Path) -> Path:
    """LLaVA-NeXT: pictures in tiles."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(("<image>",))
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION, projection_dim=32),
        text_config=text_config(len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": 32}, crop_size=SIDE, image_grid_pinpoints=pinpoints
        ),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return save(folder, LlavaNextForConditionalGeneration(config), processor)


def build_idefics3(folder: Path) -> Path:
    """Idefics3 (SmolVLM's architecture): pictures split into tiles with row and column tokens."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"))
    tokenizer.add_tokens([f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)])
    text = text_config(len(tokenizer)).to_dict()
    config = Idefics3Config(
        vision_config={**VISION},
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=2,
    )
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer=tokenizer,
        image_seq_len=1,
        chat_template=CHAT_TEMPLATE.replace("<image>\n", "<image>"),
    )
    return save(folder, Idefics3ForConditionalGeneration(config), processor)


def build_paligemma(folder: Path) -> Path:
    """PaliGemma: no chat template, a bare prompt."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(("<image>",))
    tokenizer.chat_template = None
    processor = PaliGemmaProcessor(
        image_processor=SiglipImageProcessor(size=SIDE, image_seq_length=4), tokenizer=tokenizer
    )
    text = GemmaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**VISION, projection_dim=32, vision_use_head=False),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    return save(folder, PaliGemmaForConditionalGeneration(config), processor)


def build_instructblip(folder: Path) -> Path:
    """InstructBLIP: the processor itself puts the picture's tokens before the text."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    words = folder / "qformer-words.txt"
    folder.mkdir(parents=True, exist_ok=True)
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]))
    processor = InstructBlipProcessor(
        image_processor=BlipImageProcessor(size=SIDE),
        tokenizer=tokenizer,
        qformer_tokenizer=BertTokenizerFast(vocab_file=str(words)),
        num_query_tokens=3,
    )
    words.unlink()
    config = InstructBlipConfig(
        vision_config={**VISION},
        qformer_config={
            "vocab_size": 31,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "encoder_hidden_size": 32,
        },
        text_config=text_config(len(tokenizer)).to_dict(),
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return save(folder, InstructBlipForConditionalGeneration(config), processor)


def build_llava_onevision(folder: Path) -> Path:
    """LLaVA-OneVision; its processor takes videos too, so it can only be written and read with torchvision."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(("<image>", "<video>"))
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=text_config(len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[32, 32], [32, 64]],
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
    settings = {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": 4,
        "vision_feature_select_strategy": "full",
    }
    pictures = {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "size": SIDE,
        "image_grid_pinpoints": [[32, 32], [32, 64]],
    }
    return save_video_processor(folder, tokenizer, settings, pictures, "LlavaOnevisionVideoProcessor")


def build_qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL; its processor takes videos too, so it can only be written and read with torchvision."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"))
    tokenizer.chat_template = CHAT_TEMPLATE.replace("<image>\n", "<|vision_start|><|image_pad|><|vision_end|>")
    text = text_config(len(tokenizer)).to_dict()
    text.update(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]})
    config = Qwen2VLConfig(
        text_config={key: value for key, value in text.items() if key not in ("model_type", "architectures")},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    pictures = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": 28 * 28,
        "max_pixels": 56 * 56,
    }
    return save_video_processor(
        folder, tokenizer, {"processor_class": "Qwen2VLProcessor"}, pictures, "Qwen2VLVideoProcessor"
    )


def save_video_processor(
    folder: Path, tokenizer: Any, settings: dict[str, Any], pictures: dict[str, Any], videos: str
) -> Path:
    """Write the files that a processor with a video part saves, by hand: without torchvision it cannot be built."""
    tokenizer.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(settings))
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    (folder / "video_preprocessor_config.json").write_text(json.dumps({**pictures, "video_processor_type": videos}))
    return folder


NEED_TORCHVISION = {"llava_onevision": build_llava_onevision, "qwen2_vl": build_qwen2_vl}
BUILDERS = {
    "llava_next": build_llava_next,
    "idefics3": build_idefics3,
    "paligemma": build_paligemma,
    "instructblip": build_instructblip,
}
