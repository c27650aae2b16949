"""Rewriting: batches of the detoxifier against `transformers` generating one rewrite after another.

Both sides rewrite the same answers with the same network, greedily and with the same longest rewrite. The baseline is
the loop that evaluation scripts write: encode, `model.generate`, decode, next. It ends at the end token alone; ours
also when the rewrite begins to repeat itself, which is counted as ours because nobody wants the rest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from benchmarks.measurement import Measurement, compare
from llava.errors import InputError

GOAL = 2.0


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that set the size of the measurement and the model."""
    parser.add_argument("--detoxification-answers", type=int, default=16, help="answers to rewrite [16]")
    parser.add_argument("--detoxification-new-tokens", type=int, default=48, help="longest rewrite, in tokens [48]")
    parser.add_argument("--detoxification-batch-size", type=int, default=8, help="rewrites at a time on our side [8]")
    parser.add_argument("--detoxification-model", default="embedded", help="detoxifier of both sides [embedded]")
    parser.add_argument("--detoxification-repeats", type=int, default=3, help="how often each side is measured [3]")


def measure(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure rewrites per second."""
    import torch

    from llava.data.training.made_answers import make_harm
    from llava.protector.detoxifier import Detoxifier
    from llava.protector.text import encode_detoxifier_prompt

    count, tokens = options.detoxification_answers, options.detoxification_new_tokens
    if min(count, tokens, options.detoxification_batch_size) < 1:
        raise InputError("--detoxification-answers, -new-tokens and -batch-size must be at least 1")
    rows = [made.row for made in make_harm(count) if made.row.harmful][:count]
    prompts, responses = [row.prompt for row in rows], [row.response for row in rows]
    detoxifier = Detoxifier.from_pretrained(options.detoxification_model)
    model, tokenizer = detoxifier.model, detoxifier.tokenizer

    def run_ours(repeat: int) -> float:
        start = time.perf_counter()
        detoxifier.rewrite(prompts, responses, options.detoxification_batch_size, tokens)
        return len(rows) / (time.perf_counter() - start)

    def run_loop(repeat: int) -> float:
        start = time.perf_counter()
        for prompt, response in zip(prompts, responses, strict=True):
            room = detoxifier.config.max_length
            ids = torch.tensor([encode_detoxifier_prompt(tokenizer, detoxifier.config, prompt, response, room)[0]])
            ids = ids.to(model.device)
            with torch.inference_mode():
                written = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=tokens,
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                )
            tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        return len(rows) / (time.perf_counter() - start)

    yield compare(
        "rewriting in batches against transformers, one after another",
        run_ours,
        run_loop,
        goal=GOAL,
        unit="rewrites/s",
        repeats=options.detoxification_repeats,
    )
