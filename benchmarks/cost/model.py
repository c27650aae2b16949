"""Latency and memory of a guarded model of any size, from a few formulas.

The formulas are texts, in the arithmetic that Python and JavaScript share, so that the page in `docs/cost.md`, the
printed table and the tests compute with the same ones. They follow from two facts about transformers:

- Writing a token at batch 1 reads all weights and the cache once: bytes / bandwidth.
- Reading n tokens at once multiplies each weight with each of them: 2 · parameters · n operations, but takes at least
  the time in which the weights are read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass

GB = 1e9


@dataclass(frozen=True)
class Assumption:
    """A quantity that the formulas start from."""

    label: str
    """What it is, with its unit."""
    value: float
    """What it is unless one says otherwise, in `scale` units."""
    scale: float = 1.0
    """What a 1 in the label's unit is in the unit that the formulas compute in."""


ASSUMPTIONS = {
    "parameters": Assumption("parameters of the language model (billions)", 6.74, 1e9),
    "layers": Assumption("its layers", 32),
    "kv_width": Assumption("width of its keys, and of its values", 4096),
    "hidden_width": Assumption("width of its hidden states", 4096),
    "detector_parameters": Assumption("parameters of a separate detector (billions)", 3.43, 1e9),
    "detoxifier_parameters": Assumption("parameters of a separate detoxifier (billions)", 6.74, 1e9),
    "adapter_share": Assumption("an adapter on the shared backbone, as a share of it", 0.012),
    "depth_share": Assumption("share of the backbone's layers that its detector reads", 0.6),
    "bytes_per_weight": Assumption("bytes of a weight", 2),
    "bytes_per_number": Assumption("bytes of a number in the cache", 2),
    "prompt_tokens": Assumption("tokens of question and image", 640),
    "question_tokens": Assumption("tokens of the question alone, which guards read", 64),
    "answer_tokens": Assumption("tokens of the answer", 256),
    "rewrite_tokens": Assumption("tokens of a rewrite", 64),
    "flagged_share": Assumption("share of answers that are flagged", 0.05),
    "uncertain_share": Assumption("share of answers that the cascade's head leaves to the detector", 0.1),
    "operations": Assumption("peak of the device (TFLOP/s)", 312, 1e12),
    "bandwidth": Assumption("its memory bandwidth (GB/s)", 2039, 1e9),
    "compute_efficiency": Assumption("share of the peak that is reached", 0.5),
    "bandwidth_efficiency": Assumption("share of the bandwidth that is reached", 0.7),
}
"""Name → assumption. The device is an A100 with 80 GB in half precision; separate guards have the sizes of the paper's
(arXiv 2401.02906): OpenLLaMA-3B as detector, LLaMA-7B as detoxifier."""

MODELS = {
    "7B": {"parameters": 6.74, "layers": 32, "kv_width": 4096, "hidden_width": 4096},
    "13B": {"parameters": 13.02, "layers": 40, "kv_width": 5120, "hidden_width": 5120},
    "70B": {"parameters": 68.98, "layers": 80, "kv_width": 1024, "hidden_width": 8192},
}
"""Shapes of Llama 2 in the labels' units; the largest shares its keys and values between heads."""

