"""A guard on another machine: vLLM, or a second `mllm-protector serve`, asked over `/classify`."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from llava.constants import DETECTOR_TEMPLATES
from llava.errors import FailedRunError, InputError
from llava.fields import Fields
from llava.files import parse_json
from llava.model.answering.addresses import Address, parse_address
from llava.model.answering.transport import LateReplyError, NoReplyError, Reply, Transport, read_retry_after
from llava.protector.config import ProtectorConfig
from llava.protector.guards.base import check_threshold
from llava.protector.guards.probabilities import read_probabilities
from llava.protector.normalise import list_readings, normalise
from llava.protector.text import render_detector_text

KEY_VARIABLE = "MLLM_PROTECTOR_GUARD_KEY"
"""Environment variable of the key for the other machine."""
BATCH_SIZE = 64
"""Texts in one request unless told otherwise."""
TIMEOUT = 30.0
"""Seconds that a request may take, all tries together, unless the address says otherwise."""
MAX_TRIES = 3
FIRST_WAIT = 0.2
LONGEST_WAIT = 5.0
BUSY_STATUS = (429, 502, 503, 504)
"""What another try may mend."""
WINDOW, OVERLAP = 1500, 300
"""Characters of a window of a long response, and how many it shares with the next; a server that only classifies cuts
or refuses what is longer than its network reads."""
OWNER = "mllm-protector"
"""Who owns the model in `/v1/models` of a server of ours; it renders and cuts texts itself."""
SETTINGS = ("model", "threshold", "text_form", "normalise", "timeout")
"""What the query of the address may say about the guard; the rest of it goes to the server."""

logger = logging.getLogger(__name__)


class RemoteGuardError(FailedRunError):
    """A guard on another machine that gave no scores; the responses must be withheld."""


@dataclass(frozen=True)
class RemoteForm:
    """How a remote guard is asked, and where it flags."""

    model: str | None = None
    """Its name on the server; None takes the first one there."""
    threshold: float | None = None
    """Harm score from which a response is flagged; None takes the server's, or 0.5."""
    text_form: str = "prompt+response"
    """What a server that only classifies reads, see `ProtectorConfig`."""
    normalise: bool = False
    """Whether disguises are taken off before such a server is asked."""
    timeout: float = TIMEOUT
    """Seconds for a request."""
    renders: bool = False
    """Whether the server is one of ours."""
    key: str = ""
    """What tells the guard from another."""


