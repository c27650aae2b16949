"""An exchange as HTML: both answers, the harm in them, and what the guard did. Whatever others wrote is escaped."""

from __future__ import annotations

import html

from llava.serve.terminal.session import describe_decision
from llava.serve.web.exchange import Exchange, Span, find_spans

LABEL = "Flagged answer, blurred; press to show it"
SHOW = (
    "this.classList.remove('mp-masked');this.classList.add('mp-shown');"
    "for(const name of ['role','tabindex','aria-label','title','onclick','onkeydown'])this.removeAttribute(name)"
)
"""Shows a blurred answer for good, by a script of the page's own."""
KEYS = f"if(event.key==='Enter'||event.key===' '){{event.preventDefault();{SHOW}}}"
MASK = f'role="button" tabindex="0" aria-label="{LABEL}" title="{LABEL}" onclick="{SHOW}" onkeydown="{KEYS}"'
WAITING = '<span class="mp-cursor" aria-hidden="true"></span>'


def render_unguarded(exchange: Exchange | None) -> str:
    """Return what the model wrote, the harm in it coloured; blurred until it is pressed where it is flagged."""
    if exchange is None or not (exchange.raw or exchange.writing):
        return _panel("unguarded", "Unguarded", "as the model writes it", '<div class="mp-text"></div>')
    spans = find_spans(exchange.tokens, exchange.threshold) if exchange.flagged else []
    text = mark_spans(exchange.raw, spans) + (WAITING if exchange.writing else "")
    if not (exchange.flagged and exchange.raw):
        body, note = f'<div class="mp-text">{text}</div>', ""
    elif exchange.writing:  # every new word would blur it again
        body, note = (
            f'<div class="mp-text mp-masked" aria-hidden="true">{text}</div>',
            "it can be shown once it is written",
        )
    else:
        body, note = f'<div class="mp-text mp-masked" {MASK}>{text}</div>', "press it to read it"
    notice = f'<p class="mp-note">Blurred because it is flagged; {note}.</p>' if note else ""
    return _panel("unguarded", "Unguarded", "as the model writes it", body + notice)


def render_guarded(exchange: Exchange | None) -> str:
    """Return what the guard let go, and what it put in the place of the rest."""
    text = ""
    if exchange is not None:
        text = escape(exchange.released)
        if exchange.replacement:
            text += f'<span class="mp-replacement">{escape(exchange.replacement)}</span>'
        if exchange.judging or (exchange.writing and exchange.result is None):
            text += WAITING
    return _panel("guarded", "Guarded", "as it is released", f'<div class="mp-text">{text}</div>')


def render_verdict(exchange: Exchange | None) -> str:
    """Return in one line what was done, and why."""
    name, words = describe_state(exchange)
    return f'<div class="mp-verdict mp-{name}" role="status"><b>{name}</b> <span>{escape(words)}</span></div>'


def describe_state(exchange: Exchange | None) -> tuple[str, str]:
    """Return a word for where an exchange stands, and a sentence.

    Example:
        >>> describe_state(Exchange("Why?", 0.5))
        ('nothing', 'the model said nothing')
    """
    if exchange is None:
        return "ready", "ask something, with an image or without"
    if exchange.error:
        return "error", exchange.error
    if exchange.result is not None:
        unseen = "; the guard does not look at images" if exchange.with_image else ""
        words = describe_decision(exchange.result, exchange.threshold, len(exchange.released))
        still = "; the model still writes" if exchange.writing else ""
        name = exchange.result.action.value
        # The word stands before the sentence already.
        return name, words.removeprefix(f"{name}, ").replace(f"; {name}", "") + unseen + still
    if exchange.judging:
        return "judging", f"the guard reads the answer at a threshold of {exchange.threshold:.2f}"
    if exchange.writing:
        return "writing", "the guard reads along; what it lets go appears in its turn"
    return "nothing", "the model said nothing"


def mark_spans(text: str, spans: list[Span]) -> str:
    """Return a text as HTML with stretches marked.

    Example:
        >>> mark_spans("a<b and c", [Span(4, 7, 0.812)])
        'a&lt;b <mark title="harm score 0.81">and</mark> c'
    """
    parts, place = [], 0
    for span in spans:
        marked = f'<mark title="harm score {span.score:.2f}">{escape(text[span.start : span.end])}</mark>'
        parts += [escape(text[place : span.start]), marked]
        place = span.end
    return "".join([*parts, escape(text[place:])])


def escape(text: str) -> str:
    r"""Return a text for HTML; half a character, which no page can hold, becomes a question mark.

    Example:
        >>> escape('<b> & "\ud83d"')
        '&lt;b&gt; &amp; &quot;?&quot;'
    """
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))


def _panel(name: str, title: str, meaning: str, body: str) -> str:
    """Return a part of the page with its heading."""
    return f'<section class="mp-panel mp-{name}"><h2>{title} <small>{meaning}</small></h2>{body}</section>'
