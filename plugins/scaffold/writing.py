"""Templates filled in, and files that never replace others."""

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from selfloop.errors import DiskFullError, RecipeError, SelfloopError, StoreError
from selfloop.storage import atomic
from selfloop.text.display import printable

TEMPLATES = Path(__file__).parent / "templates"
_PLAIN = re.compile(r"[A-Za-z_/.][\w./-]*", re.ASCII)


def rendered(template: str, **values: Any) -> str:
    """Return a template filled in. A value that is missing is an error of ours, and raises."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        # a line that has a block of jinja alone leaves no line
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["yaml"] = yaml_scalar
    environment.filters["before_comment"] = _before_comment
    environment.filters["comment"] = printable
    return environment.get_template(f"{template}.j2").render(values)


def yaml_scalar(text: str) -> str:
    """Return a text as YAML has it, on one line.

    Raises RecipeError for a name that is not UTF-8.
    """
    # anything odd goes into double quotes, where every character can be written
    if _PLAIN.fullmatch(text):
        return _dumped(text)
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    return _dumped(DoubleQuotedScalarString(text))


def _dumped(text: str) -> str:
    """Return a text as YAML's own writer has it: in quotes if it would be a number or a date."""
    from ruamel.yaml import YAML

    writer = YAML(typ="rt")
    writer.width = 2**30  # characters: on one line, however long
    out = StringIO()
    try:
        text.encode("utf-8")
        writer.dump({"text": text}, out)
    except UnicodeEncodeError as error:
        raise RecipeError(
            f"{printable(text)} is not UTF-8 text, which a recipe is. Rename the file."
        ) from error
    return out.getvalue().removeprefix("text: ").removesuffix("\n")


def _before_comment(text: str, column: int) -> str:
    """Return a line padded to the column of its comment.

    Two spaces at least stand between: without a space, YAML sees no comment.
    """
    return text.ljust(column) if len(text) < column else f"{text}  "


def write_all(files: Mapping[Path, str]) -> None:
    """Write new files, the folders too.

    Raises SelfloopError if one is there already, before any is written.
    """
    for path in files:
        if path.exists() or path.is_symlink():
            raise SelfloopError(
                f"{path} is there already, and stays as it is. Give another name, or move it away."
            )
    written = []
    try:
        for path, text in files.items():
            atomic.write_new(path, text)
            written.append(path)
    except (OSError, DiskFullError) as error:
        for earlier in written:  # or the next try would be refused because of them
            earlier.unlink()
        if isinstance(error, DiskFullError):
            raise
        raise StoreError(
            f"cannot write {error.filename or path}: {error.strerror}. Choose another place."
        ) from error
