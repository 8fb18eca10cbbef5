"""What mkdocs does for the site beside its own work.

README.md is the first page. A pattern in the menu (`detectors/*.md`) stands for its pages, and a
mark in docs/detectors.md for the table of them, so that a detector's page is listed without a line.
Links to the sources lead somewhere.

A page links to `../selfloop/loop.py`, which is right in a checkout and wherever a forge shows it.
In the site that link leads to the same file under `repo_url`, or, while mkdocs.yml names none, to a
page made of the file.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
MADE = "source/"  # where the pages of files outside docs/ stand
LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".toml": "toml",
    ".md": "markdown",
    ".jsonl": "json",
    ".css": "css",
}
LANGUAGES |= {
    ".ipynb": "json",
    ".html": "html",
    ".js": "javascript",
    ".csv": "text",
    ".txt": "text",
    "": "text",
}


# in docs/detectors.md: the table of all detectors, made from their pages
DETECTORS_MARK = "<!-- detectors -->"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of each pattern of the menu in its place, in the order of their names."""
    for entry in config.nav or []:
        for title, pages in entry.items():
            if isinstance(pages, list):
                entry[title] = expanded(pages)
    return config


def expanded(pages: Iterable[str]) -> list[str]:
    """Return the pages of a part of the menu, with each pattern replaced by its pages."""
    names: list[str] = []
    for page in pages:
        if "*" in page:
            names += sorted(str(path.relative_to(DOCS)) for path in DOCS.glob(page))
        else:
            names.append(page)
    return names


def detector_table() -> str:
    """Return the table of all detectors: name, confidence and costs, from their pages."""
    lines = ["| detector | confidence | costs beside answering |", "| --- | --- | --- |"]
    for path in sorted(DOCS.glob("detectors/*.md")):
        text = path.read_text(encoding="utf-8")
        name = f"[`{path.stem}`](detectors/{path.name})"
        cells = [name, fact(text, "Confidence"), fact(text, "Costs beside answering")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def fact(text: str, name: str) -> str:
    """Return a fact that a detector's page begins with, for a cell of a table; "" without one.

    It is the rest of the paragraph that begins with the fact's name and a colon.
    """
    match = re.search(rf"^{name}: (.+?)\.?$\n\n", text, re.MULTILINE | re.DOTALL)
    return " ".join(match[1].split()).replace("|", "\\|") if match else ""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the first page, and a page for each file outside docs/ that some page links to."""
    first = _rewritten((ROOT / "README.md").read_text(encoding="utf-8"), ROOT, DOCS, config)
    files.append(File.generated(config, "index.md", content=first))
    if not config.repo_url:
        for path in sorted(_linked(files)):
            files.append(File.generated(config, _page_of(path), content=_shown(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let a page's links to files outside docs/ lead to where these are in the site."""
    if page.file.generated_by:
        return markdown
    markdown = markdown.replace(DETECTORS_MARK, detector_table())
    folder = (DOCS / page.file.src_uri).parent
    return _rewritten(markdown, folder, folder, config)


def _rewritten(markdown: str, base: Path, folder: Path, config: MkDocsConfig) -> str:
    """Return a page whose links, relative to `base`, lead to the same places from `folder`."""

    def lead(link: re.Match[str]) -> str:
        path = (base / link[1]).resolve()
        if not path.exists():
            return link[1]
        if path.is_relative_to(DOCS):
            return os.path.relpath(path, folder)
        if config.repo_url:
            kind = "tree" if path.is_dir() else "blob"
            return f"{config.repo_url.rstrip('/')}/{kind}/HEAD/{path.relative_to(ROOT)}"
        return os.path.relpath(DOCS / _page_of(path), folder)

    return LINK.sub(lead, markdown)


def _linked(files: Files) -> set[Path]:
    """Return the files and folders outside docs/ that pages link to, and the files in them."""
    pages = [
        ROOT / "README.md",
        *(DOCS / file.src_uri for file in files if file.is_documentation_page()),
    ]
    paths: set[Path] = set()
    for page in filter(Path.is_file, pages):
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / link).resolve()
            if path.exists() and path.is_relative_to(ROOT) and not path.is_relative_to(DOCS):
                paths |= {path, *_within(path)}
    return paths


def _within(path: Path) -> Iterator[Path]:
    """Yield the folders, and the files that can be shown, in a folder and below it."""
    if not path.is_dir():
        return
    for entry in sorted(path.iterdir()):
        # private modules and hidden files are not for readers
        if entry.name[0] in "._" and entry.name != "__init__.py":
            continue
        yield from _within(entry)
        if entry.is_dir() or entry.suffix in LANGUAGES:
            yield entry


def _page_of(path: Path) -> str:
    return f"{MADE}{path.relative_to(ROOT)}.md"


def _shown(path: Path) -> str:
    """Return the page of a file, or of a folder: a list of its entries."""
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {path.relative_to(ROOT)}\n\n"
    if path.is_dir():
        names = [entry.name for entry in _within(path) if entry.parent == path]
        return head + "".join(f"* [{name}]({path.name}/{name}.md)\n" for name in names)
    return f"{head}`````{LANGUAGES[path.suffix]}\n{path.read_text(encoding='utf-8')}\n`````\n"
