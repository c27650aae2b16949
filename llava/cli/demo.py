"""The command that shows a guarded model on a web page."""

from __future__ import annotations

from typing import Annotated

import typer

from llava.cli.options import (
    Attention,
    Config,
    Detector,
    DetectorBase,
    DetoxifierBase,
    Device,
    Dtype,
    Endpoint,
    In4Bit,
    In8Bit,
    OptionalDetoxifier,
    Threshold,
    TrustRemoteCode,
)
from llava.errors import InputError


def demo(
    model: Annotated[str, typer.Option(help="Multimodal model: 'embedded', a folder or a hub id.")] = "embedded",
    endpoint: Endpoint = None,
    detector: Detector = "embedded",
    detoxifier: OptionalDetoxifier = "embedded",
    detector_base: DetectorBase = None,
    detoxifier_base: DetoxifierBase = None,
    threshold: Threshold = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback let others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any free one.")] = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Make the page public for some days, through Gradio's relay.")
    ] = False,
    queue_limit: Annotated[int, typer.Option(help="Questions that may wait; one is answered at a time.")] = 16,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.")] = 256,
    device: Device = None,
    dtype: Dtype = "auto",
    attn_implementation: Attention = None,
    load_in_8bit: In8Bit = False,
    load_in_4bit: In4Bit = False,
    trust_remote_code: TrustRemoteCode = False,
    config: Config = None,
) -> None:
    """Show a guarded model on a web page, its unguarded answers beside the guarded ones; see docs/demo.md."""
    options = locals()
    check_extra()
    if detector in ("", "none"):
        raise InputError("demo needs a guard; give --detector")
    from llava.cli.chat import load_protector, load_speaker
    from llava.serve.web.answering import Answering
    from llava.serve.web.launch import launch

    protector = load_protector(options)
    answering = Answering(load_speaker(options), protector, max_new_tokens=max_new_tokens)
    launch(answering, typer.echo, host=host, port=port, share=share, queue_limit=queue_limit)


def check_extra() -> None:
    """Refuse where Gradio is not installed.

    Raises:
        InputError: With the command that mends it.
    """
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise InputError("demo needs gradio, which is not installed; pip install 'mllm-protector[demo]'")
