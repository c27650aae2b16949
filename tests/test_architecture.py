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


PAGE = ROOT / "docs" / "architecture.md"
MAP_HEADING = re.compile(r"^### `(llava/[\w/]*)`$")
MAP_LINE = re.compile(r"^- `(\w+\.py)`: \S+")


def read_map(text: str) -> set[str]:
    """Return the modules that the page names, as paths; a line without a phrase names none."""
    named, folder = set(), ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = MAP_HEADING.match(line)
            folder = heading.group(1) if heading else ""
        elif folder and (found := MAP_LINE.match(line)):
            named.add(folder + found.group(1))
    return named


def list_mapped_files() -> dict[str, Path]:
    """Return every module that the map must name; of the `__init__` files the package's own alone has a line."""
    return {
        str(path.relative_to(ROOT)): path
        for name, path in MODULES.items()
        if path.name != "__init__.py" or name == "llava"
    }


def propose_line(path: Path) -> str:
    """Return the line that the map lacks, with the first sentence of the module's docstring as its phrase."""
    phrase = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return f"under ### `{path.parent.relative_to(ROOT)}/`: - `{path.name}`: {' '.join(phrase.split()).rstrip('.')}"


def test_the_map_names_every_module():
    named, there = read_map(PAGE.read_text(encoding="utf-8")), list_mapped_files()
    missing = [propose_line(there[name]) for name in sorted(set(there) - named)]
    assert not missing, "add to docs/architecture.md:\n" + "\n".join(missing)
    gone = sorted(named - set(there))
    assert not gone, "take out of docs/architecture.md, they are not in the tree: " + ", ".join(gone)


def test_a_module_that_the_map_lacks_is_found():
    page = PAGE.read_text(encoding="utf-8")
    short = re.sub(r"^- `images\.py`: .*\n", "", page, count=1, flags=re.MULTILINE)
    assert read_map(page) - read_map(short) == {"llava/data/images.py"}
    assert propose_line(MODULES["llava.data.images"]).startswith(
        "under ### `llava/data/`: - `images.py`: Opening images"
    )
    assert "llava/data/images.py" not in read_map(page.replace("- `images.py`: ", "- `images.py`:\n"))


def test_the_readme_shows_the_tree():
    """One line a folder, of those that hold modules."""
    (tree,) = re.findall(r"```\n(llava/\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    shown, open_folders = set(), []
    for line in tree.splitlines():
        indent, name, phrase = re.match(r"( *)([\w/]+)/ *(.*)", line).groups()
        open_folders = [*open_folders[: len(indent) // 2], name]
        shown.add("/".join(open_folders))
        assert phrase or name == "llava", f"{line.strip()}: say in a phrase what it holds"
    there = {str(path.parent.relative_to(ROOT)) for path in MODULES.values()}
    missing = sorted(there - shown)
    assert not missing, "add to the tree in README.md a line with a phrase for " + ", ".join(missing)
    assert {name for name in shown if not (ROOT / name).is_dir()} == set()
