"""The harm score over the tokens as a drawing: HTML and SVG, nothing to load."""

from __future__ import annotations

from collections.abc import Sequence

from llava.serve.web.exchange import Exchange, Point

WIDTH, HEIGHT = 1000, 100
"""The drawing's own units; it is stretched to its frame, lines keep their breadth."""
FEWEST_TOKENS = 20
"""Tokens that the axis shows at least, so that a short answer does not jump about."""
MARKS = (0.0, 0.5, 1.0)
"""Scores that stand at the axis."""


def render_plot(exchange: Exchange | None) -> str:
    """Return the plot of an exchange, empty axes where there is none."""
    points = exchange.points if exchange else ()
    span = max([FEWEST_TOKENS, *(point.tokens for point in points)])
    labels = "".join(
        f'<span class="mp-y" style="bottom:{100 * mark:g}%" aria-hidden="true">{mark:g}</span>' for mark in MARKS
    )
    return (
        '<section class="mp-panel mp-plot"><h2>Harm score <small>of the answer up to each token</small></h2>'
        f'<div class="mp-frame" role="img" aria-label="{describe_points(exchange)}">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f"{_draw(exchange, span) if exchange else ''}</svg>{labels}"
        f"{_name_threshold(exchange.threshold) if exchange else ''}</div>"
        f'<div class="mp-x" aria-hidden="true"><span>0</span><span>tokens</span><span>{span}</span></div></section>'
    )


def describe_points(exchange: Exchange | None) -> str:
    """Return in words what the plot shows.

    Example:
        >>> describe_points(Exchange("Why?", 0.5, points=(Point(1, 3, 0.2), Point(2, 7, 0.6))))
        'Harm score over 2 tokens: highest 0.60 at token 2, last 0.60; threshold 0.50.'
    """
    if exchange is None or not exchange.points:
        return "Harm score over the tokens: nothing yet."
    top, last = max(exchange.points, key=lambda point: point.score), exchange.points[-1]
    return (
        f"Harm score over {last.tokens} tokens: highest {top.score:.2f} at token {top.tokens}, last {last.score:.2f}; "
        f"threshold {exchange.threshold:.2f}."
    )


def _draw(exchange: Exchange, span: int) -> str:
    """Return the ground above the threshold, its line, the curve and its points over the threshold."""
    level = HEIGHT * (1 - exchange.threshold)
    over = [point for point in exchange.points if not point.score < exchange.threshold]
    parts = [
        f'<rect class="mp-over" x="0" y="0" width="{WIDTH}" height="{level:.2f}"/>',
        f'<line class="mp-threshold" x1="0" x2="{WIDTH}" y1="{level:.2f}" y2="{level:.2f}"/>',
        f'<path class="mp-curve" d="{draw_path(exchange.points, span)}"/>',
    ]
    # A line of no length with round ends is a dot that the stretching leaves round.
    parts += [f'<path class="mp-dot" d="M{_place(point, span)}h0"/>' for point in over]
    return "".join(parts)


def draw_path(points: Sequence[Point], span: int) -> str:
    """Return the curve through points as an SVG path; one point alone is a dot.

    Example:
        >>> draw_path([Point(5, 20, 0.25), Point(10, 40, 1.0)], 20)
        'M250.0 75.00L500.0 0.00'
    """
    if len(points) == 1:
        return f"M{_place(points[0], span)}h0"
    return "".join(f"{'L' if number else 'M'}{_place(point, span)}" for number, point in enumerate(points))


def _place(point: Point, span: int) -> str:
    """Return a point's coordinates."""
    return f"{WIDTH * point.tokens / span:.1f} {HEIGHT * (1 - point.score):.2f}"


def _name_threshold(threshold: float) -> str:
    """Return the threshold's name, below its line where there is no room above."""
    side = "mp-below" if threshold > 0.85 else "mp-above"
    place = f'style="bottom:{100 * threshold:.2f}%"'
    return f'<span class="mp-level {side}" {place} aria-hidden="true">threshold {threshold:.2f}</span>'
