"""Reading a chat request: every turn, every part, and nothing that could not be guarded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.fields import Fields, describe_value
from llava.serve.errors import ApiError

if TYPE_CHECKING:
    from PIL.Image import Image

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MOST_CHOICES = 16
MOST_TURNS = 2048
MOST_STOPS = 16
MOST_TOKENS = 1 << 20
SEED_LIMIT = 1 << 63
REMEDY = "see the API reference of chat completions"


@dataclass
class ImagePart:
    """An image of a turn."""

    holder: dict[str, Any]
    """The object in the request whose `url` names it; what goes to an upstream is changed there."""
    image: Image | None = None
    """The decoded image, once it was checked."""

    @property
    def url(self) -> str:
        """Data URI or address."""
        return str(self.holder["url"])


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: str
    """One of `ROLES`."""
    parts: tuple[str | ImagePart, ...]
    """Texts and images in their order."""

    @property
    def text(self) -> str:
        """Its texts, a line each."""
        return "\n".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True)
class ChatRequest:
    """A request for a chat completion, checked."""

    body: dict[str, Any]
    """The whole request as it came; an upstream gets it, fields that are unknown here included."""
    model: str | None
    """Which model is asked."""
    turns: tuple[Turn, ...]
    """The conversation."""
    choices: int
    """Answers wanted (`n`)."""
    stream: bool
    """Whether the answer comes in pieces."""
    include_usage: bool
    """Whether a stream ends with a chunk that says how many tokens it took."""
    stop: tuple[str, ...]
    """Texts before which an answer ends."""
    max_tokens: int | None
    """Longest answer in tokens; None leaves it to the model's server."""
    temperature: float | None
    """Sampling temperature; None takes the protocol's default."""
    top_p: float | None
    """Share of the likeliest tokens that are sampled from; None takes all."""
    seed: int | None
    """Seed of sampling; None draws one."""
    tool_names: frozenset[str]
    """Tools that the model may call."""

    @property
    def prompt(self) -> str:
        """What the guard reads as the question: the texts of all user turns in their order, a blank line between them.

        Harm is judged in context, and a request may be spread over several turns. An answer that the last turn has
        begun is read too: models go on from it.
        """
        last = len(self.turns) - 1
        read = [
            turn.text
            for place, turn in enumerate(self.turns)
            if turn.role == "user" or (turn.role == "assistant" and place == last)
        ]
        return "\n\n".join(text for text in read if text)

    @property
    def images(self) -> list[ImagePart]:
        """All images of the conversation."""
        return [part for turn in self.turns for part in turn.parts if isinstance(part, ImagePart)]


def parse_chat(body: Any) -> ChatRequest:
    """Read the body of a request.

    Args:
        body: What its JSON holds; images are noted, not opened.

    Raises:
        ApiError: With status 400, naming the field that is wrong.

    Example:
        >>> request = parse_chat({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "n": 2})
        >>> request.prompt, request.choices, request.stream
        ('Hi', 2, False)
    """
    try:
        return _read_request(Fields(body, "the request", REMEDY))
    except InputError as error:
        raise ApiError(400, str(error)) from None


def _read_request(fields: Fields) -> ChatRequest:
    """Read a request; `InputError` says what is wrong."""
    _refuse_unguarded(fields)
    stream = bool(fields.flag("stream", None))
    messages = fields.items("messages")
    if not 1 <= len(messages) <= MOST_TURNS:
        raise InputError(f"the request: 'messages' holds {len(messages)} messages, not 1 to {MOST_TURNS}")
    options = _inner(fields, "stream_options")
    choices = fields.integer("n", None, least=1, most=MOST_CHOICES)
    return ChatRequest(
        body=dict(fields.values),
        model=fields.text("model", None),
        turns=tuple(_read_turn(message, place) for place, message in enumerate(messages)),
        choices=choices or 1,
        stream=stream,
        include_usage=stream and bool(options.flag("include_usage", None)),
        stop=_read_stops(fields),
        max_tokens=_read_max_tokens(fields),
        temperature=fields.number("temperature", None, least=0, most=1000),
        top_p=fields.number("top_p", None, least=0, most=1),
        seed=fields.integer("seed", None, least=-SEED_LIMIT, most=SEED_LIMIT - 1),
        tool_names=frozenset(_list_tool_names(fields)),
    )


