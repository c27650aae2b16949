import inspect
from typing import get_args

from llava.cli import chat, evaluate, machine, models, protect, serve
from llava.cli import options as cli_options


def test_every_shared_option_has_help_and_a_user():
    source = "".join(inspect.getsource(family) for family in (chat, evaluate, machine, models, protect, serve))
    names = [name for name in vars(cli_options) if name[0].isupper() and name not in ("Annotated", "Path")]
    assert names
    for name in names:
        (info,) = [part for part in get_args(vars(cli_options)[name])[1:] if hasattr(part, "help")]
        assert info.help
        assert f": {name}" in source
