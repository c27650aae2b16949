"""A guarded chat in the terminal: answers appear as they are let go, and one sees when and why the guard steps in."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from llava.data.images import open_image
from llava.data.schema import Action, GuardResult
from llava.errors import InputError, to_one_line
from llava.model.answering.client import build_content
from llava.protector.outcomes import has_words
from llava.serve.chat.messages import ImagePart, Turn
from llava.serve.errors import ApiError
from llava.terminal import clean_text

if TYPE_CHECKING:
    from rich.console import Console

    from llava.protector.protector import Protector
    from llava.serve.terminal.speakers import Speaker

HELP = """/image PATH   send an image with the next message
/clear        forget the conversation
/help         this list
/quit         end (so does the end of the input)"""
PROMPT = "you> "
FINE, STEPPED_IN = "dim", "bold yellow"
REFRESHES = 8.0
"""Times a second that two answers side by side are drawn anew."""


class PlainView:
    """Shows a guarded answer as it is let go."""

    def __init__(self, console: Console):
        """Begin an answer."""
        self.console = console
        console.print("model> ", end="", style="bold")

    def take(self, raw: str, released: str) -> None:
        """Show what was let go."""
        self.console.out(clean_text(released), end="", highlight=False)

    def close(self) -> None:
        """End the answer."""
        self.console.print()


class CompareView:
    """Shows the guarded answer beside what the model said; both grow."""

    def __init__(self, console: Console):
        """Begin both."""
        self.console = console
        self.raw = self.guarded = ""
        self.live = Live(self._draw(), console=console, refresh_per_second=REFRESHES, vertical_overflow="visible")
        self.live.start()

    def take(self, raw: str, released: str) -> None:
        """Show more of both."""
        self.raw += raw
        self.guarded += released
        self.live.update(self._draw())

    def close(self) -> None:
        """End both."""
        self.live.stop()
        if not self.console.is_terminal:
            self.console.print()  # a file has no cursor that stands below the table

    def _draw(self) -> Table:
        """Return both as they are now."""
        table = Table("guarded", "unguarded", expand=True, show_lines=False)
        table.columns[0].ratio = table.columns[1].ratio = 1
        table.add_row(Text(clean_text(self.guarded)), Text(clean_text(self.raw)))
        return table


class ChatSession:
    """A conversation, and the guard that listens to it."""

    def __init__(
        self,
        speaker: Speaker,
        protector: Protector,
        console: Console,
        *,
        system: str | None = None,
        compare: bool = False,
        max_new_tokens: int = 256,
    ):
        """Begin a conversation.

        Args:
            speaker: Who answers.
            protector: The guard.
            console: Where it is shown.
            system: What the model is told before everything else.
            compare: Whether the unguarded answer is shown too, beside the guarded one.
            max_new_tokens: Longest rewrite, in tokens.
        """
        self.speaker = speaker
        self.protector = protector
        self.console = console
        self.beginning = [Turn("system", (system,))] if system else []
        self.compare = compare
        self.max_new_tokens = max_new_tokens
        self.turns = list(self.beginning)
        self.images: list[ImagePart] = []

    def run(self, lines: Iterator[str]) -> None:
        """Answer every line; those that begin with a slash are commands."""
        threshold = f"threshold {self.protector.threshold:.2f}"
        self.console.print(
            f"{self.speaker.name}, guarded by {self.protector.detector.name} ({threshold}); /help lists commands",
            soft_wrap=True,
        )
        for line in lines:
            word, _, rest = line.strip().partition(" ")
            if word == "/quit":
                return
            try:
                if word.startswith("/"):
                    self._obey(word, rest.strip())
                elif word:
                    self._answer(line.strip())
            except (InputError, ApiError) as error:
                self.console.print(f"error: {to_one_line(str(error))}", style="red", soft_wrap=True)

    def _obey(self, word: str, rest: str) -> None:
        """Follow a command."""
        if word == "/image" and rest:
            image = open_image(rest)
            holder = build_content("", image)[0]["image_url"]
            self.images.append(ImagePart(holder, image))
            self.console.print(
                f"{rest} ({image.width} x {image.height}) goes with your next message", style=FINE, soft_wrap=True
            )
        elif word == "/clear":
            self.turns, self.images = list(self.beginning), []
            self.console.print("forgotten", style=FINE, soft_wrap=True)
        elif word in ("/help", "/image"):
            self.console.print(HELP)
        else:
            raise InputError(f"{word} is no command; /help lists them")

    def _answer(self, text: str) -> None:
        """Answer a message and show what the guard made of it."""
        asked = [*self.turns, Turn("user", (*self.images, text))]
        prompt = "\n\n".join(turn.text for turn in asked if turn.role == "user")
        stream = self.protector.open_stream(prompt, max_new_tokens=self.max_new_tokens)
        view: Any = CompareView(self.console) if self.compare else PlainView(self.console)

        def take(piece: str) -> bool:
            view.take(piece, stream.add(piece))
            return self.compare or not stream.stopped

        try:
            try:
                self.speaker.say(asked, take)
                interrupted = False
            except KeyboardInterrupt:
                interrupted = True
            if has_words(stream.text):
                view.take("", stream.finish())
            if stream.stopped:
                view.take("", stream.joint + stream.replacement)
        finally:
            view.close()
        if interrupted:
            self.console.print("[ended by you]", style=FINE, soft_wrap=True)
        result = stream.result
        self._explain(
            result, len(stream.released), any(isinstance(part, ImagePart) for turn in asked for part in turn.parts)
        )
        # What the user saw is what was said.
        self.turns = [*asked, Turn("assistant", (result.text if result else "",))]
        self.images = []

    def _explain(self, result: GuardResult | None, released: int, with_image: bool) -> None:
        """Say what the guard decided and why, and what it did not look at."""
        if result is None:
            self.console.print("[the model said nothing]", style=FINE, soft_wrap=True)
            return
        unseen = "; images are not looked at" if with_image else ""
        note = describe_decision(result, self.protector.threshold, released)
        style = FINE if result.action is Action.PASSED else STEPPED_IN
        self.console.print(f"[guard: {note}{unseen}]", style=style, soft_wrap=True)


def describe_decision(result: GuardResult, threshold: float, released: int) -> str:
    """Return in words what the guard decided, and why.

    Args:
        result: Its decision.
        threshold: Harm score from which it steps in.
        released: Characters that had been shown.

    Example:
        >>> describe_decision(GuardResult("Sorry.", "Harm.", 0.9, True, Action.REFUSED), 0.5, 0)
        'stepped in before the first word, harm score 0.90 is not below 0.50; refused'
    """
    if result.action is Action.PASSED:
        return f"passed, harm score {result.harm_score or 0.0:.2f} is below {threshold:.2f}"
    where = f"after {released} characters" if released else "before the first word"
    if result.harm_score is None:
        return f"stepped in {where}, the answer could not be judged: {result.reason or 'no score'}"
    why = f"harm score {result.harm_score:.2f} is not below {threshold:.2f}; {result.action.value}"
    return f"stepped in {where}, {why}" + (f" ({result.reason})" if result.reason else "")


def read_lines() -> Iterator[str]:
    """Give the lines that the user types, or those of a file or pipe."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):  # Windows has none
        import readline  # noqa: F401 - lines can be edited then
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            print()
            return
