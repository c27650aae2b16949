"""What MkDocs is told about pages that lie elsewhere: the README, the changes, and a reference page a folder."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "llava"
BORROWED = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Page → file of the repository that it shows."""
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the borrowed pages and the reference, and put the reference into the navigation."""
    for page, source in BORROWED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    pages = build_reference()
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    config.nav.append({"API reference": [{title_of(page): page} for page in pages]})
    return files


def build_reference() -> dict[str, str]:
    """Return a page for each folder of the package, with every module in it, by name of the page."""
    pages = {}
    for folder in sorted({path.parent for path in PACKAGE.rglob("*.py")}):
        modules = [name_module(path) for path in sorted(folder.glob("*.py"), key=lambda path: path.stem.strip("_"))]
        title = name_module(folder / "__init__.py")
        parts = [f"# `{title}`"]
        parts += [f"## `{name}`\n\n::: {name}\n    options:\n      heading_level: 3" for name in modules]
        pages[f"api/{title.replace('.', '-')}.md"] = "\n\n".join(parts) + "\n"
    return pages


def name_module(path: Path) -> str:
    """Return the dotted name of a module's file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def title_of(page: str) -> str:
    """Return a reference page's name in the navigation."""
    return Path(page).stem.replace("-", ".")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make links between files of the repository links between pages; what is no page keeps its name alone."""
    source = BORROWED.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    known = {**{f"docs/{file.src_uri}": file.src_uri for file in files}, **{v: k for k, v in BORROWED.items()}}

    def follow(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in known:
            return (
                f"[{text}]({posixpath.relpath(known[path], posixpath.dirname(page.file.src_uri) or '.')}{anchor or ''})"
            )
        if not (ROOT / path).exists():
            raise ValueError(f"{source} links to {target}, which is not there")
        return text if text.strip("`") == path else f"{text} (`{path}`)"

    return LINK.sub(follow, markdown)
