"""What is written down: JSON lines without what people wrote, and one line for each decision of the guard."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, TextIO

from llava.data.schema import GuardResult
from llava.serve.context import get_context

AUDIT = logging.getLogger("mllm_protector.audit")
ACCESS = logging.getLogger("mllm_protector.access")
PLAIN_NAME = re.compile(r"[\w.:/@+-]{1,128}", re.ASCII)
"""Names of models that are written down; another is no name, and may be a text."""
DEEPEST_STACK = 8
"""Places of a stack that a line names."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON line.

    Of an error, its type and the places it came through are written and not its words, which may quote what a user
    wrote; with `log_text` the words too.
    """

    def __init__(self, log_text: bool = False):
        """Say whether the words of errors may be written."""
        super().__init__()
        self.log_text = log_text

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        context = get_context()
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": context.id,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            frames = traceback.extract_tb(record.exc_info[2])[-DEEPEST_STACK:]
            line["error"] = record.exc_info[0].__name__
            line["stack"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
            if self.log_text:
                line["error_message"] = str(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)


def start_logging(log_text: bool = False, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Write every log line of this process as JSON to stderr, or to `stream`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(log_text))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("mllm_protector", "llava", "uvicorn.error"):
        logging.getLogger(name).setLevel(level)
    # Its lines hold whole addresses; ours say the route.
    logging.getLogger("uvicorn.access").disabled = True


def write_decision(
    result: GuardResult,
    *,
    route: str,
    model: str | None,
    threshold: float,
    inspected: Sequence[str],
    unseen: Sequence[str],
    failed_open: bool = False,
    log_text: bool = False,
    index: int = 0,
) -> None:
    """Write the audit line of one decision.

    Args:
        result: What was decided.
        route: The route that asked.
        model: The model that it named.
        threshold: What the score was compared with.
        inspected: What the guard read: `response`, `prompt`.
        unseen: What came with it and was not read: `image`, `tool`.
        failed_open: Whether the text passed without a judgement.
        log_text: Whether the text itself may be written.
        index: Which of the request's texts it is.
    """
    context = get_context()
    fields: dict[str, Any] = {
        "event": "decision",
        "client": context.client,
        "route": route,
        "model": model if model is None or PLAIN_NAME.fullmatch(model) else "other",
        "index": index,
        "score": result.harm_score,
        "threshold": threshold,
        "action": result.action.value,
        "inspected": list(inspected),
        "not_inspected": list(unseen),
        # The message of a failure may quote the text.
        "failure": {"part": result.failure.part, "error": result.failure.error} if result.failure else None,
        "failed_open": failed_open,
    }
    if result.removed is not None:
        # Where something was cut out; what it was, is text.
        fields["removed"] = [[span.start, span.end] for span in result.removed]
    if log_text:
        fields |= {"original_text": result.original_text, "text": result.text}
    AUDIT.info("decision", extra={"fields": fields})
