"""What `mllm-protector serve` does: settings, parts, application, server, in this order."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.model.options import take_options
from llava.process import leave
from llava.protector.guard import find_parts
from llava.protector.protector import Protector
from llava.serve.app import ChatDoor, build_app
from llava.serve.audit import start_logging
from llava.serve.chat.in_process import InProcessModel
from llava.serve.chat.router import Chat
from llava.serve.chat.upstream import Upstream
from llava.serve.running import (
    UPSTREAM_VARIABLE,
    open_socket,
    parse_pairs,
    parse_thresholds,
    read_api_keys,
    run_server,
)
from llava.serve.service import GuardService
from llava.serve.settings import ServerSettings

if TYPE_CHECKING:
    from llava.model.answering.generation import MultimodalModel

LAST_SECONDS = 5.0
"""How long the guard's threads may take for their last batch once every request has ended."""

logger = logging.getLogger(__name__)


def launch(options: dict[str, Any], announce: Callable[[str], object]) -> None:
    """Run a server until it is told to stop.

    Args:
        options: Those of the command, by name.
        announce: Told the server's address once it answers.

    Raises:
        InputError: When an option or a checkpoint cannot be used.
    """
    settings = read_settings(options)
    check_parts(options)
    opened = open_socket(settings.host, settings.port)
    with opened:
        model = load_model(options)
        protector = Protector.from_options(options, model)
        start_logging(settings.log_text)
        service = GuardService(protector, settings)
        app = build_app(settings, service, build_chat(options, settings, service, model))
        if settings.fail_open:
            logger.warning("--fail-open: texts that the guard cannot judge will pass; they are counted apart")
        run_server(app, settings, opened, lambda address: announce(f"listening on {address}"))
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
    if not service.join(LAST_SECONDS) or others:
        # What still hangs had its time. The interpreter would wait for it, or fall over a thread inside torch.
        leave(0)


def read_settings(options: dict[str, Any]) -> ServerSettings:
    """Return the settings of a server from the command's options.

    Raises:
        InputError: When one is out of its bounds.
    """
    names = {each.name for each in fields(ServerSettings)}
    given = {name: value for name, value in options.items() if name in names}
    return ServerSettings(
        **given,
        api_keys=read_api_keys(options["api_key_file"]),
        thresholds=parse_thresholds(options["threshold_for"] or []),
        actions=parse_pairs(options["action_for"] or [], "--action-for"),
    )


def check_parts(options: dict[str, Any]) -> None:
    """Refuse parts that do not go together, before any is loaded.

    Raises:
        InputError: Naming the options.
    """
    if options["model"] and options["upstream"]:
        raise InputError("--model and --upstream exclude each other; give the one that is to be guarded")
    if options["detector"] in ("", "none"):
        raise InputError("serve needs a guard; give --detector")
    if options["detoxifier_base"] is not None and options["detoxifier"] in (None, "", "none"):
        raise InputError("--detoxifier-base does nothing without a detoxifier; add --detoxifier")
    if options["share_backbone"] and not options["model"]:
        raise InputError("--share-backbone needs the model in this process; add --model or leave it out")


def load_model(options: dict[str, Any]) -> MultimodalModel | None:
    """Load the model of this process, once the guard's parts are known to be there; None where there is none.

    Raises:
        InputError: When it, or a part, cannot be used.
    """
    if not options["model"]:
        return None
    from llava.model.loading import load_mllm

    find_parts(options)
    return load_mllm(options["model"], take_options(options))


def build_chat(
    options: dict[str, Any], settings: ServerSettings, service: GuardService, model: MultimodalModel | None
) -> ChatDoor | None:
    """Return what answers chats; None for the guard alone.

    Raises:
        InputError: When the upstream's address cannot be used.
    """
    if options["upstream"]:
        key = os.environ.get(UPSTREAM_VARIABLE, "").strip() or None
        return Chat(settings, service, Upstream(options["upstream"], key, seconds=settings.request_timeout))
    if model is None:
        return None
    name = str(options["model"]).rstrip("/").rpartition("/")[2]
    return Chat(settings, service, InProcessModel(model, name, max_new_tokens=settings.max_new_tokens))
