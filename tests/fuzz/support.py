"""What all fuzz tests share: how many inputs, and what must hold for every one of them.

An input is either refused by one line of at most 500 characters, or accepted with a value that its check calls valid;
within a time and a memory limit, and without a trace outside the folder that the parser may write to. The fast
tests try fifty inputs a parser; `MLLM_PROTECTOR_FUZZ_EXAMPLES` asks for more, as CI and the fuzz set do.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from llava.errors import LONGEST_MESSAGE, FailedRunError, InputError

EXAMPLES = int(os.environ.get("MLLM_PROTECTOR_FUZZ_EXAMPLES", "50"))
"""Inputs a parser."""
SECONDS = 20.0
"""Longest that one input may take of the processor; on a busy machine the clock on the wall says nothing."""
MEMORY_BYTES = 1 << 30
"""How much one input may add to the highest memory use of the process."""

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
"""Decorator of every fuzz test."""
some = settings(fuzz, max_examples=max(20, EXAMPLES // 20))
"""Decorator of a test of a whole, whose parser another test tries by itself and far more often."""


def check_parser(parse: Callable[[], Any], check: Callable[[Any], Any] = lambda value: None) -> Any:
    """Run a parser on one input and assert what must hold for every input.

    Args:
        parse: Reads the input; generators are to be used up by it (`lambda: list(...)`).
        check: Asserts that an accepted value is valid.

    Returns:
        The accepted value, or None when the input was refused.
    """
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        value = parse()
    except (InputError, FailedRunError) as error:
        message = str(error)
        assert 0 < len(message) <= LONGEST_MESSAGE, len(message)
        assert message.isprintable(), ascii(message)
        value = None
    else:
        check(value)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert time.process_time() - started < SECONDS
    assert grown < MEMORY_BYTES, f"{grown >> 20} MiB more"
    return value


def list_tree(folder: Path) -> dict[str, int]:
    """Return every file below a folder with its size, to be compared before and after.

    Not by `rglob`, which takes longer than most parsers do.
    """
    found: dict[str, int] = {}
    folders = [""]
    while folders:
        inside = folders.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                name = f"{inside}{entry.name}"
                found[name] = entry.stat().st_size if entry.is_file() else -1
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{name}/")
    return found


def write(folder: Path, name: str, content: bytes | str) -> Path:
    """Write an input and return its path."""
    path = folder / name
    packed = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    try:
        path.write_bytes(packed)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed)
    return path


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, -1, 0, 1 << 63])
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=30)
    | st.sampled_from(["", "../../x", "a" * 400, "\x00", "\u2028", "\ud83d", "<b>", "[red]", "nan", "8"])
)
"""JSON scalars, ordinary and hostile."""
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
"""Any JSON value."""


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """Draw a copy of a valid JSON value with up to three of its parts replaced, removed, doubled or added."""
    value = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(0, 3))):
        holder, key = draw(st.sampled_from(_places(value) or [([value], 0)]))
        action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if action == "replace":
            holder[key] = draw(values)
        elif action == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=10))] = draw(values)
        else:
            holder.append(draw(values))
        if not _places(value):
            break
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a JSON value, outer ones first."""
    found: list[tuple[Any, Any]] = []
    level = [value]
    while level:
        inside = []
        for item in level:
            keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else []
            found += [(item, key) for key in keys]
            inside += [item[key] for key in keys]
        level = inside
    return found


def dump(value: Any) -> str:
    """Return JSON text, with NaN, Infinity and half surrogate pairs as careless programs write them."""
    return json.dumps(value)


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Draw a copy of a valid file: cut, with bytes changed, something put in, or all of it something else."""
    content = bytearray(valid)
    how = draw(st.sampled_from(["cut", "flip", "insert", "other", "whole"]))
    if how == "cut":
        return bytes(content[: draw(st.integers(0, len(content)))])
    if how == "other":
        return draw(st.binary(max_size=200))
    if how == "insert":
        place = draw(st.integers(0, len(content)))
        content[place:place] = draw(st.binary(min_size=1, max_size=20))
    elif how == "flip":
        for _ in range(draw(st.integers(1, 8))):
            if content:
                content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


cells = st.text(max_size=20) | st.sampled_from(
    [
        "",
        " ",
        "../../x",
        "/etc/x",
        "a" * 400,
        "\x00",
        "\u2028",
        "\ufeff",
        '"',
        "a,b",
        "a;b",
        "\t",
        "True",
        "safe",
        "1",
        "nan",
    ]
)
"""Cells of a table, ordinary and hostile."""


@st.composite
def tables(draw: st.DrawFn, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Draw a CSV file that was valid before its cells, its header or its bytes were changed."""
    table = [list(columns), *(list(row) for row in rows)]
    for _ in range(draw(st.integers(0, 3))):
        line = draw(st.sampled_from(table))
        line[draw(st.integers(0, len(line) - 1))] = draw(cells)
    stream = io.StringIO(newline="")
    delimiter = draw(st.sampled_from([",", ",", ";", "\t"]))
    csv.writer(stream, delimiter=delimiter, lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"]))).writerows(table)
    content = stream.getvalue().encode("utf-8", "surrogatepass")
    return draw(st.just(content) | st.just(b"\xef\xbb\xbf" + content) | damaged(content))


@st.composite
def row_files(draw: st.DrawFn, rows: Sequence[dict[str, Any]]) -> tuple[str, bytes]:
    """Draw a file of rows in any form, with its ending: rows changed, then perhaps bytes, then perhaps compressed."""
    changed = [draw(mutated(row)) for row in rows]
    lines = "".join(dump(row) + "\n" for row in changed).encode()
    document = dump(draw(st.just(changed) | st.just({"x": changed[0], "y": changed[-1]}) | values)).encode()
    content = draw(st.sampled_from([lines, lines, document]))
    content = draw(st.just(content) | damaged(content))
    forms: list[tuple[str, Callable[[bytes], bytes]]] = [
        ("", bytes),
        ("", bytes),
        (".gz", gzip.compress),
        (".xz", lambda plain: lzma.compress(plain, preset=0)),  # the usual preset first fills 90 MB with zeros
    ]
    pack, compress = draw(st.sampled_from(forms))
    packed = compress(content)
    if pack:
        packed = draw(st.just(packed) | damaged(packed))
    return draw(st.sampled_from([".jsonl", ".json", ".csv", ".tsv"])) + pack, packed
