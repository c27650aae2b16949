"""Evaluate a model behind an OpenAI-compatible server: ask, guard, judge, report.

    python examples/evaluate_endpoint.py --endpoint http://127.0.0.1:8000/v1 --model NAME [--limit 16]

vLLM, SGLang, llama.cpp, Ollama and most paid services speak this protocol; a key goes into OPENAI_API_KEY. Run it again
after an interruption: what is answered is not asked again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.eval.report.rendering import render_report
from llava.eval.report.tables import print_summary
from llava.eval.run.runner import run_generation
from llava.eval.run.settings import GenerationSettings
from llava.eval.scoring.scoring import score_run
from llava.process import report_errors


def evaluate(settings: GenerationSettings) -> None:
    """Ask the benchmark's questions, guard the answers, judge both sides, and write the report."""
    run_generation(settings)
    print_summary(score_run(settings.output, ("keyword", "detector")))
    print(f"report: {render_report(settings.output)}")


def main(argv: list[str] | None = None) -> int:
    """Run the example; return its exit code."""
    parser = argparse.ArgumentParser(description="Evaluate a served model.")
    parser.add_argument("--endpoint", required=True, help="address of the server, up to /v1")
    parser.add_argument("--model", required=True, help="the model's name there")
    parser.add_argument("--benchmark", default="sample", help="a benchmark's name, or a file of your questions")
    parser.add_argument("--detector", default="embedded", help="folder, hub id or 'embedded'")
    parser.add_argument("--limit", type=int, help="ask at most so many questions")
    parser.add_argument("--output", type=Path, default=Path("runs/endpoint"), help="folder of the run")
    args = parser.parse_args(argv)
    return report_errors(lambda: evaluate(GenerationSettings(**vars(args))))


if __name__ == "__main__":
    raise SystemExit(main())
