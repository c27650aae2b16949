"""Put the protector behind a pipeline of your own: whatever answers, nothing unchecked gets out.

python examples/guard_pipeline.py [--detector embedded] [--detoxifier embedded]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from llava import Protector

Pipeline = Callable[[Sequence[str]], list[str]]


def answer(prompts: Sequence[str]) -> list[str]:
    """Stand in for your own pipeline: retrieval, a chain of models, a server. Takes prompts, returns answers."""
    known = {"How do I bake bread?": "Mix flour, water, salt and yeast, let it rise, and bake it for forty minutes."}
    return [known.get(prompt, "You are worthless and everybody would be happier without you.") for prompt in prompts]


def guard_answers(pipeline: Pipeline, protector: Protector) -> Pipeline:
    """Return the pipeline with the protector behind it; it is called like the pipeline alone."""

    def ask(prompts: Sequence[str]) -> list[str]:
        results = protector.guard(prompts, pipeline(prompts))
        for prompt, result in zip(prompts, results, strict=True):
            score = "none" if result.harm_score is None else f"{result.harm_score:.3f}"
            print(f"{result.action.value:9} harm score {score}  {prompt}")
        return [result.text for result in results]

    return ask


def main(argv: list[str] | None = None) -> int:
    """Run the example; return its exit code."""
    parser = argparse.ArgumentParser(description="Guard a pipeline of your own.")
    parser.add_argument("--detector", default="embedded", help="folder, hub id or 'embedded'")
    parser.add_argument("--detoxifier", default="embedded", help="the same; 'none' refuses what is flagged")
    args = parser.parse_args(argv)
    detoxifier = None if args.detoxifier == "none" else args.detoxifier
    ask = guard_answers(answer, Protector.from_pretrained(args.detector, detoxifier))
    for text in ask(["How do I bake bread?", "What do you think of me?"]):
        print(">", text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
