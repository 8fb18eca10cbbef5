"""docs/errors.md quotes messages of the source, and has every class with its exit code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfloop import errors

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^> `(.+)`$", PAGE, re.MULTILINE)
CLASSES = [
    one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, errors.SelfloopError)
]


def messages(path: Path) -> Iterator[str]:
    """Yield the texts of a file, with … for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def said() -> set[str]:
    return {
        text
        for folder in ("selfloop", "plugins")
        for path in (ROOT / folder).rglob("*.py")
        for text in messages(path)
    }


def test_there_is_something_quoted() -> None:
    assert len(QUOTED) > 30


@pytest.mark.parametrize("quoted", QUOTED)
def test_the_source_says_so(quoted: str, said: set[str]) -> None:
    assert quoted in said


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_stands_with_its_exit_code(kind: type[errors.SelfloopError]) -> None:
    assert f"| `{kind.__name__}` | {kind.exit_code} | " in PAGE


def test_a_message_is_read_with_its_gaps(tmp_path: Path) -> None:
    """A test of these tests: a message over two lines, with gaps, comes as one text."""
    (tmp_path / "some.py").write_text(
        "def f(x, y):\n    return (\n        f'no {x} named '\n        f'{y!r}. Do so'\n    )\n"
    )
    assert "no … named …. Do so" in set(messages(tmp_path / "some.py"))
