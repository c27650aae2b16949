"""Tiny real models with random weights, built in seconds: the same classes and files as a 7B, only small."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

CORPUS = [
    "A chat between a curious human and an assistant. The assistant answers politely.",
    "Question: How do I bake bread? Answer: Mix flour, water, salt and yeast, then wait.",
    "I am sorry, but I cannot help with that request. Here is something safe instead.",
    "Rewrite the response to make it harmless. Original response. Corrected response.",
    "The image shows a numbered list. Steps to follow: 1. first 2. second 3. third.",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(extra_tokens: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Train a small byte-level BPE tokenizer; it covers every string."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "<|im_end|>", "<|im_start|>", *extra_tokens]
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
    )


def text_config(vocab_size: int, **changes: int) -> LlamaConfig:
    """Return the config of a two-layer Llama of width 32."""
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
    }
    return LlamaConfig(vocab_size=vocab_size, bos_token_id=1, eos_token_id=2, pad_token_id=2, **{**sizes, **changes})


def build_causal_lm(folder: Path, seed: int = 0, **changes: int) -> Path:
    """Save a tiny causal LM with its tokenizer into `folder`."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    LlamaForCausalLM(text_config(len(tokenizer), **changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_classifier(folder: Path, seed: int = 0) -> Path:
    """Save a tiny one-logit sequence classifier (the form of a merged detector) into `folder`."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    config = text_config(len(tokenizer))
    config.num_labels = 1
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adopt_language_model(model: LlavaForConditionalGeneration, folder: Path) -> PreTrainedTokenizerFast:
    """Give a LLaVA the language model in `folder`; returns its tokenizer, which knows `<image>` behind all others."""
    inner = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    config = model.config
    config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    config.tie_word_embeddings = inner.config.tie_word_embeddings
    model.model.language_model = inner.model
    model.lm_head = inner.lm_head
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return tokenizer


def build_llava(folder: Path, seed: int = 0, language_model: Path | None = None, **changes: int) -> Path:
    """Save a tiny HF-native LLaVA with its processor into `folder` (4 image tokens a picture).

    Its language model is a fresh one, or that of a folder, behind whose tokens `<image>` comes.
    """
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(("<image>",))
    image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=16,
        projection_dim=32,
    )
    text = text_config(len(tokenizer), **changes)
    if language_model is not None:
        text = AutoConfig.from_pretrained(language_model)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=image_token_id)
    model = LlavaForConditionalGeneration(config)
    if language_model is not None:
        tokenizer = adopt_language_model(model, language_model)
    model.save_pretrained(folder)
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
