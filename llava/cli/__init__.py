"""The command line: one Typer app, commands by family."""

from llava.cli.app import app, main, run

__all__ = ["app", "main", "run"]
