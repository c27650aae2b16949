"""The settings of a server, each with its meaning, checked before anything is loaded."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches

from llava.bounds import BOUNDS, check_bounds
from llava.errors import InputError
from llava.fields import describe_value
from llava.protector.guards.base import check_threshold

REWRITE, REFUSE, BLOCK = "rewrite", "refuse", "block"
ACTIONS = (REWRITE, REFUSE, BLOCK)
"""What is done with a flagged text: what is left of it or the detoxifier's rewrite, the fixed refusal, or an end of the
answer without a text in its place (a stream is cut, a guardrail route says `BLOCKED`)."""

ROUTES = (
    "/v1/chat/completions",
    "/v1/moderations",
    "/beta/litellm_basic_guardrail_api",
    "/v1/guardrail/checks",
    "/classify",
)
"""Routes that judge, for which thresholds and actions may be set."""


@dataclass(frozen=True)
class Rule:
    """What holds for one request."""

    threshold: float | None
    """Harm score from which a text is flagged; None takes the guard's own."""
    action: str
    """One of `ACTIONS`."""


@dataclass(frozen=True)
class ServerSettings:
    """How a server listens, whom it lets in, how much it takes, and what it does with a flagged text."""

    host: str = "127.0.0.1"
    """Address to listen on; loopback unless said otherwise."""
    port: int = 8000
    """Port to listen on; 0 takes any free one."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Keys that clients may show; empty lets everybody in. Never printed or logged."""
    allow_anonymous: bool = False
    """Whether a server that others can reach may do without keys."""
    model_name: str | None = None
    """Name of the guard in `/v1/models` and answers; None takes `mllm-protector`."""

    threshold: float | None = None
    """Harm score from which a text is flagged; None takes the guard's own."""
    action: str = REWRITE
    """What is done with a flagged text, one of `ACTIONS`; without a detoxifier a rewrite is the fixed refusal."""
    trim: bool = True
    """Whether, where a flagged text is rewritten, its harmful sentences are cut out first and the rest is shown if it
    passes; guards that cannot say where the harm is do not. A stream is not trimmed."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Thresholds by route (`/v1/chat/completions`) or by model; a model's wins over its route's."""
    actions: Mapping[str, str] = field(default_factory=dict)
    """Actions by route or by model, in the same way."""
    allow_header_threshold: bool = False
    """Whether a request's header `X-Guard-Threshold` is followed; else it is an error."""
    fail_open: bool = False
    """Whether a text passes that the detector could not score. Off: it is withheld."""
    check_prompts: bool = True
    """Whether the guardrail routes judge what users write too, not only what models answer."""

    max_body_bytes: int = 20 << 20
    """Largest body of a request."""
    max_texts: int = 512
    """Most texts in one request to a guardrail route."""
    max_text_chars: int = 100_000
    """Longest text that is judged, in characters; a longer one is an error, and is not passed."""
    max_images: int = 8
    """Most images in one request."""
    max_image_bytes: int = 10 << 20
    """Largest image, as a file."""
    image_urls: bool = False
    """Whether images may be named by an address, which the server then fetches; data URIs always may."""
    rate_limit: float | None = None
    """Requests a minute for each key (without keys: for each client address); None sets no limit."""
    queue_limit: int = 1024
    """Texts that may wait for the detector; a request beyond is turned away with 429."""
    max_streams: int = 256
    """Guarded streams at a time; one more is turned away with 429."""
    batch_size: int = 16
    """Texts in one pass of the detector."""
    body_timeout: float = 30.0
    """Seconds that a request's body may take to arrive."""
    guard_timeout: float = 60.0
    """Seconds that the detector may take for the texts of a request, waiting included; then they are withheld."""
    rewrite_timeout: float = 180.0
    """Seconds that the detoxifier may take, waiting included; then the fixed refusal is shown."""
    request_timeout: float = 600.0
    """Seconds that a model may take for one answer."""
    shutdown_timeout: float = 20.0
    """Seconds that requests get to end after the server was told to stop; then they are cut."""

    look_ahead: int = 16
    """Tokens of a stream that are held back until the guard has read them together with what stands before."""
    max_new_tokens: int = 256
    """Longest rewrite, and longest answer of a model in this process unless the request names one, in tokens."""
    log_text: bool = False
    """Whether logs may hold what users and models write."""

    def __post_init__(self) -> None:
        """Check every value; raise `InputError` naming the one that is wrong."""
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in BOUNDS and value is not None:
                check_bounds(each.name, value)
        for name in (*self.thresholds, *self.actions):
            # Models may be named by a path; but a route that is spelled wrong would be a rule that holds nowhere.
            meant = get_close_matches(name, ROUTES, n=1, cutoff=0.8) if name.startswith("/") else []
            if meant and meant[0] != name:
                raise InputError(f"{name} is no route that judges; {meant[0]} is one")
        for name, value in self.thresholds.items():
            check_threshold(value, f"--threshold-for {name}")
        check_action(self.action, "--action")
        for name, action in self.actions.items():
            check_action(action, f"--action-for {name}")
        if self.max_texts > self.queue_limit:
            raise InputError(f"--max-texts {self.max_texts} is more than --queue-limit {self.queue_limit}; lower it")
        for key in self.api_keys:
            if not key or not all("!" <= letter <= "~" for letter in key):
                raise InputError("an API key holds a blank, a line break or a character that no key has; set it anew")
        if not self.api_keys and not self.allow_anonymous and not self.is_loopback:
            raise InputError(
                f"--host {self.host} lets other machines in, and there is no API key; name a file of keys with "
                "--api-key-file, set MLLM_PROTECTOR_API_KEYS, or say --allow-anonymous"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server.

        Example:
            >>> ServerSettings(host="::1").is_loopback, ServerSettings(host="0.0.0.0", api_keys=("k",)).is_loopback
            (True, False)
        """
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def guard_name(self) -> str:
        """Name of the guard where a model's name is wanted."""
        return self.model_name or "mllm-protector"

    def find_rule(self, route: str, model: str | None, threshold: float | None = None) -> Rule:
        """Return what holds for a request.

        Args:
            route: Its path, such as `/v1/chat/completions`.
            model: The model that it names.
            threshold: What its header asks for, already checked; None where it asks for nothing.

        Example:
            >>> settings = ServerSettings(thresholds={"/classify": 0.3, "strict": 0.1}, actions={"strict": "block"})
            >>> settings.find_rule("/classify", "strict"), settings.find_rule("/classify", None)
            (Rule(threshold=0.1, action='block'), Rule(threshold=0.3, action='rewrite'))
        """
        names = [name for name in (model, route) if name is not None]
        found = next((self.thresholds[name] for name in names if name in self.thresholds), self.threshold)
        action = next((self.actions[name] for name in names if name in self.actions), self.action)
        return Rule(found if threshold is None else threshold, action)


def check_action(action: str, name: str) -> str:
    """Return an action; refuse an unknown one.

    Raises:
        InputError: Naming the option and what it takes.
    """
    if action not in ACTIONS:
        raise InputError(f"{name} is {describe_value(action)}; choose {', '.join(ACTIONS)}")
    return action
