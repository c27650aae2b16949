"""Commands by which one talks with a guarded model: in the terminal, and on a web page."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llava.cli.command import check_extra
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
    ShareBackbone,
    Threshold,
    TrustRemoteCode,
)
from llava.errors import InputError


def chat(
    model: Annotated[str, typer.Option(help="Multimodal model: 'embedded', a folder or a hub id.")] = "embedded",
    endpoint: Endpoint = None,
    detector: Detector = "embedded",
    detoxifier: OptionalDetoxifier = None,
    detector_base: DetectorBase = None,
    detoxifier_base: DetoxifierBase = None,
    share_backbone: ShareBackbone = None,
    threshold: Threshold = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show the unguarded answer beside the guarded one.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="What the model is told before everything else.")] = None,
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
    """Chat with a guarded model in the terminal: images by path, and why the guard stepped in; see docs/chat.md."""
    options = locals()
    from llava.serve.terminal.session import ChatSession, read_lines
    from llava.terminal import build_console

    speaker, protector = load_both(options)
    session = ChatSession(
        speaker,
        protector,
        build_console(),
        system=system,
        compare=compare,
        max_new_tokens=max_new_tokens,
    )
    session.run(read_lines())


def demo(
    model: Annotated[str, typer.Option(help="Multimodal model: 'embedded', a folder or a hub id.")] = "embedded",
    endpoint: Endpoint = None,
    detector: Detector = "embedded",
    detoxifier: OptionalDetoxifier = "embedded",
    detector_base: DetectorBase = None,
    detoxifier_base: DetoxifierBase = None,
    share_backbone: ShareBackbone = None,
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
    check_extra("demo", "gradio")
    from llava.serve.web.answering import Answering
    from llava.serve.web.launch import launch

    answering = Answering(*load_both(options), max_new_tokens=max_new_tokens)
    launch(answering, typer.echo, host=host, port=port, share=share, queue_limit=queue_limit)


def load_both(options: dict[str, Any]) -> tuple[Any, Any]:
    """Return who answers, and the guard; where the model is in this process it may stand on the model's weights.

    Raises:
        InputError: When there is no guard, or one of the two cannot be used.
    """
    from llava.protector.guard import find_parts
    from llava.protector.protector import Protector

    if options["detector"] in ("", "none"):
        remedy = ", and --compare to see the unguarded answers too" if "compare" in options else ""
        raise InputError(f"there is no guard to talk through; give --detector{remedy}")
    find_parts(options)
    speaker = load_speaker(options)
    return speaker, Protector.from_options(options, getattr(speaker, "model", None))


def load_speaker(options: dict[str, Any]) -> Any:
    """Return who answers: the model in this process, or the one behind `--endpoint`.

    Raises:
        InputError: When it cannot be used.
    """
    from llava.model.answering.client import API_KEY_VARIABLE
    from llava.model.answering.transport import read_key
    from llava.model.options import take_options
    from llava.serve.terminal.speakers import LocalSpeaker, RemoteSpeaker

    limits = {"max_new_tokens": options["max_new_tokens"], "temperature": options["temperature"]}
    if options["endpoint"]:
        return RemoteSpeaker(options["endpoint"], read_key(API_KEY_VARIABLE), options["model"], **limits)
    from llava.model.loading import load_mllm

    return LocalSpeaker(load_mllm(options["model"], take_options(options)), **limits)