def _refuse_unguarded(fields: Fields) -> None:
    """Refuse what an answer could then hold that no guard can check."""
    modalities = fields.texts("modalities", None)
    if modalities is not None and modalities != ["text"]:
        raise InputError("the request: 'modalities' asks for more than text, which could not be checked; leave it out")
    if fields.values.get("audio") is not None:
        raise InputError("the request: 'audio' asks for speech, which could not be checked; leave it out")
    if fields.values.get("stream") and fields.values.get("logprobs"):
        raise InputError("the request: 'logprobs' would show words before they are checked; leave it or 'stream' out")


def _inner(fields: Fields, name: str) -> Fields:
    """Return the reader of an object that may be absent."""
    return Fields(fields.mapping(name, None) or {}, f"{fields.where}, '{name}'", fields.remedy)


def _read_stops(fields: Fields) -> tuple[str, ...]:
    """Return the stop texts, which come alone or as a list."""
    value = fields.values.get("stop")
    listed = None if isinstance(value, str) else fields.texts("stop", None)
    stops = [value] if isinstance(value, str) else listed or []
    if len(stops) > MOST_STOPS or not all(stops):
        raise InputError(f"the request: 'stop' holds an empty text, or more than {MOST_STOPS} texts; {REMEDY}")
    return tuple(stops)


def _read_max_tokens(fields: Fields) -> int | None:
    """Return the longest answer in tokens, by whichever of its two names it goes."""
    found = {
        value
        for name in ("max_completion_tokens", "max_tokens")
        if (value := fields.integer(name, None, least=1, most=MOST_TOKENS)) is not None
    }
    if len(found) > 1:
        raise InputError("the request: 'max_tokens' and 'max_completion_tokens' differ; give one of them")
    return found.pop() if found else None


def _list_tool_names(fields: Fields) -> list[str]:
    """Return the names of the tools that are offered, in the form of today and in the old one."""
    names = []
    tools, functions = fields.items("tools", None), fields.items("functions", None)
    for place, tool in enumerate(tools or []):
        entry = Fields(tool, f"the request, tool {place + 1}", REMEDY)
        kind = entry.text("type")
        inner = entry.values.get(kind)
        if isinstance(inner, Mapping):
            names.append(Fields(inner, entry.where, REMEDY).text("name"))
    for place, function in enumerate(functions or []):
        names.append(Fields(function, f"the request, function {place + 1}", REMEDY).text("name"))
    return names


def _read_turn(message: Any, place: int) -> Turn:
    """Read one message."""
    fields = Fields(message, f"message {place + 1}", REMEDY)
    role = fields.text("role", choices=ROLES)
    content = fields.values.get("content")
    if content is None and role == "assistant":
        # It called a tool and said nothing.
        return Turn(role, ())
    if isinstance(content, str):
        return Turn(role, (content,))
    if not isinstance(content, list):
        raise fields.refuse("content", "a text or a list of parts")
    where = f"message {place + 1}, part"
    return Turn(role, tuple(_read_part(part, role, f"{where} {number + 1}") for number, part in enumerate(content)))


def _read_part(part: Any, role: str, where: str) -> str | ImagePart:
    """Read one part of a message."""
    fields = Fields(part, where, REMEDY)
    kind = fields.text("type")
    if kind == "text":
        return fields.text("text")
    if kind == "refusal" and role == "assistant":
        return fields.text("refusal")
    if kind != "image_url":
        raise InputError(f"{where} is of type {describe_value(kind)}; only text and image_url are taken")
    if role != "user":
        raise InputError(f"{where} is an image in a message of role {role}; images go into user messages")
    holder = part.get("image_url")
    if isinstance(holder, str):
        # Some clients leave the object out.
        part["image_url"] = holder = {"url": holder}
    fields.inner("image_url").text("url")
    return ImagePart(holder)
