"""Calls of tools in an answer: which text the guard reads of them, and the form in which they go on."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from llava.errors import InputError
from llava.files import parse_json, replace_surrogates
from llava.protector.streaming.pieces import join_surrogates

PLAIN_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
MOST_CALLS = 128


def clean_call(call: Any) -> dict[str, Any] | None:
    """Return a call in OpenAI's form with nothing in it that `describe_call` does not read; None when it is no call.

    Example:
        >>> clean_call({"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}, "note": "x"})
        {'id': 'c1', 'type': 'function', 'function': {'name': 'f', 'arguments': '{"a": 1}'}}
    """
    if not isinstance(call, Mapping):
        return None
    number = call.get("id")
    kind, text = ("custom", "input") if isinstance(call.get("custom"), Mapping) else ("function", "arguments")
    inner = call.get(kind)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        return None
    return {
        # What stands for the call and nothing more; any other text would not be checked.
        "id": number if isinstance(number, str) and PLAIN_ID.fullmatch(number) else f"call_{secrets.token_hex(12)}",
        "type": kind,
        kind: {"name": inner["name"], text: _to_text(inner.get(text))},
    }


def clean_function(call: Any) -> dict[str, str] | None:
    """Return a call in the old form (`function_call`), as `clean_call` does."""
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        return None
    return {"name": call["name"], "arguments": _to_text(call.get("arguments"))}


def describe_call(call: Mapping[str, Any], tool_names: Collection[str]) -> str:
    """Return the text of a call that the guard reads; empty when it says nothing.

    Of arguments in JSON that is every text in them, names of fields included: escapes would hide the words. A tool's
    name is read where nobody offered it, for then it is the model's own words.

    Args:
        call: A cleaned call, of either form.
        tool_names: Tools that the request offers.

    Example:
        >>> describe_call({"name": "f", "arguments": '{"city": "\\\\u0042onn", "days": 3}'}, {"f"})
        'city\\nBonn\\ndays'
    """
    inner = call.get("function") or call.get("custom") or call
    said = [] if inner["name"] in tool_names else [inner["name"]]
    text = inner.get("arguments", inner.get("input", ""))
    try:
        values = parse_json(text, "arguments") if "arguments" in inner else text
    except InputError:
        values = text
    if isinstance(values, Mapping | list):
        said += list(_list_texts(values))
    else:
        said.append(str(text))
    return "\n".join(part for part in said if part.strip())


class CallAssembler:
    """Puts calls together that arrive in pieces; none is shown before it is whole."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, pieces: Any) -> None:
        """Take the `tool_calls` of one delta; what is no piece of a call is passed over."""
        for place, piece in enumerate(pieces if isinstance(pieces, list) else []):
            if not isinstance(piece, Mapping):
                continue
            index = piece.get("index")
            # Some servers send whole calls without an index, one after another.
            number = index if isinstance(index, int) else len(self._calls) if piece.get("id") else place
            if number not in self._calls and len(self._calls) >= MOST_CALLS:
                continue
            self._join(self._calls.setdefault(number, {}), piece)

    def add_function(self, piece: Any) -> None:
        """Take the `function_call` of one delta."""
        if isinstance(piece, Mapping):
            self._join(self._calls.setdefault(0, {}), {"function": piece})

    def list_calls(self) -> list[dict[str, Any]]:
        """Return the whole calls in their order."""
        found = [clean_call(_join_characters(self._calls[number])) for number in sorted(self._calls)]
        return [call for call in found if call is not None]

    def _join(self, call: dict[str, Any], piece: Mapping[str, Any]) -> None:
        """Add a piece to a call: texts grow, an id comes once."""
        if isinstance(piece.get("id"), str):
            call.setdefault("id", piece["id"])
        for kind in ("function", "custom"):
            inner = piece.get(kind)
            if isinstance(inner, Mapping):
                known = call.setdefault(kind, {})
                for name in ("name", "arguments", "input"):
                    if inner.get(name):
                        known[name] = known.get(name, "") + _to_text(inner[name])


def _join_characters(value: Any) -> Any:
    """Return a call whose texts, cut into pieces inside characters, are whole again."""
    if isinstance(value, dict):
        return {name: _join_characters(inner) for name, inner in value.items()}
    return replace_surrogates(join_surrogates(value)) if isinstance(value, str) else value


def _to_text(value: Any) -> str:
    """Return arguments as the text that they should be; some servers send an object."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _list_texts(value: Any) -> Iterator[str]:
    """Give every text in a JSON value, in its order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _list_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _list_texts(inner)
