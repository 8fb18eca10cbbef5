"""Templates filled in, and files that never replace others."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfloop import atomic
from selfloop.errors import DiskFullError, SelfloopError, StoreError

TEMPLATES = Path(__file__).parent / "templates"
_PLAIN = re.compile(r"[A-Za-z_/.][\w./-]*")


def rendered(template: str, **values: Any) -> str:
    """Return a template filled in; a value that it wants and is not given is an error of ours."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    how = {"keep_trailing_newline": True, "trim_blocks": True, "lstrip_blocks": True}
    made = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=False, **how)  # type: ignore[arg-type]
    made.filters["yaml"] = _scalar
    return made.get_template(f"{template}.j2").render(values)


def _scalar(text: str) -> str:
    """Return a text as YAML has it: as it is where that is plain, else quoted."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def write_all(files: Mapping[Path, str]) -> None:
    """Write new files, the folders too. Raises SelfloopError if one is there already, before any is written."""
    for path in files:
        if path.exists() or path.is_symlink():
            raise SelfloopError(f"{path} is there already, and stays as it is. Give another name, or move it away.")
    made = []
    try:
        for path, text in files.items():
            atomic.write_new(path, text)
            made.append(path)
    except (OSError, DiskFullError) as error:
        for earlier in made:  # or the next try would find them in its way
            earlier.unlink()
        if isinstance(error, DiskFullError):
            raise
        raise StoreError(f"cannot write {error.filename or path}: {error.strerror}. Choose another place.") from error
