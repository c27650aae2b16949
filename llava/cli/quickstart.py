"""The shortest way to a result: the embedded model on the samples, without and with the protector."""

from __future__ import annotations

import time
from pathlib import Path

BENCHMARK = "sample_mixed"
IMAGE_TYPES = ("TEXT", "TYPO", "SD_TYPO", "IMAGE")
"""Without SD, scenes without a word: the embedded model reads print and nothing else, so these only cost time."""
JUDGES = ("embedded", "keyword", "detector")
"""The first makes the headline: the shipped judge, which learnt nothing together with the detector that guards."""


def run_quickstart(
    output: Path, *, num_processes: int | None = None, limit: int | None = None, max_new_tokens: int = 32
) -> Path:
    """Generate, score and report with the embedded stack; a second run skips what is there.

    Args:
        output: Folder of the run.
        num_processes: Processes that share the questions; None detects.
        limit: Ask at most so many questions; None asks the whole sample.
        max_new_tokens: Longest response, in tokens.

    Returns:
        Path of `report.html`.

    Raises:
        InputError: When the embedded stack cannot be had, or `output` holds another run.
    """
    from llava.eval.report.headline import print_headline
    from llava.eval.report.next_steps import list_next_steps
    from llava.eval.report.rendering import render_report
    from llava.eval.run.runner import run_generation
    from llava.eval.run.settings import GenerationSettings
    from llava.eval.scoring.scoring import score_run
    from llava.model.embedded.stack import EMBEDDED, resolve_mllm
    from llava.terminal import build_console

    console = build_console(stderr=True)
    started = time.monotonic()
    console.print("1/4  embedded model: SmolLM2-135M-Instruct behind a small vision tower")
    resolve_mllm(EMBEDDED)
    console.print("2/4  asking risky questions (text, pictures of words) and harmless ones, guarding each answer")
    run_generation(
        GenerationSettings(
            model=EMBEDDED,
            benchmark=BENCHMARK,
            image_types=IMAGE_TYPES,
            output=output,
            detector=EMBEDDED,
            detoxifier=EMBEDDED,
            limit=limit,
            max_new_tokens=max_new_tokens,
            num_processes=num_processes,
        )
    )
    console.print("3/4  judging the answers, unprotected and protected; the headline is by the judge 'embedded'")
    summary = score_run(output, JUDGES)
    console.print("4/4  writing the report")
    page = render_report(output)
    print_headline(summary)
    # What is cut into lines can be neither copied nor clicked.
    console.print(f"report: {page}  ({time.monotonic() - started:.0f} s)", soft_wrap=True)
    for step in list_next_steps():
        console.print(f"\n{step.title}: {step.remark}")
        console.print(step.command, soft_wrap=True)
    return page
