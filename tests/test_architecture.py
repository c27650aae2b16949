"""The house: layers without an arrow back, no circles, folders and modules that can be overlooked."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "llava"
LAYERS = ("data", "model", "protector", "eval", "quality", "train")
"""A folder imports only from itself and from those to its left; modules beside them stand left of all."""
SERVE = {"data", "model", "protector"}
"""What a server is built on."""
MOST_MODULES = 15
MOST_LINES = 300


def name_module(path: Path) -> str:
    """Return the dotted name of a module's file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_module(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def read_imports(name: str, source: str, known: dict[str, Path]) -> set[str]:
    """Return the modules of the package that a module imports anywhere, names in strings (`module:function`) too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name if known.get(name, Path()).name == "__init__.py" else name.rpartition(".")[0]
            head = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (head, node.module) if part)
            for alias in node.names:
                full = f"{module}.{alias.name}"
                found.add(full if full in known else module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Modules that are imported by name when they are needed.
            found |= {
                word for word in re.findall(r"\bllava(?:\.\w+)+", node.value) if word in known and ":" in node.value
            }
    return {module for module in found if module in known and module != name}


IMPORTS = {name: read_imports(name, path.read_text(encoding="utf-8"), MODULES) for name, path in MODULES.items()}


def layer_of(name: str) -> str:
    """Return the folder of a module below the package; empty for those beside the folders."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else ""


def find_back_arrows(imports: dict[str, set[str]]) -> list[str]:
    """Return every import that runs against the layers, as `module -> module`."""
    wrong = []
    for name, targets in imports.items():
        here = layer_of(name)
        for target in sorted(targets):
            there = layer_of(target)
            # The package's own front door and the command line stand above all and may take from anywhere.
            if name == "llava" or here in ("cli", there) or (not there and target != "llava"):
                continue
            if target == "llava":
                fine = True  # the version, no more: `__init__` imports nothing before it is asked
            elif here == "serve":
                fine = there in SERVE
            else:
                fine = here in LAYERS and there in LAYERS and LAYERS.index(there) < LAYERS.index(here)
            if not fine:
                wrong.append(f"{name} -> {target}")
    return wrong


def test_no_arrow_runs_back():
    assert find_back_arrows(IMPORTS) == []


def test_a_lazy_import_that_runs_back_is_found():
    source = "def f():\n    from llava.train import base\n"
    imports = read_imports("llava.data.images", source, MODULES)
    assert find_back_arrows({"llava.data.images": imports}) == ["llava.data.images -> llava.train.base"]


def test_a_module_named_in_a_string_counts():
    source = 'HOMES = {"x": "llava.train.base:save"}'
    assert read_imports("llava.data.images", source, MODULES) == {"llava.train.base"}


def test_no_circles():
    # A package's `__init__` names what is inside it; that is no dependency of the inside on the outside.
    try:
        TopologicalSorter({name: targets - {"llava"} for name, targets in IMPORTS.items()}).prepare()
    except CycleError as error:
        pytest.fail("circle: " + " -> ".join(error.args[1]))


def test_no_folder_is_crowded():
    folders = {path.parent for path in MODULES.values()}
    counts = {
        str(folder.relative_to(ROOT)): len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        for folder in folders
    }
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_no_module_is_long():
    long = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}
