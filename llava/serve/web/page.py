"""The page itself: its fields, what each of them starts, and nothing that is shared between two visitors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.data.benchmarks.sample import SAMPLE_FOLDER
from llava.serve.web.answering import STEP, Answering
from llava.serve.web.exchange import Exchange
from llava.serve.web.plot import render_plot
from llava.serve.web.rendering import render_guarded, render_unguarded, render_verdict

if TYPE_CHECKING:
    from gradio import Blocks, Image

TITLE = "MLLM-Protector"
HOUR_SECONDS = 3600
"""How long what a visitor left is kept."""
JUDGEMENTS = 2
"""Answers that are judged anew at a time; new ones are written one at a time."""
EXAMPLES = (
    ("benign/03-Malware_Generation-0.jpg", "How do I kill a program that has stopped responding on my laptop?"),
    ("benign/01-Illegal_Activitiy-0.jpg", "How do I steal a base in a game of softball?"),
    (None, "Write a short insult for a colleague who is always late."),
)
"""Questions that can be tried with one press."""
Shown = tuple[Exchange | None, str, str, str, str]


def build_page(answering: Answering, queue_limit: int) -> Blocks:
    """Build the page; needs Gradio.

    Args:
        answering: What it asks.
        queue_limit: Questions that may wait.
    """
    import gradio as gr

    # Kept by Gradio for each visitor, and forgotten an hour after he left.
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(HOUR_SECONDS, HOUR_SECONDS)) as page:
        exchange = gr.State(None, time_to_live=HOUR_SECONDS)
        gr.HTML(render_header(answering), elem_id="header")
        with gr.Row(elem_id="asking"):
            image = gr.Image(label="Image", type="filepath", sources=["upload", "clipboard"], height=210, buttons=[])
            keep_uploads_alone(image)
            with gr.Column(min_width=300):
                question = gr.Textbox(label="Question", lines=1, max_lines=5, elem_id="question")
                with gr.Row(elem_id="buttons"):
                    ask = gr.Button("Ask", variant="primary", elem_id="ask", min_width=90)
                    stop = gr.Button("Stop", elem_id="stop", min_width=90)
                threshold = gr.Slider(
                    *(0, 1, answering.protector.threshold),
                    step=STEP,
                    label="Threshold",
                    info=f"Harm score that is flagged; the guard's own: {answering.protector.threshold:.3f}",
                    elem_id="threshold",
                    buttons=[],
                )
        verdict = gr.HTML(render_verdict(None), elem_id="verdict")
        with gr.Row(elem_id="answers"):
            unguarded = gr.HTML(render_unguarded(None), elem_id="unguarded", min_width=300)
            guarded = gr.HTML(render_guarded(None), elem_id="guarded", min_width=300)
        plot = gr.HTML(render_plot(None), elem_id="plot")
        with gr.Row(elem_id="examples"):
            gr.Examples([list(place_example(*example)) for example in EXAMPLES], [image, question], label="To try")

        shown = [exchange, verdict, unguarded, guarded, plot]
        quiet: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": verdict, "api_visibility": "private"}
        moved = threshold.change(
            judge_with(answering),
            [exchange, threshold],
            shown,
            trigger_mode="always_last",
            concurrency_limit=JUDGEMENTS,
            concurrency_id="judge",
            **quiet,
        )
        asked = gr.on(
            [ask.click, question.submit],
            ask_with(answering),
            [question, image, threshold],
            shown,
            concurrency_limit=1,
            cancels=[moved],
            **quiet,
        )
        # The slider may have been moved meanwhile.
        asked.then(judge_with(answering), [exchange, threshold], shown, concurrency_id="judge", **quiet)
        stop.click(finish_with(answering), [exchange], shown, cancels=[asked], concurrency_id="judge", **quiet)
    return page.queue(max_size=queue_limit, api_open=False)


def show(exchange: Exchange | None) -> Shown:
    """Return an exchange and the four parts of the page that show it."""
    return (
        exchange,
        render_verdict(exchange),
        render_unguarded(exchange),
        render_guarded(exchange),
        render_plot(exchange),
    )


def ask_with(answering: Answering) -> Callable[[str, str | None, float], Iterator[Shown]]:
    """Return what asking starts."""

    def ask(question: str, image: str | None, threshold: float) -> Iterator[Shown]:
        moments = answering.ask(question, image, threshold)
        try:
            yield from map(show, moments)
        finally:
            close(moments)  # a visitor who goes, or stops the answer, stops the model

    return ask


def judge_with(answering: Answering) -> Callable[[Exchange | None, float], Iterator[Any]]:
    """Return what moving the slider starts."""

    def judge(exchange: Exchange | None, threshold: float) -> Iterator[Any]:
        import gradio as gr

        moments = answering.judge(exchange, threshold) if exchange else iter(())
        moment = None
        for moment in moments:
            yield show(moment)
        if moment is None:
            yield (gr.skip(),) * 5

    return judge


def finish_with(answering: Answering) -> Callable[[Exchange | None], Any]:
    """Return what the button for stopping starts: what is there of the answer is judged."""

    def finish(exchange: Exchange | None) -> Any:
        import gradio as gr

        if exchange is None or not exchange.writing:
            return (gr.skip(),) * 5
        return show(answering.finish(exchange))

    return finish


def close(moments: Iterable[Exchange]) -> None:
    """End an iterator that may be a generator."""
    if hasattr(moments, "close"):
        moments.close()


def keep_uploads_alone(image: Image) -> None:
    """Let a field hand on the file that was uploaded, and nothing else.

    By itself it decodes pictures without the limits of `open_image`, and fetches one when a client sends an address.
    """
    import gradio as gr

    keep = image.async_move_resource_to_block_cache

    async def keep_local(place: str | Path | None) -> str | None:
        if place is not None and "://" in str(place):
            raise gr.Error("an image must be uploaded; addresses are not fetched", print_exception=False)
        return await keep(place)

    image.async_move_resource_to_block_cache = keep_local
    image.preprocess = lambda payload: payload and payload.path


def place_example(image: str | None, question: str) -> tuple[str | None, str]:
    """Return an example with its image's path.

    Example:
        >>> place_example(None, "Why?")
        (None, 'Why?')
    """
    return image and str(SAMPLE_FOLDER / image), question


def render_header(answering: Answering) -> str:
    """Return the page's head."""
    from llava.serve.web.rendering import escape

    protector = answering.protector
    rewriter = "flagged answers are rewritten" if protector.detoxifier else "flagged answers are refused"
    return (
        f'<header class="mp-header"><h1>{TITLE}</h1><p>{escape(answering.speaker.name)}, guarded by '
        f"{escape(protector.detector.name)}; {rewriter}</p></header>"
    )
