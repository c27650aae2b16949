"""One choice of an answer that is guarded while it is written."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from llava.constants import WITHHELD
from llava.data.schema import Action, GuardFailure, GuardResult
from llava.protector.outcomes import DETECTOR
from llava.serve.chat.calls import CallAssembler, describe_call
from llava.serve.chat.guarding import (
    CALL_FIELDS,
    FILTERED,
    SAID_FIELDS,
    AnswerGuard,
    clean_finish,
    is_held,
    list_unread,
    read_text,
)
from llava.serve.errors import BusyError
from llava.serve.streams import GuardedStream

logger = logging.getLogger(__name__)
SEPARATOR = "\n\n"
"""Stands between what was shown of an answer and what replaces the rest of it."""
Delta = dict[str, Any]
"""A choice of a chunk."""


class TextGuard:
    """One text of a choice: `content`, or the thoughts before it.

    Blanks before the first word wait for it: a text without a word says nothing, and there is nothing to judge.
    """

    def __init__(self, guard: AnswerGuard):
        """Open nothing yet."""
        self.guard = guard
        self.stream: GuardedStream | None = None
        self.blanks = ""
        self.busy: GuardResult | None = None
        self.shown = False

    @property
    def stopped(self) -> bool:
        """Whether nothing more of the text is shown."""
        return self.busy is not None or (self.stream is not None and self.stream.stopped)

    @property
    def result(self) -> GuardResult | None:
        """What was decided; None for a text without a word, or before the end."""
        return self.busy or (self.stream.result if self.stream else None)

    @property
    def replacement(self) -> str:
        """What stands in place of what is not shown."""
        found = WITHHELD if self.busy or self.stream is None else self.stream.replacement
        return found or ""

    async def add(self, piece: str) -> str:
        """Take a piece and return what may be shown now."""
        if self.stopped:
            return ""
        if self.stream is None:
            piece, self.blanks = self.blanks + piece, ""
            if not piece.strip():
                self.blanks = piece
                return ""
            try:
                self.stream = await self.guard.open()
            except BusyError as error:
                logger.warning("a text is withheld: too many streams")
                failure = GuardFailure(DETECTOR, type(error).__name__, str(error))
                self.busy = GuardResult(WITHHELD, piece, None, True, Action.WITHHELD, "too many streams", failure)
                return ""
        return self._note(await self.stream.add(piece))

    async def finish(self) -> str:
        """Say that the text is whole and return the rest of what may be shown."""
        if self.busy:
            return ""
        if self.stream is None:
            return self.blanks
        return self._note("" if self.stream.stopped else await self.stream.finish())

    def close(self) -> None:
        """Let the stream go."""
        if self.stream is not None:
            self.stream.close()

    def _note(self, text: str) -> str:
        """Keep whether anything was shown."""
        self.shown = self.shown or bool(text)
        return text


class ChoiceGuard:
    """One choice of several: its texts are let go as they are judged, its calls when they are whole and judged."""

    def __init__(self, index: int, guard: AnswerGuard):
        """Wait for the first piece.

        Args:
            index: Its number.
            guard: Knows request and guard.
        """
        self.index = index
        self.guard = guard
        self.texts: dict[str, TextGuard] = {}
        self.tools = CallAssembler()
        self.function = CallAssembler()
        self.removed: set[str] = set()
        self.ended = False
        self.was_cut = False
        self.begun = False

    async def take(self, entries: list[Mapping[str, Any]]) -> list[Delta]:
        """Take pieces that came together and return what may be shown now."""
        deltas: list[Delta] = []
        finish: str | None = None
        for field, text in self._join(entries).items():
            deltas += await self._add(field, text)
            if self.ended:
                return deltas
        for entry in entries:
            finish = clean_finish(entry.get("finish_reason")) if entry.get("finish_reason") else finish
        return deltas + (await self.finish(finish) if finish else [])

    async def finish(self, reason: str | None) -> list[Delta]:
        """End the choice: the rest of its texts, then its calls, then why it ended.

        Args:
            reason: The model's reason; None where the answer ended without one.
        """
        deltas: list[Delta] = []
        if self.ended:
            return deltas
        for field, text in list(self.texts.items()):
            rest = await text.finish()
            deltas += self._show({field: rest}) if rest else []
            if field == "content" and text.stopped:
                return deltas + self._cut()
        found, shown = await self._check_calls()
        held = any(is_held(result) for result in found.values()) or any(text.stopped for text in self.texts.values())
        said = shown or any(text.shown for text in self.texts.values())
        if held and not said and (refusal := self.guard.choose_refusal([*self._results().values(), *found.values()])):
            deltas += self._show({"content": refusal})
        deltas += self._show(shown) if shown else []
        return deltas + self._end(FILTERED if held else clean_finish(reason), found)

    def close(self) -> None:
        """Let go of everything."""
        for text in self.texts.values():
            text.close()

    async def _add(self, field: str, piece: str) -> list[Delta]:
        """Put a piece of one text through its guard."""
        text = self.texts.setdefault(field, TextGuard(self.guard))
        shown = await text.add(piece)
        deltas = self._show({field: shown}) if shown or not self.begun else []
        if field == "content" and text.stopped:
            deltas += self._cut()
        return deltas

    def _join(self, entries: list[Mapping[str, Any]]) -> dict[str, str]:
        """Return the texts of several pieces by their fields; pieces of calls are put aside."""
        joined: dict[str, str] = {}
        for entry in entries:
            delta = entry.get("delta")
            if not isinstance(delta, Mapping):
                continue
            self.removed.update(list_unread(delta))
            for field in SAID_FIELDS:
                text, cut = read_text(delta.get(field))
                self.removed.update([f"{field} parts"] if cut else [])
                if text or (field == "content" and delta.get(field) is not None):
                    joined[field] = joined.get(field, "") + text
            self.tools.add(delta.get("tool_calls"))
            self.function.add_function(delta.get("function_call"))
        return joined

    async def _check_calls(self) -> tuple[dict[str, GuardResult], dict[str, Any]]:
        """Judge the calls; return what was decided, and a delta of those that may be shown."""
        names = self.guard.request.tool_names
        calls = [*self.tools.list_calls(), *self.function.list_calls()]
        tools = len(self.tools.list_calls())
        parts = [f"tool_calls[{place}]" if place < tools else CALL_FIELDS[1] for place in range(len(calls))]
        said = {part: describe_call(call, names) for part, call in zip(parts, calls, strict=True)}
        asked = {part: text for part, text in said.items() if text.strip()}
        try:
            found = dict(zip(asked, await self.guard.check(list(asked.values()), rewrite=False), strict=True))
        except BusyError as error:
            failure = GuardFailure(DETECTOR, type(error).__name__, str(error))
            found = {
                part: GuardResult(WITHHELD, text, None, True, Action.WITHHELD, "too many texts", failure)
                for part, text in asked.items()
            }
        passed = [part for part in parts if part not in found or not is_held(found[part])]
        shown: dict[str, Any] = {}
        for part, call in zip(parts, calls, strict=True):
            if part not in passed:
                continue
            if part == CALL_FIELDS[1]:
                shown[part] = call["function"]
            else:
                listed = shown.setdefault("tool_calls", [])
                listed.append({"index": len(listed), **call})
        return found, shown

    def _cut(self) -> list[Delta]:
        """End a choice whose answer is stopped: what replaces the rest of it, and why it ended."""
        self.was_cut = True
        content = self.texts["content"]
        deltas: list[Delta] = []
        if self.guard.replaces and content.replacement:
            deltas = self._show({"content": (SEPARATOR if content.shown else "") + content.replacement})
        return deltas + self._end(FILTERED, {})

    def _end(self, reason: str, calls: Mapping[str, GuardResult]) -> list[Delta]:
        """Return the last delta of the choice, which says what was decided."""
        self.ended = True
        self.close()
        verdict = self.guard.describe({**self._results(), **calls}, self.removed)
        deltas = [] if self.begun else self._show({})
        return [*deltas, {"index": self.index, "delta": {}, "finish_reason": reason, "mllm_protector": verdict}]

    def _results(self) -> dict[str, GuardResult]:
        """Return what was decided about each text that said something."""
        return {field: result for field, text in self.texts.items() if (result := text.result) is not None}

    def _show(self, delta: dict[str, Any]) -> list[Delta]:
        """Return a delta as a choice of a chunk; before the first one, another that says who speaks."""
        shown = [{"index": self.index, "delta": delta, "finish_reason": None}] if any(delta.values()) else []
        if not self.begun:
            self.begun = True
            first = {"role": "assistant", "content": ""}
            shown.insert(0, {"index": self.index, "delta": first, "finish_reason": None})
        return shown
