"""Markdown for the cards of models and data sets.

Text that came from elsewhere stays text: nothing in it ends a block, a cell or the front matter.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import Any

from selfloop.text.display import encodable, printable, printable_block

NAME = "README.md"


def front(about: Mapping[str, Any]) -> str:
    """Return the YAML that the Hugging Face hub reads at the top of a card."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = StringIO()
    yaml.dump(dict(about), out)
    return f"---\n{out.getvalue()}---\n"


def code(text: str) -> str:
    """Return `text` as code within a line, or a cell of a table."""
    clean = printable(encodable(text)).replace("|", "\\|") or "(none)"
    # a longer run of backticks than any inside ends the code, and only that
    marks = "`" * (_longest_backticks(clean) + 1)
    # a space keeps backticks at the edges apart from the marks
    space = " " if "`" in clean else ""
    return f"{marks}{space}{clean}{space}{marks}"


def block(text: str, language: str = "") -> str:
    """Return `text` as a block of code, which nothing in it can end."""
    clean = printable_block(encodable(text)).strip("\n")
    marks = "`" * max(3, _longest_backticks(clean) + 1)
    return f"{marks}{language}\n{clean}\n{marks}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. Pass every cell that is not a plain word through `code`."""
    lines = [" | ".join(row) for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _longest_backticks(text: str) -> int:
    """Return the length of the longest run of backticks."""
    return max((len(run) for run in re.findall("`+", text)), default=0)


def made_with(model: Mapping[str, Any]) -> str:
    """Return a sentence on a run's model: name, hash, size and architecture, as far as known."""
    facts = []
    if model.get("sha256"):
        facts.append(f"sha256 {code(str(model['sha256']))}")
    if model.get("parameters"):
        facts.append(f"{model['parameters']:,} parameters")
    if model.get("architecture"):
        facts.append(f"architecture {code(str(model['architecture']))}")
    name = code(str(model.get("name", "")))
    return f"{name} ({', '.join(facts)})" if facts else name
