"""The command `mllm-protector`: one Typer app over the package; each command imports what it needs when it runs."""

from __future__ import annotations

import functools
import logging
import sys
import threading
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from llava import __version__
from llava.cli import chat, evaluate, machine, models, protect, serve
from llava.cli.command import CheckedCommand
from llava.cli.config import join_lists
from llava.errors import to_one_line
from llava.process import describe_failure, end_process, leave

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="mllm-protector",
    help="Make a multimodal LLM safe without changing it: detect harmful responses, rewrite them, measure the result.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 120},
)


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Handle what stands before the command's name."""
    if version:
        typer.echo(f"mllm-protector {__version__}")
        raise typer.Exit()


PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
for _command in (
    *(evaluate.generate, evaluate.score, evaluate.report, evaluate.compare),
    *(protect.detect, protect.detoxify, protect.calibrate, protect.guard_bench),
    *(models.merge, models.convert, models.export),
    *(serve.serve, chat.chat, chat.demo, machine.quickstart, machine.doctor),
):
    app.command(cls=CheckedCommand)(_command)
for _name, _train in (
    ("train-detector", models.train_detector),
    ("train-detoxifier", models.train_detoxifier),
    ("train-llava", models.train_llava),
):
    app.command(_name, cls=CheckedCommand, context_settings=PASS_THROUGH)(_train)


@functools.cache
def build_command() -> Any:
    """Return the program as a command of Typer's parser, built from the signatures once a process."""
    return get_command(app)


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Words after the program's name; None takes them from the shell.

    Returns:
        Exit code: 0 done, 1 failed, 2 bad usage or input (one line on stderr says what and how to mend it), 130 ended
        by the user.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    arguments = join_lists(sys.argv[1:] if argv is None else argv)
    try:
        result: Any = build_command()(args=arguments, standalone_mode=False, prog_name="mllm-protector")
    except (KeyboardInterrupt, typer.Abort):
        return _end_interrupted()
    except Exception as error:
        if (failure := describe_failure(error)) is not None:
            return _fail(*failure)
        # Typer's own usage errors carry their message and code; its class has moved between versions.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _fail(f"{error.format_message()} (see --help)", 2)
        raise
    # Newer versions of Typer turn Ctrl-C into an exit code of their own.
    return _end_interrupted() if result == INTERRUPTED else result if isinstance(result, int) else 0


def _end_interrupted() -> int:
    """Say that the user ended the command, and end at once where threads still wait for a server."""
    code = _fail("interrupted; run the same command again to go on", INTERRUPTED)
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        # The interpreter would wait for them, up to --request-timeout; what they may bring is not written any more.
        leave(code)
    return code


def _fail(message: str, code: int) -> int:
    """Print one line to stderr and return the exit code."""
    print(f"error: {to_one_line(message)}", file=sys.stderr)
    return code


def run() -> NoReturn:
    """Run a command as a process: the console script."""
    end_process(main())
