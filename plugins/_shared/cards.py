"""What the cards of models and data sets are written with: text that came from elsewhere stays text in Markdown."""

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
    yaml.dump(dict(about), out := StringIO())
    return f"---\n{out.getvalue()}---\n"


def code(text: str) -> str:
    """Return `text` as code within a line, or a cell of a table."""
    clean = printable(encodable(text)).replace("|", "\\|") or "(none)"
    marks = "`" * (_longest(clean) + 1)
    room = " " if "`" in clean else ""
    return f"{marks}{room}{clean}{room}{marks}"


def block(text: str, language: str = "") -> str:
    """Return `text` as a block of code, which nothing in it can end."""
    clean = printable_block(encodable(text)).strip("\n")
    marks = "`" * max(3, _longest(clean) + 1)
    return f"{marks}{language}\n{clean}\n{marks}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; what is no plain word in it must be `code`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _longest(text: str) -> int:
    """Return the length of the longest run of backticks."""
    return max((len(run) for run in re.findall("`+", text)), default=0)


def made_with(model: Mapping[str, Any]) -> str:
    """Return what is known of a run's model, in a sentence."""
    facts = [f"sha256 {code(str(model['sha256']))}"] if model.get("sha256") else []
    if parameters := model.get("parameters"):
        facts.append(f"{parameters:,} parameters")
    if architecture := model.get("architecture"):
        facts.append(f"architecture {code(str(architecture))}")
    return code(str(model.get("name", ""))) + (f" ({', '.join(facts)})" if facts else "")
