"""JSON that a stranger may have written: however it is broken, reading it raises ValueError.

Python's own reader raises RecursionError for JSON that is nested deeply, and reads a file of any
size.
"""

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 64 << 20  # of a file: the largest of a tokenizer is half of that


def parsed(text: str | bytes) -> Any:
    """Return the data in a JSON text.

    Raises ValueError for anything else, with the reason on one line.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error


def read_json(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """Return the data in a JSON file of at most `max_bytes` bytes.

    Raises ValueError, or OSError for the disk.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)  # one more tells whether there is more
    if len(content) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    # a byte order mark, as some editors on Windows write it
    return parsed(content.removeprefix(b"\xef\xbb\xbf"))


def read_object(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises ValueError for other data, or OSError for the disk.
    """
    data = read_json(path, max_bytes)
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    return data
