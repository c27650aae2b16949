"""Options that several commands of `mllm-protector` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llava.cli.config import read_config

Config = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of options; flags win over it.", callback=read_config, is_eager=True),
]
Detector = Annotated[
    str, typer.Option(help="Guard: 'embedded', a folder or hub id, guard:[FORM@]PATH, or any(SPEC, SPEC), all, mean.")
]
OptionalDetector = Annotated[
    str | None,
    typer.Option(
        help="Guard: 'embedded', a folder or hub id, guard:[FORM@]PATH, any(SPEC, SPEC), all, mean; 'none': no guard."
    ),
]
StateHead = Annotated[
    str | None, typer.Option(help="Head on the model's own states: 'embedded', a folder or a hub id.")
]
OptionalDetoxifier = Annotated[
    str | None, typer.Option(help="Detoxifier: 'embedded', a folder or a hub id; 'none': flagged means refused.")
]
DetectorBase = Annotated[str | None, typer.Option(help="Base model of the detector's adapter [the one that it names].")]
DetoxifierBase = Annotated[
    str | None, typer.Option(help="Base model of the detoxifier's adapter [the one that it names].")
]
ShareBackbone = Annotated[
    bool | None,
    typer.Option(
        "--share-backbone/--no-share-backbone",
        help="Let detector and detoxifier use the weights of the model's own language model [where it is their base].",
    ),
]
Threshold = Annotated[float | None, typer.Option(help="Harm score from which a response is flagged [detector's own].")]
Device = Annotated[str | None, typer.Option(help="Torch device, e.g. cpu or cuda:1 [detected].")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Attention = Annotated[str | None, typer.Option(help="eager, sdpa, flash_attention_2 [chosen].")]
In8Bit = Annotated[bool, typer.Option("--load-in-8bit", help="Quantise the model to 8 bits.")]
In4Bit = Annotated[bool, typer.Option("--load-in-4bit", help="Quantise the model to 4 bits.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
Endpoint = Annotated[
    str | None, typer.Option(help="Ask an OpenAI-compatible server at this URL; --model is its name there.")
]
RequestTimeout = Annotated[float, typer.Option(help="Seconds that one answer of a server may take.")]
RunFolder = Annotated[Path, typer.Argument(help="Output folder of a generate run.")]