FORMULAS = {
    "operation_seconds": "1 / (operations * compute_efficiency)",
    "byte_seconds": "1 / (bandwidth * bandwidth_efficiency)",
    "weight_bytes": "parameters * bytes_per_weight",
    "cache_bytes_per_token": "2 * layers * kv_width * bytes_per_number",
    "cache_bytes": "cache_bytes_per_token * (prompt_tokens + answer_tokens)",
    # The model itself: it reads the prompt, and writes with a cache that is half full on average.
    "prompt_seconds": "max(2 * parameters * prompt_tokens * operation_seconds, weight_bytes * byte_seconds)",
    "token_seconds": "(weight_bytes + cache_bytes_per_token * (prompt_tokens + answer_tokens / 2)) * byte_seconds",
    "model_seconds": "prompt_seconds + answer_tokens * token_seconds",
    "model_bytes": "weight_bytes + cache_bytes",
    "read_tokens": "question_tokens + answer_tokens",
    "recheck_tokens": "question_tokens + rewrite_tokens",
    # Separate guards: two more models in memory.
    "separate_read_seconds": "max(2 * detector_parameters * read_tokens * operation_seconds, "
    "detector_parameters * bytes_per_weight * byte_seconds)",
    "separate_recheck_seconds": "max(2 * detector_parameters * recheck_tokens * operation_seconds, "
    "detector_parameters * bytes_per_weight * byte_seconds)",
    "separate_rewrite_seconds": "max(2 * detoxifier_parameters * read_tokens * operation_seconds, "
    "detoxifier_parameters * bytes_per_weight * byte_seconds) "
    "+ rewrite_tokens * detoxifier_parameters * bytes_per_weight * byte_seconds",
    "separate_seconds": "separate_read_seconds + flagged_share * (separate_rewrite_seconds + separate_recheck_seconds)",
    "separate_bytes": "(detector_parameters + detoxifier_parameters) * bytes_per_weight",
    # Shared backbone: the model's own weights, read again with an adapter on them.
    "adapted_parameters": "parameters * (1 + adapter_share)",
    "shared_read_seconds": "depth_share * max(2 * adapted_parameters * read_tokens * operation_seconds, "
    "adapted_parameters * bytes_per_weight * byte_seconds)",
    "shared_recheck_seconds": "depth_share * max(2 * adapted_parameters * recheck_tokens * operation_seconds, "
    "adapted_parameters * bytes_per_weight * byte_seconds)",
    "shared_rewrite_seconds": "max(2 * adapted_parameters * read_tokens * operation_seconds, "
    "adapted_parameters * bytes_per_weight * byte_seconds) "
    "+ rewrite_tokens * adapted_parameters * bytes_per_weight * byte_seconds",
    "shared_seconds": "shared_read_seconds + flagged_share * (shared_rewrite_seconds + shared_recheck_seconds)",
    "shared_bytes": "2 * adapter_share * weight_bytes",
    # Cascade: a linear head on the states of the answer that is being written; what it cannot tell is read again.
    "head_seconds": "2 * hidden_width * answer_tokens * operation_seconds",
    "cascade_seconds": "head_seconds + uncertain_share * shared_read_seconds "
    "+ flagged_share * (shared_rewrite_seconds + shared_recheck_seconds)",
    "cascade_bytes": "shared_bytes + hidden_width * bytes_per_weight",
}
"""Name → expression over the assumptions and what stands before it; seconds of one request at batch 1, and bytes.

Of a guard, `…_seconds` and `…_bytes` are what it adds to the model's."""

KINDS = {"separate": "separate guards", "shared": "shared backbone", "cascade": "shared backbone, cascade"}
"""Ways to guard, by the names that their formulas begin with."""


def compute(**changed: float) -> dict[str, float]:
    """Compute all formulas.

    Args:
        changed: Assumptions by name, in their labels' units; the others are as in `ASSUMPTIONS`.

    Raises:
        TypeError: When a name is no assumption.

    Example:
        >>> round(compute(parameters=7, bytes_per_weight=2)["weight_bytes"] / 1e9, 6)
        14.0
    """
    unknown = sorted(set(changed) - set(ASSUMPTIONS))
    if unknown:
        raise TypeError(f"unexpected keyword argument '{unknown[0]}'; assumptions are {', '.join(ASSUMPTIONS)}")
    values = {name: changed.get(name, each.value) * each.scale for name, each in ASSUMPTIONS.items()}
    for name, expression in FORMULAS.items():
        values[name] = eval(expression, {"__builtins__": {}, "max": max}, values)
    return values


def render_table(changed: Mapping[str, float] | None = None) -> str:
    """Return the costs of all models and ways to guard as a Markdown table.

    Args:
        changed: Assumptions that differ, in their labels' units.
    """
    lines = [
        "| model | guard | seconds without | the guard adds | | GB without | the guard adds | |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for model, shape in MODELS.items():
        values = compute(**(shape | dict(changed or {})))
        for kind, name in KINDS.items():
            seconds, size = values[f"{kind}_seconds"], values[f"{kind}_bytes"]
            lines.append(
                f"| {model} | {name} | {values['model_seconds']:.2f} | {seconds:.3f} "
                f"| {seconds / values['model_seconds']:.1%} | {values['model_bytes'] / GB:.1f} | {size / GB:.2f} "
                f"| {size / values['model_bytes']:.1%} |"
            )
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Print the table, with assumptions changed as the options say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost.model", description=__doc__.partition("\n")[0])
    for name, each in ASSUMPTIONS.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=float, help=f"{each.label} [{each.value:g}]".replace("%", "%%"))
    given = vars(parser.parse_args(argv))
    sys.stdout.write(render_table({name: value for name, value in given.items() if value is not None}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
