"""The command line: one Typer app, commands by family."""

from llava.cli.app import main, run

__all__ = ["main", "run"]
