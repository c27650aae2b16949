"""What `mllm-protector demo` does: the page on a port of this machine, until it is told to stop."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.data.images import MAX_IMAGE_BYTES
from llava.errors import FailedRunError

if TYPE_CHECKING:
    from llava.serve.web.answering import Answering

STYLE = Path(__file__).with_name("page.css")
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO_FONTS = ("ui-monospace", "Menlo", "Consolas", "monospace")
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; form-action 'self'; frame-ancestors 'self'"
)
"""What a browser may load: from this server alone. Gradio's page needs scripts and styles within itself."""
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class ClosedPage:
    """Puts `HEADERS` on every answer: the page loads nothing from elsewhere, whatever a library's script would like."""

    def __init__(self, app: Any):
        """Stand before an ASGI application."""
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""

        async def send_closed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        await self.app(scope, receive, send_closed)


def launch(
    answering: Answering, announce: Callable[[str], object], *, host: str, port: int, share: bool, queue_limit: int
) -> None:
    """Serve the page until the process is told to stop (SIGTERM, Ctrl-C).

    Args:
        answering: What the page asks.
        announce: Told a line with the page's address once it answers.
        host: Address to listen on.
        port: Port to listen on; 0 takes any free one.
        share: Whether Gradio's relay makes the page public under an address of its own.
        queue_limit: Questions that may wait.

    Raises:
        InputError: When the address cannot be had.
        FailedRunError: When the page does not start, or there is no public address.
    """
    from llava.serve.running import open_socket

    with open_socket(host, port) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="mllm-protector-demo-") as folder:
        settle_environment(folder)
        from llava.serve.web.page import build_page

        page = build_page(answering, queue_limit)
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        try:
            start(page, host, port, share)
            announce(f"listening on {page.local_url.rstrip('/')}")
            if share:
                announce(f"public at {page.share_url}")
            stopped.wait()
        finally:
            page.close(verbose=False)


def settle_environment(folder: str) -> None:
    """Set what Gradio reads when it is imported: no statistics, and uploads in a folder that goes with the process."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["GRADIO_SHARE"] = "False"


def start(page: Any, host: str, port: int, share: bool) -> None:
    """Begin to serve a page, in threads.

    Raises:
        FailedRunError: When it does not start.
    """
    from starlette.middleware import Middleware

    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=share,
            quiet=True,
            prevent_thread_lock=True,
            inbrowser=False,
            footer_links=[],
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            run_history=False,
            max_file_size=MAX_IMAGE_BYTES,
            app_kwargs={"middleware": [Middleware(ClosedPage)]},
            theme=build_theme(),
            css_paths=STYLE,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise FailedRunError(f"the page does not start: {error}") from None
    if share and not page.share_url:
        page.close(verbose=False)
        raise FailedRunError(
            "Gradio's relay gives no public address; leave out --share, or look at this machine's network"
        )


def build_theme() -> Any:
    """Return the page's look: fonts that are there, and a button whose words stand out from it."""
    import gradio as gr

    theme = gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=MONO_FONTS)
    return theme.set(button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700")