class RemoteGuard:
    """Scores on another machine; a `Guard`.

    Nothing but finite probabilities counts as an answer. A server that is not there, late, busy after all tries, or
    says anything else, is an error, upon which the `Protector` withholds.

    Example:
        guard = RemoteGuard.connect("http://127.0.0.1:8000?threshold=0.7")
        guard.score(["First, boil the water."], ["How do I cook rice?"])  # one number from 0 to 1
    """

    def __init__(self, address: Address, form: RemoteForm, transport: Transport, batch_size: int = BATCH_SIZE):
        """Join an address, how it is asked, and what sends; see `connect`."""
        self.address = address
        self.form = form
        self.transport = transport
        self.batch_size = batch_size
        self.name = str(address)

    @classmethod
    def connect(cls, url: str, *, batch_size: int = BATCH_SIZE) -> RemoteGuard:
        """Reach a guard, and learn from the server what it is.

        Args:
            url: Its address; in the query may stand `model`, `threshold`, `text_form` (`prompt+response` or
                `response`), `normalise` (`true` or `false`) and `timeout` (seconds).
            batch_size: Texts in a request.

        Raises:
            InputError: When it is no address, the server is not there or refuses the key, or has no such model.
        """
        address, form = parse_remote(url)
        guard = cls(address, form, Transport(address, KEY_VARIABLE), batch_size)
        try:
            reply = guard.send("GET", "v1/models", None)
        except RemoteGuardError as error:
            raise InputError(f"{error}; is it running?") from None
        guard.form = read_form(reply, form, guard.name)
        return guard

    @property
    def identity(self) -> str:
        """What the server says it is, and where it flags."""
        return f"{self.form.key}@{self.threshold}"

    @property
    def threshold(self) -> float:
        """Harm score from which a response is flagged."""
        assert self.form.threshold is not None
        return self.form.threshold

    def score(self, responses: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Return one harm score for each response; NaN where the server could not tell, or there are no words.

        Raises:
            RemoteGuardError: When the server gives no scores.
        """
        asked = [(place, text) for place in range(len(responses)) for text in self._list_texts(responses[place])]
        found: list[list[float]] = [[] for _ in responses]
        for start in range(0, len(asked), self.batch_size):
            batch = asked[start : start + self.batch_size]
            scores = self._ask([text for _, text in batch], [prompts[place] for place, _ in batch])
            for (place, _), score in zip(batch, scores, strict=True):
                found[place].append(score)
        return [find_worst(scores) for scores in found]

    def _list_texts(self, response: str) -> list[str]:
        """Return the texts that are scored for a response."""
        if not response.strip():
            return []
        if self.form.renders:
            return [response]
        readings = list_readings(response) if self.form.normalise else [response]
        return [window for reading in readings for window in cut_text(reading)]

    def _ask(self, responses: list[str], prompts: list[str]) -> list[float]:
        """Return the scores of one request."""
        if self.form.renders:
            body: dict[str, Any] = {"model": self.form.model, "input": responses, "prompts": prompts}
        else:
            config = ProtectorConfig(kind="detector", text_form=self.form.text_form)
            asked = [normalise(prompt) for prompt in prompts] if self.form.normalise else prompts
            texts = [
                render_detector_text(config, prompt[:WINDOW], response)[0]
                for prompt, response in zip(asked, responses, strict=True)
            ]
            body = {"model": self.form.model, "input": texts}
        reply = self.send("POST", "classify", body)
        try:
            return read_probabilities(reply.text, len(responses), f"guard {self.name}: the answer")
        except InputError as error:
            raise RemoteGuardError(self.transport.hide(str(error))) from None

    def send(self, method: str, door: str, body: Any) -> Reply:
        """Send a request, again where another try may help, and return the answer.

        Raises:
            RemoteGuardError: When there is none within the time, or it is a refusal.
            InputError: When the server refuses the key.
        """
        end = time.monotonic() + self.form.timeout
        problem = "no time left"
        for attempt in range(MAX_TRIES):
            wait = FIRST_WAIT * 2**attempt
            try:
                reply = self.transport.send(method, self.address.join(door), max(0.01, end - time.monotonic()), body)
            except LateReplyError as error:
                raise RemoteGuardError(f"guard {self.name} gave no answer ({error})") from None
            except NoReplyError as error:
                problem = str(error)
            else:
                if reply.status == 200:
                    return reply
                problem = f"status {reply.status}"
                if reply.status in (401, 403):
                    raise InputError(f"guard {self.name} refuses access ({problem}); set {KEY_VARIABLE}")
                if reply.status not in BUSY_STATUS:
                    break
                wait = max(wait, min(LONGEST_WAIT, read_retry_after(reply.headers)))
            if attempt + 1 == MAX_TRIES or time.monotonic() + wait >= end:
                break
            time.sleep(wait)
        raise RemoteGuardError(f"guard {self.name} gave no answer ({problem})")


def parse_remote(url: str) -> tuple[Address, RemoteForm]:
    """Take the address of a remote guard apart: where the server is, and what is said about the guard.

    Raises:
        InputError: When it is no address, or says something wrong.

    Example:
        >>> address, form = parse_remote("http://guard:8000/v1?threshold=0.7&key=k")
        >>> str(address), address.join("classify"), form.threshold
        ('http://guard:8000?key=***', 'http://guard:8000/classify?key=k', 0.7)
    """
    address = parse_address(url)
    pairs = parse_qsl(address.query, keep_blank_values=True)
    said = dict(pair for pair in pairs if pair[0] in SETTINGS)
    rest = urlencode([pair for pair in pairs if pair[0] not in SETTINGS])
    path = address.path.removesuffix("/classify").removesuffix("/v1").rstrip("/")
    address = replace(address, path=path, query=rest)
    where = f"guard {address}"
    # A plus in a query stands for a blank.
    said["text_form"] = said.get("text_form", RemoteForm.text_form).replace(" ", "+")
    fields = Fields({**said, "timeout": _to_number(said, "timeout", TIMEOUT)}, where, "mend its query")
    form = RemoteForm(
        model=said.get("model"),
        threshold=None if "threshold" not in said else check_threshold(_to_number(said, "threshold"), where),
        text_form=fields.text("text_form", choices=tuple(DETECTOR_TEMPLATES)),
        normalise=fields.text("normalise", "false", choices=("true", "false")) == "true",
        timeout=fields.number("timeout", least=0.01, most=3600),
    )
    return address, form


def _to_number(said: dict[str, str], name: str, default: float | None = None) -> Any:
    """Return a number of the query; as it stands where it is none, for the message."""
    try:
        return default if name not in said else float(said[name])
    except ValueError:
        return said[name]


def read_form(reply: Reply, form: RemoteForm, name: str) -> RemoteForm:
    """Return how a guard is asked, with what its server says about it in `/v1/models`.

    Raises:
        InputError: When the list is none, or has no such model.
    """
    where, remedy = f"guard {name}: its list of models", "check the address"
    entries = Fields(parse_json(reply.text, where, remedy), where, remedy).items("data")
    models = [Fields(entry, where, remedy) for entry in entries]
    ours = [model for model in models if model.text("owned_by", None) == OWNER and "guard" in model]
    wanted = [model for model in (ours or models) if form.model in (None, model.text("id"))]
    if not wanted:
        known = ", ".join(model.text("id") for model in models[:5]) or "none"
        raise InputError(f"guard {name} has no model {form.model or 'at all'}; it has {known}")
    model = wanted[0]
    if model in ours:
        guard = model.inner("guard")
        threshold = guard.number("threshold", least=0, most=1) if form.threshold is None else form.threshold
        key = guard.text("identity").partition("@")[0]
        return replace(form, model=model.text("id"), threshold=check_threshold(threshold, where), renders=True, key=key)
    said = "\0".join([name, model.text("id"), str(model.values.get("root")), form.text_form, str(form.normalise)])
    return replace(
        form,
        model=model.text("id"),
        threshold=0.5 if form.threshold is None else form.threshold,
        key=hashlib.sha256(said.encode()).hexdigest(),
    )


def cut_text(text: str) -> list[str]:
    """Return a text in windows that overlap; a short one is whole.

    Example:
        >>> [len(window) for window in cut_text("x" * 3000)]
        [1500, 1500, 600]
    """
    if len(text) <= WINDOW:
        return [text]
    return [text[start : start + WINDOW] for start in range(0, len(text) - OVERLAP, WINDOW - OVERLAP)]


def find_worst(scores: list[float]) -> float:
    """Return the highest of the scores of a response's windows; NaN without any, and when one is unknown."""
    return max(scores) if scores and not any(map(math.isnan, scores)) else math.nan
