"""What the page does: asks the model, guards the answer while it is written, judges it anew at another threshold."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llava.data.images import open_image
from llava.errors import InputError, to_one_line
from llava.model.answering.client import build_content
from llava.protector.outcomes import has_words
from llava.protector.scoring.explanation import TokenScore
from llava.serve.chat.messages import ImagePart, Turn
from llava.serve.errors import ApiError
from llava.serve.web.curve import ScoreCurve
from llava.serve.web.exchange import Exchange

if TYPE_CHECKING:
    from llava.protector.protector import Protector
    from llava.protector.streaming.protected import ProtectedStream
    from llava.serve.terminal.speakers import Speaker

logger = logging.getLogger(__name__)
REFRESH_SECONDS = 0.2
"""Least time between two moments that are shown."""
STEP = 0.001
"""Step of the threshold's slider."""
MOST_CHARACTERS = 20_000
"""Longest question."""


class Answering:
    """A model and its guard, asked by many pages; all that belongs to one page is in its exchange."""

    def __init__(self, speaker: Speaker, protector: Protector, *, max_new_tokens: int = 256):
        """Take who answers, the guard, and the longest rewrite in tokens."""
        self.speaker = speaker
        self.protector = protector
        self.max_new_tokens = max_new_tokens

    def ask(self, question: str, image: str | None, threshold: float) -> Iterator[Exchange]:
        """Ask the model, and give the exchange as it grows; closing the iterator ends the model's answer.

        Args:
            question: What is asked.
            image: File of the image that goes with it, where there is one.
            threshold: Harm score from which the answer is flagged, as on the slider.

        Returns:
            Moments, the last of them whole; what goes wrong stands in its `error`.
        """
        now = Exchange(question, self.choose_threshold(threshold), with_image=image is not None, writing=True)
        yield now
        try:
            turns = [read_question(question, image)]
            for moment in self._follow(now, turns):
                now = moment
                yield now
        except (InputError, ApiError) as error:
            now = replace(now, error=to_one_line(str(error)))
        except Exception as error:
            logger.exception("the model failed")
            now = replace(now, error=f"the model failed: {type(error).__name__}")
        yield self.finish(now)

    def _follow(self, now: Exchange, turns: list[Turn]) -> Iterator[Exchange]:
        """Give moments while the model writes."""
        stream = self._open(now)
        curve = ScoreCurve(self.protector.detector, now.prompt)
        for pieces in say_aside(self.speaker, turns):
            curve.add(pieces)
            stream.add("".join(pieces))
            now = show_stream(replace(now, raw=now.raw + "".join(pieces), points=tuple(curve.points)), stream)
            yield now
        curve.finish()
        if has_words(now.raw):
            stream.finish()
        yield show_stream(replace(now, points=tuple(curve.points)), stream)

    def finish(self, exchange: Exchange) -> Exchange:
        """Return an exchange that is over: what was not judged yet is, and the harm is looked for."""
        now = replace(exchange, writing=False, judging=False)
        if not has_words(now.raw):
            return now
        if now.result is None:
            now = self._judge(now)
        return replace(now, tokens=now.tokens or self._explain(now))

    def judge(self, exchange: Exchange, threshold: float) -> Iterator[Exchange]:
        """Judge an answer that is there at another threshold; the model writes nothing anew.

        The guard's checks lie where the text alone decides, so it does what it would have done while the answer was
        written.

        Args:
            exchange: A finished exchange.
            threshold: The new threshold, as on the slider.

        Returns:
            Moments: at once what follows from the scores that are known, then what the guard does. Nothing where
            nothing changes.
        """
        chosen = self.choose_threshold(threshold)
        if exchange.writing or exchange.result is None or exchange.threshold == chosen:
            return
        now = replace(exchange, threshold=chosen, result=None, released="", replacement="")
        yield replace(now, judging=True)
        yield self._judge(now)

    def choose_threshold(self, value: float) -> float:
        """Return the threshold for a slider's place: the guard's own where that is nearest, and never 0.

        Args:
            value: What the slider says.
        """
        own = self.protector.threshold
        return own if abs(value - own) < STEP else min(1.0, max(STEP, value))

    def _open(self, exchange: Exchange) -> ProtectedStream:
        """Begin a guarded answer."""
        return self.protector.open_stream(
            exchange.prompt, threshold=exchange.threshold, max_new_tokens=self.max_new_tokens
        )

    def _judge(self, exchange: Exchange) -> Exchange:
        """Return an exchange with what the guard makes of the whole answer."""
        stream = self._open(exchange)
        stream.add(exchange.raw)
        stream.finish()
        return show_stream(exchange, stream)

    def _explain(self, exchange: Exchange) -> tuple[TokenScore, ...]:
        """Return the scores of an answer's tokens; none where the detector has none, or fails."""
        explain: Any = getattr(self.protector.detector, "explain", None)
        if explain is None:
            return ()
        try:
            return tuple(explain(exchange.prompt, exchange.raw))
        except Exception:  # the decision stands without it
            logger.exception("the detector failed; no span of an answer is coloured")
            return ()


def read_question(question: str, image: str | None) -> Turn:
    """Return the message of a question and its image.

    Raises:
        InputError: When there is no question, it is too long, or the image cannot be used.
    """
    if not has_words(question):
        raise InputError("there is no question; write one")
    if len(question) > MOST_CHARACTERS:
        raise InputError(f"the question has {len(question)} characters; at most {MOST_CHARACTERS} are taken")
    if image is None:
        return Turn("user", (question,))
    try:
        picture = open_image(image)
    except InputError as error:
        # Where the server keeps an upload is nobody's business.
        raise InputError(str(error).replace(image, "the image")) from None
    holder = build_content("", picture)[0]["image_url"]
    return Turn("user", (ImagePart(holder, picture), question))


def show_stream(exchange: Exchange, stream: ProtectedStream) -> Exchange:
    """Return an exchange with what a guarded stream let go so far."""
    replacement = stream.joint + stream.replacement if stream.stopped else ""
    return replace(exchange, released=stream.released, replacement=replacement, result=stream.result)


def say_aside(speaker: Speaker, turns: list[Turn]) -> Iterator[list[str]]:
    """Let a model answer in a thread of its own; give the pieces that have come since the last time.

    Closing the iterator ends the answer at the next piece.

    Raises:
        Exception: What the model raises.
    """
    pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    ended = threading.Event()
    failures: list[BaseException] = []

    def take(piece: str) -> bool:
        pieces.put(piece)
        return not ended.is_set()

    def say() -> None:
        try:
            speaker.say(turns, take)
        except BaseException as error:  # noqa: BLE001 - raised where the pieces are read
            failures.append(error)
        finally:
            pieces.put(None)

    threading.Thread(target=say, name="answer", daemon=True).start()
    try:
        yield from _read_batches(pieces)
    finally:
        ended.set()
    if failures:
        raise failures[0]


def _read_batches(pieces: queue.SimpleQueue[str | None]) -> Iterator[list[str]]:
    """Give pieces, those that have come meanwhile together, until None comes."""
    while (piece := pieces.get()) is not None:
        batch = [piece]
        time.sleep(REFRESH_SECONDS)
        while not pieces.empty():
            piece = pieces.get()
            if piece is None:
                yield batch
                return
            batch.append(piece)
        yield batch
