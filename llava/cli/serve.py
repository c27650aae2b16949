"""The command that puts a guard in front of a model, and serves the guard alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    In4Bit,
    In8Bit,
    OptionalDetoxifier,
    ShareBackbone,
    Threshold,
    TrustRemoteCode,
)
from llava.installation import SERVER_PACKAGES


def serve(
    model: Annotated[
        str | None, typer.Option(help="Multimodal model to run in this process: 'embedded', a folder or a hub id.")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(help="OpenAI-compatible server to stand before; its key: MLLM_PROTECTOR_UPSTREAM_KEY.")
    ] = None,
    detector: Detector = "embedded",
    detoxifier: OptionalDetoxifier = None,
    detector_base: DetectorBase = None,
    detoxifier_base: DetoxifierBase = None,
    share_backbone: ShareBackbone = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback need API keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any free one.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Keys that clients may show, one a line; also MLLM_PROTECTOR_API_KEYS.")
    ] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Let other machines in without keys.")
    ] = False,
    model_name: Annotated[
        str | None, typer.Option(help="Name of the guard in /v1/models and answers [mllm-protector].")
    ] = None,
    threshold: Threshold = None,
    action: Annotated[str, typer.Option(help="For flagged answers: rewrite, refuse or block.")] = "rewrite",
    trim: Annotated[
        bool, typer.Option(help="Before a rewrite, cut harmful sentences out and show the rest if it passes.")
    ] = True,
    threshold_for: Annotated[
        list[str] | None, typer.Option(metavar="ROUTE|MODEL=VALUE", help="Threshold of a route or model; several.")
    ] = None,
    action_for: Annotated[
        list[str] | None, typer.Option(metavar="ROUTE|MODEL=ACTION", help="Action of a route or model; several.")
    ] = None,
    allow_header_threshold: Annotated[
        bool, typer.Option("--allow-header-threshold", help="Let requests choose by the header X-Guard-Threshold.")
    ] = False,
    fail_open: Annotated[
        bool, typer.Option("--fail-open", help="Let texts pass that could not be judged [they are withheld].")
    ] = False,
    check_prompts: Annotated[bool, typer.Option(help="Judge what users write too, on the guardrail routes.")] = True,
    max_body_bytes: Annotated[int, typer.Option(help="Largest body of a request.")] = 20 << 20,
    max_texts: Annotated[int, typer.Option(help="Most texts in a request to a guardrail route.")] = 512,
    max_text_chars: Annotated[int, typer.Option(help="Longest text that is judged, in characters.")] = 100_000,
    max_images: Annotated[int, typer.Option(help="Most images in a request.")] = 8,
    max_image_bytes: Annotated[int, typer.Option(help="Largest image, as a file.")] = 10 << 20,
    image_urls: Annotated[
        bool, typer.Option("--image-urls", help="Fetch images from public addresses that a request names.")
    ] = False,
    rate_limit: Annotated[float | None, typer.Option(help="Requests a minute for each key [no limit].")] = None,
    queue_limit: Annotated[int, typer.Option(help="Texts that may wait for the guard; beyond, 429.")] = 1024,
    max_streams: Annotated[int, typer.Option(help="Guarded streams at a time; beyond, 429.")] = 256,
    batch_size: Annotated[int, typer.Option(help="Texts in one pass of the detector.")] = 16,
    body_timeout: Annotated[float, typer.Option(help="Seconds for the body of a request to arrive.")] = 30.0,
    guard_timeout: Annotated[float, typer.Option(help="Seconds for the detector; then texts are withheld.")] = 60.0,
    rewrite_timeout: Annotated[float, typer.Option(help="Seconds for the detoxifier; then texts are refused.")] = 180.0,
    request_timeout: Annotated[float, typer.Option(help="Seconds for an answer of the model.")] = 600.0,
    shutdown_timeout: Annotated[float, typer.Option(help="Seconds for requests to end at shutdown.")] = 20.0,
    look_ahead: Annotated[int, typer.Option(help="Tokens of a stream that are held back.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(help="Longest rewrite, and answer of --model, in tokens.")] = 256,
    log_text: Annotated[bool, typer.Option("--log-text", help="Let logs hold what people write.")] = False,
    device: Device = None,
    dtype: Dtype = "auto",
    attn_implementation: Attention = None,
    load_in_8bit: In8Bit = False,
    load_in_4bit: In4Bit = False,
    trust_remote_code: TrustRemoteCode = False,
    config: Config = None,
) -> None:
    """Serve a guarded model (--model, or --upstream), or the guard alone; see docs/server.md."""
    options = {name: value for name, value in locals().items() if name != "config"}
    check_extra("serve", *SERVER_PACKAGES)
    from llava.serve.launch import launch

    launch(options, typer.echo)
